"""How opening, planning and streaming grow with the number of sequences, from thousands to millions.

The stores are generated: real columns and metadata, and shards that are all links to one file, so that a set of GREW's
size takes no disk. Each is measured in a fresh process, which may hold few files open.
"""

import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, median_low
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from attengait.benchmarks.defaults import CLIP_FRAMES
from attengait.benchmarks.loader import PACKAGES, check_positive
from attengait.benchmarks.process import begin_peak, peak_bytes, usage
from attengait.benchmarks.report import Report, machine, results, versions
from attengait.errors import ParameterError
from attengait.sampling.plan import BatchPlan
from attengait.store import Sequences, open_store
from attengait.store.layout import DEFAULT_CHUNK_FRAMES, FORMAT, VERSION, FrameLayout, shard_path
from attengait.store.plan import MAX_SHARD_FRAMES
from attengait.store.sequences import DTYPES, write_sequences
from attengait.system.workers import run_in_workers

if TYPE_CHECKING:
    from attengait.pipelines.stream import ClipStream

GREW_SEQUENCES = 128_671
SEQUENCE_FRAMES = 110
"""GREW's 14.2 million frames among its sequences."""
SEQUENCES_PER_SUBJECT = 5
SUBJECTS_PER_BATCH, CLIPS_PER_SUBJECT = 16, 4
PLANNED_STEPS = 1000

CURVES = (
    ("open_s", "seconds to open (dashed: what is allowed at GREW's size)", 1.0),
    ("open_mib", "MiB to open", 300.0),
    ("plan_ms", "milliseconds to plan a batch", 1.0),
    ("files", "files open while streaming", 256.0),
    ("clips_per_s", "clips/s, all shards seen before", None),
    ("first_clips_per_s", "clips/s at first, while shards are opened", None),
)
"""For a plot over "sequences"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a fresh process measures."""

    store: Path
    max_files: int
    clip_frames: int
    num_batches: int


def benchmark_scale(
    sizes: Sequence[int] = (1000, 10_000, 100_000, GREW_SEQUENCES, 1_000_000),
    *,
    max_files: int = 256,
    shard_frames: int = MAX_SHARD_FRAMES,
    frame_shape: tuple[int, int, int] = (64, 64, 3),
    clip_frames: int = CLIP_FRAMES,
    num_batches: int = 40,
    repeats: int = 3,
    on_repeat: Callable[[int], None] = lambda repeat: None,
) -> Report:
    """Stores of so many sequences: clips/s and, as medians, what opening, planning and streaming take.

    "open_mib" is the growth of the process's peak memory while it opens the store, "own_mib" what it uses at the end,
    without mapped files; "see_shards_s" is how long it takes to look at each shard for the first time.

    Raises ParameterError for a parameter out of range.
    """
    check_positive(num_batches=num_batches, repeats=repeats, max_files=max_files)
    if not sizes or min(sizes) < SUBJECTS_PER_BATCH * SEQUENCES_PER_SUBJECT or len(set(sizes)) < len(sizes):
        raise ParameterError(
            f"sequences is {list(sizes)}, but must be different numbers, each at least "
            f"{SUBJECTS_PER_BATCH * SEQUENCES_PER_SUBJECT} as a batch takes that many"
        )
    if not 1 <= clip_frames <= SEQUENCE_FRAMES:
        raise ParameterError(f"clip_frames is {clip_frames}, but must be from 1 to {SEQUENCE_FRAMES}")
    measured: dict[int, list[Report]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory(prefix="attengait-scale-") as folder:
        shard = write_shard(Path(folder) / "shard", shard_frames, frame_shape)
        stores = {
            size: write_index(Path(folder) / f"{size}.zarr", size, shard, shard_frames, frame_shape) for size in sizes
        }
        for repeat in range(1, repeats + 1):
            for size, store in stores.items():
                task = Task(store=store, max_files=max_files, clip_frames=clip_frames, num_batches=num_batches)
                run_in_workers(measure, [task], num_workers=1, on_result=measured[size].append)
            on_repeat(repeat)
    rows = results({f"{n:,} sequences": [each["clips_per_s"] for each in measured[n]] for n in sizes}, "clips_per_s")
    for size, row in zip(sizes, rows, strict=True):
        keys = [key for key in measured[size][0] if key not in row]
        row |= {"sequences": size} | {key: median_low(each[key] for each in measured[size]) for key in keys}
    return {
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "store": {
            "shard_frames": shard_frames,
            "frame_shape": list(frame_shape),
            "batch_size": SUBJECTS_PER_BATCH * CLIPS_PER_SUBJECT,
            "clip_frames": clip_frames,
            "num_batches": num_batches,
            "max_files": max_files,
            "repeats": repeats,
        },
        "results": rows,
    }


def measure(task: Task) -> Report:
    """Open, plan and stream; in a process of its own, whose limit of open files this lowers."""
    from attengait.pipelines.stream import ClipStream

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (task.max_files, hard))
    bytes_before = begin_peak()
    started = time.perf_counter()
    store = open_store(task.store)
    opened = time.perf_counter()
    open_bytes = peak_bytes() - bytes_before
    plan = BatchPlan(
        store.sequences,
        sorted(set(store.sequences.subject.tolist())),
        subjects_per_batch=SUBJECTS_PER_BATCH,
        clips_per_subject=CLIPS_PER_SUBJECT,
        clip_frames=task.clip_frames,
        seed=0,
    )
    prepared = time.perf_counter()
    plan_seconds = []
    for step in range(PLANNED_STEPS):
        begun = time.perf_counter()
        plan.batch(step)
        plan_seconds.append(time.perf_counter() - begun)
    with store.reader(check_frames=False) as reader, ClipStream(reader, plan) as stream:
        next(stream)
        first_rate = _clips_per_second(stream, task.num_batches)
        begun = time.perf_counter()
        shards = np.arange(store.layout.num_shards)
        reader.read_clips(shards * store.shard_frames, np.ones_like(shards))
        see_seconds = time.perf_counter() - begun
        _clips_per_second(stream, task.num_batches)  # warm up
        rate = _clips_per_second(stream, task.num_batches)
        used = usage()
    return {
        "frames": store.num_frames,
        "shards": store.layout.num_shards,
        "open_s": round(opened - started, 4),
        "open_mib": round(open_bytes / 2**20, 1),
        "prepare_plan_s": round(prepared - opened, 4),
        "plan_ms": round(1000 * median(plan_seconds), 4),
        "plan_ms_max": round(1000 * max(plan_seconds), 4),
        "files": used.files,
        "own_mib": round(used.own_bytes / 2**20, 1),
        "first_clips_per_s": round(first_rate),
        "see_shards_s": round(see_seconds, 4),
        "clips_per_s": rate,
    }


