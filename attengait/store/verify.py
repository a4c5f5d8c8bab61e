"""Finds damage in a finished store by its checksums: its digest, and those of shard indexes, compressed chunks and
sequences."""

from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c
import numpy as np

from attengait.errors import AttenGaitError
from attengait.store.frame_columns import NUMBERS, TIMES, frame_column
from attengait.store.layout import ABSENT, parse_shard_index, shard_key
from attengait.store.metadata import MAX_METADATA_BYTES, check_group, parse_document
from attengait.store.opening import AnyStore, open_store
from attengait.store.packed import decode_chunk
from attengait.store.sequences import read_column_files
from attengait.store.store import Store
from attengait.system.progress import SILENT, Progress

MAX_FINDINGS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with a store."""

    place: str
    """A file relative to the store, a chunk of it, or a sequence's name."""
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


def verify(where: AnyStore, *, progress: Progress = SILENT) -> list[Finding]:
    """Read all of a store and return what is damaged, in the store's order; memory for one shard's file is needed.

    After `MAX_FINDINGS` it ends. Raises AttenGaitError like `open_store`, also for damaged metadata and columns of the
    sequences. The unused tails of raw shards carry no checksum and no data. Stores of version 0.1.0 have no checksum of
    their names, labels and attributes (attengait.store.digest).
    """
    store = open_store(where)
    findings = [*_check_group(store), *_check_records(store), *_check_frame_columns(store)]
    for shard in range(store.layout.num_shards):
        findings += _check_shard(store, shard)
        if len(findings) >= MAX_FINDINGS:
            findings.append(Finding(place=shard_key(shard), problem="further shards were not looked at"))
            break
        progress.update("Verifying", shard + 1, store.layout.num_shards, unit="shards")
    return findings


def _check_group(store: Store) -> Iterator[Finding]:
    """The metadata of the group `sequences`, which other programs need."""
    key = "sequences/zarr.json"
    data = store.location.read(key, max_bytes=MAX_METADATA_BYTES)
    if data is None:
        yield Finding(place=key, problem="missing")
        return
    try:
        check_group(key, parse_document(key, data))
    except AttenGaitError as error:
        yield Finding(place=key, problem=str(error).removeprefix(key).lstrip(": "))


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
            files = read_column_files(store.location, [name])
        except AttenGaitError as error:
            # A disk that cannot be read is damage, a server that cannot be reached is none.
            if store.location.is_remote:
                raise
            yield Finding(place=name, problem=str(error))
            continue
        try:
            column = frame_column(store.location, store.attributes, files, name, store.layout.num_frames)
        except AttenGaitError as error:
            yield Finding(place=name, problem=str(error).removeprefix(f"{store.location}: the column {name} "))
            continue
        if name == TIMES or column is None:
            continue
        for i, (start, length) in enumerate(
            zip(store.sequences.start.tolist(), store.sequences.length.tolist(), strict=True)
        ):
            numbers = column[max(0, start) : max(0, start + length)]
            if numbers.min(initial=0) < 0 or (np.diff(numbers) < 1).any():
                yield Finding(place=store.sequences.name(i), problem="its frame numbers do not ascend from 0 on")


def _is_within_a_shard(store: Store, start: int, length: int) -> bool:
    shard = start // store.shard_frames
    return length > 0 and 0 <= shard < store.layout.num_shards and start + length <= (shard + 1) * store.shard_frames


def _check_shard(store: Store, shard: int) -> Iterator[Finding]:
    layout, sequences = store.layout, store.sequences
    place, first = shard_key(shard), shard * layout.shard_frames
    members = np.flatnonzero(sequences.start // layout.shard_frames == shard)
    names = ", ".join(sequences.name(i) for i in members.tolist()) or "no sequence"
    try:
        data = store.location.read(place, max_bytes=layout.max_shard_file_bytes)
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
        index = parse_shard_index(data, len(data), layout)
    except AttenGaitError as error:
        yield Finding(place=place, problem=f"{error}; it holds {names}")
        return
    members = (
        members[[_is_within_a_shard(store, *_span(store, i)) for i in members.tolist()]] if len(members) else members
    )
    begins = sequences.start[members] - first
    ends = begins + sequences.length[members]
    crc32cs, is_damaged = dict.fromkeys(members.tolist(), 0), dict.fromkeys(members.tolist(), False)
    frames = np.empty((layout.chunk_frames, *layout.frame_shape), np.uint8)
    for chunk, (offset, num_bytes) in enumerate(index.tolist()):
        begin, end = chunk * layout.chunk_frames, (chunk + 1) * layout.chunk_frames
        problem = None
        if ABSENT in (offset, num_bytes):
            problem = "is absent"
        else:
            try:
                decode_chunk(layout.codec, data[offset : offset + num_bytes], frames)
            except (RuntimeError, ValueError) as error:
                problem = f"cannot be decoded: {error}"
        if problem:
            yield Finding(place=f"{place}, chunk {chunk}", problem=problem)
        for k in np.flatnonzero((begins < end) & (ends > begin)).tolist():
            i, part = int(members[k]), frames[max(0, begins[k] - begin) : ends[k] - begin]
            is_damaged[i] |= problem is not None
            crc32cs[i] = google_crc32c.extend(crc32cs[i], part.tobytes())
    for i, crc32c in crc32cs.items():
        if is_damaged[i]:
            yield Finding(place=sequences.name(i), problem="lies in a damaged chunk")
        elif crc32c != sequences.crc32c[i]:
            yield Finding(place=sequences.name(i), problem=f"its frames in {place} fail their checksum")


def _span(store: Store, index: int) -> tuple[int, int]:
    return int(store.sequences.start[index]), int(store.sequences.length[index])
