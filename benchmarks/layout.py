"""Which chunks, shards and codec serve best: size on disk, and clips/s at random and in sequence, for each.

A store's sequences are written again for each layout, into temporary stores that differ in nothing else. Random reads
are a training plan's batches (clips of 30 frames or so); sequential ones are whole sequences, as evaluation reads them.
Both come through our streams, warm.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from attengait.benchmarks.defaults import BATCH_SIZE, CLIP_FRAMES
from attengait.benchmarks.loader import PACKAGES, about_store, check_positive, clip_plan
from attengait.benchmarks.report import Report, machine, measure_in_turns, results, versions
from attengait.benchmarks.ways import shard_files
from attengait.errors import ParameterError
from attengait.pipelines.stream import ClipStream, SequenceStream
from attengait.sampling.plan import BatchPlan, sequence_batches
from attengait.store import Store, open_store
from attengait.store.layout import CODECS, FORMAT, VERSION, check_chunk_frames
from attengait.store.plan import choose_shard_frames, pack
from attengait.store.readers.base import ClipReader
from attengait.store.sequences import write_sequences
from attengait.system.lookup import check_name

COMPRESSORS: dict[str, tuple[Any, ...]] = CODECS | {
    "lz4-bytes": (BloscCodec(typesize=3, cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()),
    "lz4-bits": (BloscCodec(typesize=3, cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()),
}
"""What stores are written with, and what they could be: Blosc can shuffle the bytes or bits of three-byte pixels."""

SEQUENCE_BATCH_FRAMES = 2048
"""Of whole sequences in one batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a store may be laid out."""

    codec: str
    """A key of COMPRESSORS."""
    chunk_frames: int
    shard_frames: int
    """0: as stores are planned."""

    def __post_init__(self) -> None:
        check_chunk_frames(self.chunk_frames)
        check_name(COMPRESSORS, self.codec, "codec")
        if self.shard_frames < 0 or self.shard_frames % self.chunk_frames:
            raise ParameterError(
                f"shard_frames is {self.shard_frames}, but must be a multiple of the {self.chunk_frames} frames of a "
                "chunk, or 0 for as planned"
            )

    @property
    def name(self) -> str:
        """Such as lz4, chunk 16."""
        shard = f", shard {self.shard_frames}" if self.shard_frames else ""
        return f"{self.codec}, chunk {self.chunk_frames}{shard}"


def benchmark_layout(
    store_path: str | Path,
    layouts: Sequence[Layout],
    *,
    batch_size: int = BATCH_SIZE,
    clip_frames: int = CLIP_FRAMES,
    num_batches: int = 40,
    repeats: int = 5,
    on_repeat: Callable[[int], None] = lambda repeat: None,
) -> Report:
    """Clips/s at random and in sequence, and the size, of a store in each of `layouts`; sizes are relative to raw ones.

    Raises ParameterError for a parameter out of range, AttenGaitError when no sequence is long enough.
    """
    check_positive(batch_size=batch_size, clip_frames=clip_frames, num_batches=num_batches, repeats=repeats)
    if len({layout.name for layout in layouts}) < max(1, len(layouts)):
        raise ParameterError(f"layouts is {[each.name for each in layouts]}, but must be at least one, each only once")
    store = open_store(store_path)
    num_frames = store.num_frames
    clip_plan(store, store.sequences, batch_size, clip_frames)
    sizes: dict[str, int] = {}
    shards: dict[str, int] = {}
    random: dict[str, Callable[[int], int]] = {}
    sequential: dict[str, Callable[[int], float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attengait-layout-")))
        for i, layout in enumerate(layouts):
            copy = rewrite(store, layout, folder / f"{i}.zarr")
            sizes[layout.name] = sum(path.stat().st_size for path in shard_files(copy))
            shards[layout.name] = copy.shard_frames
            plan = clip_plan(copy, copy.sequences, batch_size, clip_frames)
            random[layout.name] = partial(_random, stack.enter_context(copy.reader()), plan, num_batches)
            sequential[layout.name] = partial(_sequential, copy, clip_frames, num_batches * batch_size * clip_frames)
        rates = measure_in_turns(random, repeats=repeats, on_repeat=on_repeat)
        sequential_rates = measure_in_turns(sequential, repeats=repeats, on_repeat=on_repeat)

    rows = results(rates, "clips_per_s")
    in_sequence = results(sequential_rates, "sequential_clips_per_s")
    raw_bytes = num_frames * store.layout.frame_bytes
    for layout, row, other in zip(layouts, rows, in_sequence, strict=True):
        row["sequential_clips_per_s"] = other["sequential_clips_per_s"]
        row["sequential_min"], row["sequential_max"] = other["min"], other["max"]
        row["codec"], row["chunk_frames"] = layout.codec, layout.chunk_frames
        row["shard_frames"] = shards[layout.name]
        row["bytes"], row["of_raw"] = sizes[layout.name], round(sizes[layout.name] / raw_bytes, 3)
    return {
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "store": {
            **about_store(store),
            "frames": num_frames,
            "batch_size": batch_size,
            "clip_frames": clip_frames,
            "num_batches": num_batches,
            "repeats": repeats,
        },
        "results": rows,
    }


def format_table(report: Report) -> str:
    """The report in Markdown."""
    about = report["store"]
    lines = [
        "| codec | chunk | shard | MiB | of raw | random, clips/s | sequential, clips/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["results"]:
        lines.append(
            f"| {row['codec']} | {row['chunk_frames']} | {row['shard_frames']} | {row['bytes'] / 2**20:,.1f} | "
            f"{row['of_raw']:.2f} | {row['clips_per_s']:,.0f} ({row['min']:,.0f} to {row['max']:,.0f}) | "
            f"{row['sequential_clips_per_s']:,.0f} ({row['sequential_min']:,.0f} to {row['sequential_max']:,.0f}) |"
        )
    machine_ = report["machine"]
    lines += [
        "",
        f"{about['frames']:,} frames of {' x '.join(str(n) for n in about['frame_shape'])}; chunks and shards in "
        f"frames; clips of {about['clip_frames']} frames, whole sequences counted as such too; medians and ranges of "
        f"{about['repeats']}. {machine_['cpu']}, {machine_['cores']} cores, load {machine_['load']}.",
    ]
    return "\n".join(lines)


def rewrite(store: Store, layout: Layout, path: Path) -> Store:
    """Write the sequences of `store` to a store at `path`, one after the other in shards of the new length.

    Raises ParameterError when a sequence is longer than a shard.
    """
    sequences = store.sequences
    lengths = sequences.length.tolist()
    shard_frames = layout.shard_frames or choose_shard_frames(lengths, layout.chunk_frames)
    if max(lengths) > shard_frames:
        raise ParameterError(
            f"shard_frames is {shard_frames}, but must be at least {max(lengths)} for the longest sequence"
        )
    shards = pack(lengths, shard_frames)
    group = zarr.create_group(path, zarr_format=3, attributes={"format": FORMAT, "version": VERSION})
    frames: zarr.Array[Any] = group.create_array(
        "frames",
        shape=(len(shards) * shard_frames, *store.frame_shape),
        dtype="uint8",
        chunks=(layout.chunk_frames, *store.frame_shape),
        shards=(shard_frames, *store.frame_shape),
        compressors=COMPRESSORS[layout.codec],
        fill_value=0,
    )
    frames = frames.with_config({"write_empty_chunks": True})
    starts = np.empty_like(sequences.start)
    with store.reader() as reader:
        for shard, members in enumerate(shards):
            clips = reader.read_clips(sequences.start[list(members)], sequences.length[list(members)])
            starts[list(members)] = shard * shard_frames + np.cumsum([0, *map(len, clips)])[:-1]
            filled = np.zeros((shard_frames, *store.frame_shape), np.uint8)
            np.concatenate(clips, out=filled[: sum(map(len, clips))])
            frames[shard * shard_frames : (shard + 1) * shard_frames] = filled
    write_sequences(group.create_group("sequences"), replace(sequences, start=starts))
    return open_store(path)


def _random(reader: ClipReader, plan: BatchPlan, num_batches: int, repeat: int) -> int:
    """Stream the batches of one measurement, and none ahead of the next."""
    with ClipStream(reader, plan, start_step=repeat * num_batches, num_steps=num_batches) as stream:
        return sum(len(batch.clips) for batch in stream)


def _sequential(store: Store, clip_frames: int, least_frames: int, _: int) -> float:
    """Read all sequences in order, again and again until there were `least_frames`; counted as clips."""
    done = 0
    batches = sequence_batches(store.sequences, np.arange(len(store.sequences)), SEQUENCE_BATCH_FRAMES)
    with store.reader() as reader:
        while done < least_frames:
            with SequenceStream(reader, store.sequences, batches) as stream:
                done += sum(len(frames) for _, frames, _ in stream)
    return done / clip_frames
