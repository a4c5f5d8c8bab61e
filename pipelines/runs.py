"""What training and embedding share: which store a run was trained on, whom it has seen, and full memory."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from attengait.errors import AttenGaitError
from attengait.sampling.selection import PART, TRAIN, distinct, some_of, subjects_among
from attengait.store import Store
from attengait.store.joined import JoinedStores, picture_kind, prefix_of, source_sha256, store_name
from attengait.store.sequences import content_sha256
from attengait.training.checkpoint import RunRecord, read_record

_log = logging.getLogger(__name__)


def identity_of(store: Store | JoinedStores) -> dict[str, Any]:
    """What a run records about its store. For several stores: the name and the identity of each."""
    if isinstance(store, JoinedStores):
        stores = [{"name": store_name(one.location), **contents_of(one)} for one in store.stores]
        return {"stores": stores, **picture_kind(store.stores[0].attributes)}
    return {**contents_of(store), **picture_kind(store.attributes)}


def contents_of(store: Store) -> dict[str, Any]:
    """What identifies one store: its sequences, its images, the digest of its content and, if known, of its source.

    Where some sequences of a store were selected, the digests are those of the whole store, and one more is that of the
    selection.
    """
    contents = {"sequences": len(store), "frames": store.num_frames, "sha256": store.content_sha256}
    if (source := source_sha256(store.attributes)) is not None:
        contents["source_sha256"] = source
    if store.whole is not None:
        contents["selected_sha256"] = content_sha256(store.sequences)
    return contents


def unseen_subjects(run: Path, store: Store) -> list[str]:
    """Return the store's subjects that a run neither trained on nor set aside, each once, in order.

    A store is known by the digest of its content, or of the files that it was made from. The names of subjects say
    nothing alone: subject 001 of another store is another person. So of another store all subjects are unseen; the log
    warns where some are called as the run's. A run on several stores knows them by their names, too.

    Raises AttenGaitError where no subject is left, and where the run does not say enough about its store.
    """
    record, available = read_record(run), subjects_of(store)
    prefix = _prefix_in(run, record, store)
    data = record.config.data
    # Those held out for validation have chosen the best weights.
    specs = [*(data.train_subjects or record.subjects), *data.validation_subjects, *data.exclude_subjects]
    # A part of the training set may have nobody in this store, which is no mistake here.
    known = subjects_among(specs, [(prefix or "") + name for name in available]) | set(record.subjects)
    seen = {name for name in available if (prefix or "") + name in known}
    if seen and prefix is None:
        if "source_sha256" not in record.store and source_sha256(store.attributes) is not None:
            raise AttenGaitError(
                f"{run} does not say from which files its store was made, and {store.location} is another store with "
                f"{len(seen)} subjects of the same names: choose the subjects to use with --subjects"
            )
        _log.warning(
            "%s is not the store that %s was trained on, so its %s subjects are taken for other people, although "
            "names of %s are in the training set, too. If they are the same people, choose with --subjects",
            store.location,
            run,
            len(available),
            len(seen),
        )
        seen = set()
    if len(seen) == len(available):
        raise AttenGaitError(
            f"all {len(available)} subjects of {store.location} belong to the training set of {run}: choose the ones "
            "to use with --subjects"
        )
    return [name for name in available if name not in seen]


def trained_subjects(run: Path, store: Store) -> list[str]:
    """The store's subjects that a run trained on, or by which it chose its best weights, in order. Of a store that is
    not the run's, as far as the run says, there are none."""
    record, available = read_record(run), subjects_of(store)
    try:
        prefix = _prefix_in(run, record, store)
    except AttenGaitError:
        return []
    if prefix is None:
        return []
    held_out = subjects_among(record.config.data.validation_subjects, [prefix + name for name in available])
    return [name for name in available if prefix + name in held_out.union(record.subjects)]


def trained_on(run: Path, subjects: Sequence[str], total: int) -> str:
    """What to say of figures on these subjects."""
    return f"{len(subjects)} of the {total} subjects are in the training set of {run}: {some_of(subjects)}"


def _prefix_in(run: Path, record: RunRecord, store: Store) -> str | None:
    """What the names of a store's subjects begin with in a run; None where the run was not trained on this store."""
    several: list[dict[str, Any]] | None = record.store.get("stores")
    if several is None:
        # A record without digests says nothing but names.
        is_same = "sha256" not in record.store or _is_same(record.store, store)
        return "" if is_same else None
    names = [one["name"] for one in several]
    same = [one["name"] for one in several if _is_same(one, store)]
    if not same and (name := store_name(store.location)) in names:
        same = [name]
    if not same:
        raise AttenGaitError(
            f"{run} was trained on the stores {', '.join(names)}, and {store.location} is not one of them: choose the "
            "subjects to use with --subjects"
        )
    return prefix_of(same[0])


def _is_same(recorded: dict[str, Any], store: Store) -> bool:
    """Whether a store has the content that a run noted, or was made from the same files."""
    source = recorded.get("source_sha256")
    return recorded["sha256"] == store.content_sha256 or (
        source is not None and source == source_sha256(store.attributes)
    )


def subjects_of(store: Store | JoinedStores) -> list[str]:
    """The subjects of a store, each once, in order."""
    names: list[str] = distinct(store.sequences.subject)[0].tolist()
    return names


def subjects_set_aside(store: Store | JoinedStores) -> set[str]:
    """The subjects that a data set itself does not train on, by the column `part` of a store; none without one."""
    found: set[str] = set()
    for one in store.stores if isinstance(store, JoinedStores) else [store]:
        if (parts := one.sequences.extra.get(PART)) is not None:
            prefix = prefix_of(store_name(one.location)) if isinstance(store, JoinedStores) else ""
            found.update(prefix + name for name in distinct(one.sequences.subject[parts != TRAIN])[0].tolist())
    return found


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn errors of too little memory into one sentence, with advice on what needs less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On a GPU torch raises its OutOfMemoryError, on a CPU a bare RuntimeError.
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
            raise AttenGaitError(f"the device has too little memory: {advice}") from None
        raise
