"""Several stores as one, to train on all of their people together.

People of different stores are different people: the name of a subject begins with its store's, casia-b:001 for
subject 001 of casia-b.zarr. Stores are ordered by name, so the order in which they are given does not matter. Frame
indices of a store follow those of the store before it, including the unused tails of shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from attengait.errors import AttenGaitError, ParameterError
from attengait.sampling.selection import STORE_MARK
from attengait.store.location import Location
from attengait.store.readers.base import ClipReader
from attengait.store.readers.joined import JoinedReader
from attengait.store.sequences import DTYPES, Sequences
from attengait.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedStores:
    """Stores whose pictures are of one kind; made by `join_stores`."""

    stores: tuple[Store, ...]
    sequences: Sequences
    """Of all stores: subjects as casia-b:001, `start` counted over all of them."""

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.stores[0].frame_shape

    def reader(self, *, check_frames: bool = True) -> ClipReader:
        """The fastest readers of the stores as one; close it after use. See `Store.reader`."""
        readers = [store.reader(check_frames=check_frames) for store in self.stores]
        return JoinedReader(readers, [store.layout.num_frames for store in self.stores])


def join_stores(stores: Sequence[Store]) -> JoinedStores:
    """Join stores.

    Raises ParameterError for none, AttenGaitError for a store given twice, two of one name, a name that is empty or has
    a comma or colon (these part subjects), pictures of different kinds or sizes, and two stores of one data set.
    """
    if not stores:
        raise ParameterError("stores is empty, but must name at least one")
    ordered = sorted(stores, key=lambda store: store_name(store.location))
    for one, other in pairwise(ordered):
        if _place(one) == _place(other):
            raise AttenGaitError(f"{one.location} is given twice: name each store once")
        if (name := store_name(one.location)) == store_name(other.location):
            raise AttenGaitError(
                f"{one.location} and {other.location} have the same name, {name!r}, but names of subjects begin "
                "with it: rename one of them"
            )
    for store in ordered:
        name = store_name(store.location)
        if not name or "," in name or STORE_MARK in name:
            raise AttenGaitError(
                f"{store.location} cannot be joined with other stores: its name is {name!r}, but must not "
                "be empty or have a comma or a colon, because names of subjects begin with it"
            )
    first = stores[0]
    for store in stores[1:]:
        here, there = describe_pictures(first), describe_pictures(store)
        if here != there:
            raise AttenGaitError(
                f"{first.location} holds {here}, but {store.location} holds {there}: a model is trained on one kind"
            )
    for one, other in combinations(ordered, 2):
        if why := _why_the_same_people(one, other):
            raise AttenGaitError(
                f"{one.location} and {other.location} {why}, so each person would be taken for two: leave out one of "
                "them"
            )
    return JoinedStores(stores=tuple(ordered), sequences=_join_sequences(ordered))


def store_name(location: Location) -> str:
    """The name of a store, with which its subjects' names begin: casia-b for s3://bucket/casia-b.zarr."""
    whole = location.name if location.path is None else location.path.resolve().name
    return whole.removesuffix(".zarr").strip()


def prefix_of(name: str) -> str:
    """What the names of a store's subjects begin with where several stores are joined."""
    return name + STORE_MARK


def picture_kind(attributes: dict[str, Any]) -> dict[str, Any]:
    """What the pictures of a store show and how: its modality and encoding; empty where it does not say."""
    return {
        key: value
        for key, value in attributes.items()
        if key in ("modality", "encoding") or key.startswith("encoding_")
    }


def describe_kind(kind: dict[str, Any]) -> str:
    """Such as: modality flow, encoding uv, encoding steps per px 8."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in kind.items())


def describe_pictures(store: Store) -> str:
    """Such as: frames of 64 x 64 x 3, modality flow, encoding colour."""
    shape = " x ".join(map(str, store.frame_shape))
    kind = dict(sorted(picture_kind(store.attributes).items(), reverse=True))
    return f"frames of {shape}, {describe_kind(kind) or 'of unknown modality and encoding'}"


def _why_the_same_people(one: Store, other: Store) -> str | None:
    """What shows that two stores are of one data set; None where nothing does."""
    if one.content_sha256 == other.content_sha256:
        return "have the same content"
    if (source := source_sha256(one.attributes)) is not None and source == source_sha256(other.attributes):
        return "were made from the same files"
    return None


def source_sha256(attributes: dict[str, Any]) -> str | None:
    """The digest of the files that a store was made from; None where its attributes do not say."""
    source = attributes.get("source")
    return source.get("sha256") if isinstance(source, dict) else None


def _join_sequences(stores: Sequence[Store]) -> Sequences:
    columns: dict[str, Any] = {}
    for column, dtype in DTYPES.items():
        columns[column] = np.concatenate([np.asarray(getattr(store.sequences, column), dtype) for store in stores])
    counts = [len(store.sequences) for store in stores]
    frames = [store.layout.num_frames for store in stores]
    columns["start"] += np.repeat(np.cumsum(frames) - frames, counts)
    prefixes = np.array([prefix_of(store_name(store.location)) for store in stores], DTYPES["subject"])
    columns["subject"] = np.repeat(prefixes, counts) + columns["subject"]
    own = [store.sequences.extra for store in stores]
    shared = [name for name in own[0] if len({extra[name].dtype if name in extra else None for extra in own}) == 1]
    return Sequences(**columns, extra={name: np.concatenate([extra[name] for extra in own]) for name in shared})


def _place(store: Store) -> str:
    """The same for every way of naming one store."""
    return str(store.location if store.location.path is None else store.location.path.resolve())
