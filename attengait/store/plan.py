"""The plan of a store: which sequence goes into which shard, decided before any frame is computed.

All of it is pure: the same sequences and parameters give the same plan, whoever computes it. At that time only an
upper bound of each sequence's frames is known, because frames are dropped later. So each shard ends in an unused
tail.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import zip_longest
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError
from attengait.store.layout import FORMAT, VERSION, FrameLayout, check_chunk_frames, check_codec
from attengait.store.sequences import check_columns
from attengait.system.documents import parse_document

MAX_SHARD_FRAMES = 4096
MIN_SHARDS = 32
WITH_TIMES = "with_times_sha256"
"""The key of a source's digest that changes when a file was written again. Stores of version 0.1.0 lack it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSequence:
    """A sequence to be computed."""

    subject: str
    walk: str
    view: str
    max_frames: int
    """Upper bound of the frames that will come out."""
    content_digest: str
    """Of the input; the same for a copy elsewhere. It goes into the finished store."""
    scan_digest: str
    """As content_digest, but it also changes when a file was written again (by its time of change), as when the input
    was copied. A run is continued only with the same one; of a finished store it is said that it changed."""
    columns: dict[str, str | int | float] = field(default_factory=dict)
    """The data set's own, such as camera; all sequences of a plan have the same ones."""

    def __post_init__(self) -> None:
        if self.max_frames < 0:
            raise ParameterError(f"max_frames of {self.name} is {self.max_frames}, but must not be negative")

    @property
    def name(self) -> str:
        """Such as 001/nm-01/090."""
        return f"{self.subject}/{self.walk}/{self.view}"


_COLUMNS = tuple(field.name for field in fields(PlannedSequence))


@dataclass(frozen=True, kw_only=True)
class StorePlan:
    """What a store will hold, by which parameters, and where."""

    sequences: tuple[PlannedSequence, ...]
    parameters: dict[str, Any]
    """What decides the content: dataset, modality, encoding, recipe (a dictionary of every parameter)."""
    versions: dict[str, str]
    """Of the libraries whose results end up in the bytes."""
    frame_shape: tuple[int, int, int]
    """Height, width, channels."""
    codec: str
    chunk_frames: int

    def __post_init__(self) -> None:
        check_codec(self.codec)
        check_chunk_frames(self.chunk_frames)
        check_columns([sequence.columns for sequence in self.sequences])

    @cached_property
    def layout(self) -> FrameLayout:
        """Shape and coding of the array `frames`."""
        shard_frames = choose_shard_frames(self._lengths, self.chunk_frames)
        return FrameLayout(
            num_shards=len(pack(self._lengths, shard_frames)),
            shard_frames=shard_frames,
            chunk_frames=self.chunk_frames,
            frame_shape=self.frame_shape,
            codec=self.codec,
        )

    @cached_property
    def shards(self) -> list[range]:
        """Indices of the sequences of each shard."""
        return pack(self._lengths, self.layout.shard_frames)

    @property
    def max_frames(self) -> int:
        """Upper bound of the frames that will come out."""
        return sum(self._lengths)

    @property
    def source(self) -> dict[str, Any]:
        """A summary of the input, kept in the finished store."""
        digest, with_times = hashlib.sha256(), hashlib.sha256()
        for s in self.sequences:
            own = f"\t{json.dumps(s.columns)}" if s.columns else ""
            digest.update(f"{s.name}\t{s.max_frames}\t{s.content_digest}{own}\n".encode())
            with_times.update(f"{s.name}\t{s.scan_digest}\n".encode())
        return {
            "sequences": len(self.sequences),
            "max_frames": self.max_frames,
            "sha256": digest.hexdigest(),
            WITH_TIMES: with_times.hexdigest(),
        }

    @property
    def settings(self) -> dict[str, Any]:
        """All that must not differ between two runs on one path."""
        shape = list(self.frame_shape)
        return {**self.parameters, "codec": self.codec, "chunk_frames": self.chunk_frames, "frame_shape": shape}

    @property
    def attributes(self) -> dict[str, Any]:
        """The root attributes of the finished store."""
        head = {"format": FORMAT, "version": VERSION}
        own = {"columns": list(self.sequences[0].columns)} if self.sequences and self.sequences[0].columns else {}
        return {**head, **self.parameters, **own, "versions": self.versions, "source": self.source}

    @property
    def _lengths(self) -> list[int]:
        return [sequence.max_frames for sequence in self.sequences]

    def to_json(self) -> bytes:
        """The plan as stored in the work folder."""
        rows = list(map(attrgetter(*_COLUMNS), self.sequences))
        content = {
            "format": FORMAT,
            "version": VERSION,
            "parameters": self.parameters,
            "versions": self.versions,
            "frame_shape": self.frame_shape,
            "codec": self.codec,
            "chunk_frames": self.chunk_frames,
            "shard_frames": self.layout.shard_frames,
            "num_shards": self.layout.num_shards,
            "sequences": rows,
        }
        return json.dumps(content).encode()

    @staticmethod
    def from_json(data: bytes) -> "StorePlan":
        """The plan back from `to_json`.

        Raises KeyError, TypeError or ValueError when `data` is not one, or when its shards are packed otherwise than
        this version packs them: the shards that were made would not fit.
        """
        content = parse_document(data)
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ValueError(f"it is of format {content['format']}, version {content['version']}")
        plan = StorePlan(
            sequences=tuple(PlannedSequence(**dict(zip(_COLUMNS, row, strict=True))) for row in content["sequences"]),
            parameters=content["parameters"],
            versions=content["versions"],
            frame_shape=tuple(content["frame_shape"]),
            codec=content["codec"],
            chunk_frames=content["chunk_frames"],
        )
        theirs = content["num_shards"], content["shard_frames"]
        ours = plan.layout.num_shards, plan.layout.shard_frames
        if theirs != ours:
            raise ValueError(f"it has {theirs[0]} shards of {theirs[1]} frames instead of {ours[0]} of {ours[1]}")
        return plan


