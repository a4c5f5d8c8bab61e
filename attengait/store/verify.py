"""Finds damage in a finished store by its checksums: those of shard indexes, compressed chunks and sequences."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.store.frame_columns import NUMBERS, TIMES, read_frame_column
from attengait.store.layout import ABSENT, parse_shard_index, shard_key
from attengait.store.location import Where
from attengait.store.opening import open_store
from attengait.store.sequences import array_in, read_files
from attengait.store.store import Store
from attengait.system.progress import SILENT, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with a store."""

    place: str
    """A file relative to the store, a chunk of it, or a sequence's name."""
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


def verify(where: Where, *, progress: Progress = SILENT) -> list[Finding]:
    """Read all of a store and return what is damaged, in the store's order; memory for two shards is needed.

    Raises AttenGaitError like `open_store`, also for damaged metadata and columns of the sequences. The unused tails of
    raw shards carry no checksum and no data.
    """
    store = open_store(where)
    findings = [*_check_records(store), *_check_frame_columns(store)]
    metadata = read_files(store.location, ["frames/zarr.json"])
    for shard in range(store.layout.num_shards):
        findings += _check_shard(store, metadata, shard)
        progress.update("Verifying", shard + 1, store.layout.num_shards, unit="shards")
    return findings


def _check_records(store: Store) -> Iterator[Finding]:
    """Every start and length lies within one shard and overlaps no other; names are unique."""
    sequences, seen = store.sequences, set()
    end_of_last = 0
    for i, (start, length) in enumerate(zip(sequences.start.tolist(), sequences.length.tolist(), strict=True)):
        name, span = sequences.name(i), f"frames {start} to {start + length - 1}"
        if name in seen:
            yield Finding(place=name, problem="occurs twice")
        seen.add(name)
        if not _is_within_a_shard(store, start, length):
            yield Finding(place=name, problem=f"start {start} with length {length} does not lie within one shard")
            continue
        if start < end_of_last:
            yield Finding(place=name, problem=f"its {span} overlap the sequence before it, or come before it")
        end_of_last = max(end_of_last, start + length)


def _check_frame_columns(store: Store) -> Iterator[Finding]:
    """Frame numbers ascend within each sequence; both columns can be read, where the store has them."""
    for name in (NUMBERS, TIMES):
        try:
            column = read_frame_column(store.location, name, store.layout.num_frames)
        except AttenGaitError as error:
            # A disk that cannot be read is damage, a server that cannot be reached is none.
            if store.location.is_remote and not str(error).startswith(f"{store.location}: the column"):
                raise
            yield Finding(place=name, problem=str(error).removeprefix(f"{store.location}: the column {name} "))
            continue
        if name == TIMES or column is None:
            continue
        for i, (start, length) in enumerate(zip(store.sequences.start, store.sequences.length, strict=True)):
            numbers = column[start : start + length]
            if numbers.min(initial=0) < 0 or (np.diff(numbers) < 1).any():
                yield Finding(place=store.sequences.name(i), problem="its frame numbers do not ascend from 0 on")


def _is_within_a_shard(store: Store, start: int, length: int) -> bool:
    shard = start // store.shard_frames
    return length > 0 and 0 <= shard < store.layout.num_shards and start + length <= (shard + 1) * store.shard_frames


def _check_shard(store: Store, metadata: dict[str, bytes], shard: int) -> Iterator[Finding]:
    place, first = shard_key(shard), shard * store.shard_frames
    starts, lengths = store.sequences.start, store.sequences.length
    members = np.flatnonzero((starts >= first) & (starts < first + store.shard_frames)).tolist()
    names = ", ".join(store.sequences.name(i) for i in members) or "no sequence"
    try:
        data = store.location.read(place)
        if data is None:
            yield Finding(place=place, problem=f"missing; it holds {names}")
            return
    except AttenGaitError as error:
        # A disk that cannot be read is damage, a server that cannot be reached is none.
        if store.location.is_remote:
            raise
        yield Finding(place=place, problem=f"{error}; it holds {names}")
        return
    try:
        index = parse_shard_index(data, len(data), store.layout.chunks_per_shard)
    except AttenGaitError as error:
        yield Finding(place=place, problem=f"{error}; it holds {names}")
        return
    array = array_in({**metadata, place: data}, "frames")
    damaged = np.zeros(store.layout.chunks_per_shard, bool)
    for chunk in np.flatnonzero((index == ABSENT).any(axis=1)).tolist():
        damaged[chunk] = True
        yield Finding(place=f"{place}, chunk {chunk}", problem="is absent")
    frames = _read(array, first, first + store.shard_frames)
    if isinstance(frames, str):
        frames = np.zeros((store.shard_frames, *store.frame_shape), np.uint8)
        for chunk in np.flatnonzero(~damaged).tolist():
            begin, end = chunk * store.chunk_frames, (chunk + 1) * store.chunk_frames
            part = _read(array, first + begin, first + end)
            if isinstance(part, str):
                damaged[chunk] = True
                yield Finding(place=f"{place}, chunk {chunk}", problem=part)
            else:
                frames[begin:end] = part
    for i in members:
        begin, length = int(starts[i]) - first, int(lengths[i])
        if not _is_within_a_shard(store, first + begin, length):
            continue
        if damaged[begin // store.chunk_frames : -(-(begin + length) // store.chunk_frames)].any():
            yield Finding(place=store.sequences.name(i), problem="lies in a damaged chunk")
        elif google_crc32c.value(frames[begin : begin + length].tobytes()) != store.sequences.crc32c[i]:
            yield Finding(place=store.sequences.name(i), problem=f"its frames in {place} fail their checksum")


def _read(array: zarr.Array[Any], start: int, stop: int) -> NDArray[np.uint8] | str:
    """Frames, or what is wrong with them."""
    try:
        return np.asarray(array[start:stop])
    except (OSError, RuntimeError, ValueError) as error:
        return f"cannot be decoded: {error}"