def format_table(report: Report) -> str:
    """The report for people."""
    about = report["store"]
    lines = [
        f"shards of {about['shard_frames']} frames, all one file; batches of {about['batch_size']} clips of "
        f"{about['clip_frames']} frames; at most {about['max_files']} open files; medians of {about['repeats']}",
        f"{'sequences':>10} {'frames':>12} {'shards':>7} {'open s':>7} {'MiB':>6} {'plan ms':>8} {'at most':>8} "
        f"{'files':>6} {'at first':>9} {'clips/s':>8} {'min':>8} {'max':>8}",
    ]
    lines += [
        f"{row['sequences']:10,} {row['frames']:12,} {row['shards']:7,} {row['open_s']:7.3f} {row['open_mib']:6.0f} "
        f"{row['plan_ms']:8.3f} {row['plan_ms_max']:8.3f} {row['files']:6.0f} "
        f"{row['first_clips_per_s']:9,.0f} {row['clips_per_s']:8,.0f} "
        f"{row['min']:8,.0f} {row['max']:8,.0f}"
        for row in report["results"]
    ]
    about = report["machine"]
    lines.append(f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, load {about['load']}")
    return "\n".join(lines)


def _clips_per_second(stream: "ClipStream", num_batches: int) -> float:
    started = time.perf_counter()
    num_clips = sum(len(next(stream).clips) for _ in range(num_batches))
    return num_clips / (time.perf_counter() - started)


def write_shard(folder: Path, shard_frames: int, frame_shape: tuple[int, int, int]) -> Path:
    """Write a raw shard of random frames; returns the folder that stands for it among a store's frames."""
    layout = _layout(1, shard_frames, frame_shape)
    frames = layout.create(zarr.create_group(folder, zarr_format=3))
    frames[:] = np.random.default_rng(0).integers(0, 256, frames.shape, np.uint8)
    return _shard_folder(folder, 0)


def write_index(
    path: Path, num_sequences: int, shard: Path, shard_frames: int, frame_shape: tuple[int, int, int]
) -> Path:
    """Write a store of sequences of SEQUENCE_FRAMES frames, each of whose shards is a link to `shard`."""
    i = np.arange(num_sequences)
    per_shard = shard_frames // SEQUENCE_FRAMES
    columns: dict[str, Any] = {
        "subject": np.char.zfill((i // SEQUENCES_PER_SUBJECT).astype(str), 7),
        "walk": np.char.add("nm-", np.char.zfill((i % SEQUENCES_PER_SUBJECT + 1).astype(str), 2)),
        "view": np.full(num_sequences, "090"),
        "start": i // per_shard * shard_frames + i % per_shard * SEQUENCE_FRAMES,
        "length": np.full(num_sequences, SEQUENCE_FRAMES),
        "crc32c": np.zeros(num_sequences),
    }
    layout = _layout(-(-num_sequences // per_shard), shard_frames, frame_shape)
    group = zarr.create_group(path, zarr_format=3, attributes={"format": FORMAT, "version": VERSION})
    layout.create(group)
    sequences = Sequences(**{name: column.astype(DTYPES[name]) for name, column in columns.items()})
    write_sequences(group.create_group("sequences"), sequences)
    _shard_folder(path, 0).parent.mkdir()
    for number in range(layout.num_shards):
        _shard_folder(path, number).symlink_to(shard)
    return path


def _shard_folder(store: Path, shard: int) -> Path:
    """The folder that is a shard's alone: the first of its path in which the number is."""
    return shard_path(store, shard).parents[2]


def _layout(num_shards: int, shard_frames: int, frame_shape: tuple[int, int, int]) -> FrameLayout:
    return FrameLayout(
        num_shards=num_shards,
        shard_frames=shard_frames,
        chunk_frames=DEFAULT_CHUNK_FRAMES,
        frame_shape=frame_shape,
        codec="none",
    )