def choose_shard_frames(lengths: Sequence[int], chunk_frames: int) -> int:
    """Frames per shard, for consecutive sequences of at most `lengths` frames.

    It is a multiple of `chunk_frames`. It lies between the length that gives 32 shards (or holds the longest
    sequence) and twice that length, and is at most 4096, unless the longest sequence needs more. Of these, the one
    that wastes the fewest frames is taken; of several, the smallest.
    """
    longest = -(-max(lengths, default=0) // chunk_frames)
    least = max(1, longest, -(-sum(lengths) // (MIN_SHARDS * chunk_frames)))
    most = max(1, longest, MAX_SHARD_FRAMES // chunk_frames)
    least = min(least, most)
    candidates = [chunks * chunk_frames for chunks in range(least, min(2 * least, most) + 1)]
    ends = np.cumsum(lengths, dtype=np.int64)
    return min(candidates, key=lambda shard_frames: shard_frames * len(_pack(ends, shard_frames)))


def pack(lengths: Sequence[int], shard_frames: int) -> list[range]:
    """Indices of the consecutive sequences that fill each shard; none is split, and the order is kept."""
    return _pack(np.cumsum(lengths, dtype=np.int64), shard_frames)


def _pack(ends: NDArray[np.int64], shard_frames: int) -> list[range]:
    shards: list[range] = []
    first, begin = 0, 0
    while first < len(ends):
        stop = int(np.searchsorted(ends, begin + shard_frames, side="right"))
        assert stop > first, "a sequence is longer than a shard"
        shards.append(range(first, stop))
        first, begin = stop, int(ends[stop - 1])
    return shards


def first_difference(theirs: Any, ours: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first parameter in which two (nested) dictionaries differ: its name and both values, None where absent."""
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return None if theirs == ours else (name, theirs, ours)
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        difference = first_difference(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key)
        if difference:
            return difference
    return None


def first_changed(planned: Sequence[PlannedSequence], found: Sequence[PlannedSequence]) -> str | None:
    """What changed first between two lists of sequences, in words; None when nothing did."""
    planned_names, found_names = ({s.name for s in sequences} for sequences in (planned, found))
    for old, new in zip_longest(planned, found):
        if old == new:
            continue
        if old and old.name not in found_names:
            return f"{old.name} is gone"
        if new and new.name not in planned_names:
            return f"{new.name} is new"
        if old and new and old.name == new.name:
            return f"{old.name} changed"
        return "the order of the sequences changed"
    return None
