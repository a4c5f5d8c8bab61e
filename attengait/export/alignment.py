"""Two stores of the same walks, joined frame by frame: which frames both have, and what only one of them has.

Frames belong together where their numbers are equal. Silhouettes and flow of the same recording have different numbers:
the first frame has no flow, and each recipe leaves out other frames.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.export.folder import names_of
from attengait.sampling.selection import some_of
from attengait.store import Store
from attengait.store.skipped import Reason, Skipped, plural


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A sequence that both stores have, with at least one frame in common."""

    indices: tuple[int, int]
    """Of the sequence in each store."""
    rows: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Of the common frames in each sequence, counted from its start; equally many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """What two stores have in common, and what only one of them has."""

    names: tuple[str, str]
    """Of the stores, for the user."""
    pairs: tuple[Pair, ...]
    sha256: str
    """Digest of the pairs."""
    lone_sequences: tuple[tuple[str, ...], tuple[str, ...]]
    """Those that only the first, and only the second store has, such as 001/nm-01/090."""
    lone_frames: tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]
    """Of sequences with common frames the numbers of those that only the first, and only the second store has."""
    disjoint: tuple[str, ...]
    """Sequences that both stores have, without a common frame."""

    def lines(self) -> tuple[str, ...]:
        """What is left out, in a line for each kind that occurs."""
        lines = []
        for name, frames in zip(self.names, self.lone_frames, strict=True):
            if frames:
                count = plural(sum(map(len, frames.values())), "frame")
                lines.append(f"left out: {count} in {plural(len(frames), 'sequence')} that only {name} has")
        for name, sequences in zip(self.names, self.lone_sequences, strict=True):
            if sequences:
                count = plural(len(sequences), "sequence")
                lines.append(f"left out: {count} that only {name} has: {some_of(sequences)}")
        if self.disjoint:
            count = plural(len(self.disjoint), "sequence")
            lines.append(f"left out: {count} without a common frame number: {some_of(self.disjoint)}")
        return tuple(lines)

    def report(self) -> bytes:
        """All that is left out, one JSON object a line, as beside a store."""
        return b"".join(json.dumps(each.to_dict()).encode() + b"\n" for each in self._skipped())

    def _skipped(self) -> Iterable[Skipped]:
        for name, frames, sequences in zip(self.names, self.lone_frames, self.lone_sequences, strict=True):
            detail = f"only {name} has it"
            for where, numbers in frames.items():
                yield Skipped(reason=Reason.NO_MATCH, where=where, frames=numbers, detail=detail)
            for where in sequences:
                yield Skipped(reason=Reason.ONE_STORE_ONLY, where=where, detail=detail)
        for where in self.disjoint:
            yield Skipped(reason=Reason.NO_MATCH, where=where, detail="no frame is in both stores")


def align(first: Store, second: Store) -> Alignment:
    """Find what two stores have in common.

    Raises AttenGaitError where that is nothing, for a store without frame numbers, and for a sequence that occurs
    twice.
    """
    places = [{name: index for index, name in enumerate(names_of(store))} for store in (first, second)]
    pairs: list[Pair] = []
    lone_frames: tuple[dict[str, tuple[int, ...]], ...] = ({}, {})
    disjoint = []
    digest = hashlib.sha256()
    for name, index in places[0].items():
        if name not in places[1]:
            continue
        indices = (index, places[1][name])
        numbers = (first.frame_numbers(indices[0]), second.frame_numbers(indices[1]))
        common, *rows = np.intersect1d(*numbers, return_indices=True)
        where = "/".join(name)
        if not len(common):
            disjoint.append(where)
            continue
        pairs.append(Pair(indices=indices, rows=(rows[0], rows[1])))
        digest.update(json.dumps([name, common.tolist()]).encode())
        for lone, own, used in zip(lone_frames, numbers, rows, strict=True):
            if len(used) < len(own):
                lone[where] = tuple(np.delete(own, used).tolist())
    if not pairs:
        raise AttenGaitError(
            f"{first.location} and {second.location} have no frame in common, by subject, walk, view and frame number"
        )
    lone_sequences = [
        tuple("/".join(name) for name in here if name not in there) for here, there in (places, places[::-1])
    ]
    return Alignment(
        names=(str(first.location), str(second.location)),
        pairs=tuple(pairs),
        sha256=digest.hexdigest(),
        lone_sequences=(lone_sequences[0], lone_sequences[1]),
        lone_frames=(lone_frames[0], lone_frames[1]),
        disjoint=tuple(disjoint),
    )
