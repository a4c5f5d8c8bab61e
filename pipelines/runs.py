"""What training and embedding share: which store a run was trained on, whose pictures a model takes, full memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from attengait.errors import AttenGaitError
from attengait.sampling.selection import distinct
from attengait.store import Store
from attengait.store.joined import JoinedStores, picture_kind, store_name
from attengait.store.sequences import content_sha256


def identity_of(store: Store | JoinedStores) -> dict[str, Any]:
    """What a run notes of its store; of several, their names and what identifies each."""
    if isinstance(store, JoinedStores):
        stores = [{"name": store_name(one.location), **contents_of(one)} for one in store.stores]
        return {"stores": stores, **picture_kind(store.stores[0].attributes)}
    return {**contents_of(store), **picture_kind(store.attributes)}


def contents_of(store: Store) -> dict[str, Any]:
    """What identifies one store: its sequences, frames, and a digest of names, lengths and checksums."""
    sha256 = content_sha256(store.sequences)
    return {"sequences": len(store.sequences), "frames": store.num_frames, "sha256": sha256}


def subjects_of(store: Store | JoinedStores) -> list[str]:
    """The subjects of a store, each once, in order."""
    names: list[str] = distinct(store.sequences.subject)[0].tolist()
    return names


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Say in a sentence that memory does not suffice, and what needs less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On a GPU torch raises its OutOfMemoryError, on a CPU a bare RuntimeError.
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
            raise AttenGaitError(f"the device has too little memory: {advice}") from None
        raise
