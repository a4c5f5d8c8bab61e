"""How many training clips per second come out of a store: our stream beside other ways to the same clips.

All deliver the same clips (checked on the first batch) and take turns; `attengait.benchmarks.ways` and `.baselines` say
what they are. They read from the page cache or, those named "..., cold", after it was emptied of their files. Slow ones
get fewer batches.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attengait.benchmarks.baselines import ClipFiles, LoaderPool, dataloader_ways, write_files
from attengait.benchmarks.defaults import BATCH_SIZE, CLIP_FRAMES
from attengait.benchmarks.page_cache import empty_page_cache
from attengait.benchmarks.peers import check_peers, missing_peers, peer_ways
from attengait.benchmarks.report import Report, format_results, machine, measure_in_turns, results, versions
from attengait.benchmarks.ways import GatherWay, TensorStoreWay, Way, ZarrPythonWay, stream_ways
from attengait.errors import AttenGaitError, ParameterError
from attengait.sampling.plan import BatchPlan, PlannedBatch
from attengait.store import Sequences, Store, open_store
from attengait.store.readers.base import ClipReader
from attengait.system.machine import available_memory_bytes, usable_cores

PACKAGES = (
    *("attengait", "numpy", "torch", "nvidia-dali", "zarr", "tensorstore", "h5py"),
    *("litdata", "mosaicml-streaming", "array-record", "grain", "webdataset", "ffcv"),
)

MAX_MEMORY_BYTES = 4 * 2**30
"""Of frames in memory for `gather`: of larger stores, only the sequences at the beginning are used, by all alike."""

MAX_BASELINE_BYTES = 2**30
"""The same with the baselines, for which the frames are written to disk three times."""


def benchmark_loader(
    store_path: str | Path,
    *,
    baselines: bool = False,
    peers: Sequence[str] = (),
    workers: Sequence[int] = (1, 2, 4),
    cold: bool = False,
    batch_size: int = BATCH_SIZE,
    clip_frames: int = CLIP_FRAMES,
    num_batches: int = 40,
    repeats: int = 5,
    on_repeat: Callable[[int], None] = lambda repeat: None,
) -> Report:
    """Clips/s from a store: median, least and most of `repeats` runs of `num_batches` batches.

    `peers` adds those of `attengait.benchmarks.peers.PEERS` that are installed, with a worker for each core; the report
    says why others are missing. `baselines` adds DataLoaders with each number of `workers`; the one that is nearest to
    the number of cores goes by the plain name. `cold` measures all that read files once more, with the page cache
    emptied before each run, which then reads about as much as the store holds at most.

    Raises ParameterError for a parameter out of range; AttenGaitError when no sequence is long enough, when the disk
    lacks room for the baselines' files, and when something else than a way's own clips is delivered.
    """
    check_positive(batch_size=batch_size, clip_frames=clip_frames, num_batches=num_batches, repeats=repeats)
    check_peers(peers)
    if baselines and (not workers or min(workers) < 0 or len(set(workers)) < len(workers)):
        raise ParameterError(f"workers is {list(workers)}, but must be different numbers from 0 on")
    store = open_store(store_path)
    sequences = _first_sequences(store, MAX_BASELINE_BYTES if baselines or peers else MAX_MEMORY_BYTES)
    plan = clip_plan(store, sequences, batch_size, clip_frames)
    with store.reader() as reader:
        frames = _read_all(reader, store, int((sequences.start + sequences.length).max()))
    default_workers = min(workers, key=lambda number: abs(number - usable_cores())) if baselines else 0

    with ExitStack() as stack:
        ways: list[Way] = [
            GatherWay(frames, clip_frames),
            *stream_ways(store, plan, frames),
            TensorStoreWay(store, clip_frames),
        ]
        if not store.location.is_remote:
            ways.append(ZarrPythonWay(store, clip_frames))
        if baselines:
            ways += stack.enter_context(_baselines(frames, sequences, clip_frames, workers, default_workers))
        if peers:
            folder = _room_for(stack, "peers", len(peers) * frames.nbytes)
            ways += peer_ways(
                peers,
                folder,
                frames,
                sequences,
                batch_size=batch_size,
                clip_frames=clip_frames,
                num_workers=usable_cores(),
                stack=stack,
            )
        for way in ways:
            stack.enter_context(closing(way))
        counts = {way.name: way.num_batches(num_batches) for way in ways}
        planned = [plan.batch(step) for step in range((repeats + 1) * max(counts.values()) + 1)]
        _compare_first_batch(store, ways, planned[0])

        def run(way: Way, count: int, repeat: int) -> int:
            first = 1 + repeat * count
            return sum(len(clips) for clips in way.batches(planned[first : first + count]))

        runs = {way.name: partial(run, way, counts[way.name]) for way in ways}
        rates = measure_in_turns(runs, repeats=repeats, on_repeat=on_repeat)

        stayed = 0.0
        if cold:
            on_disk = {f"{way.name}, cold": way for way in ways if way.files}
            most = max(1, int(sequences.length.sum()) // (batch_size * clip_frames))
            runs = {name: partial(run, way, min(most, counts[way.name])) for name, way in on_disk.items()}

            def empty(name: str) -> None:
                nonlocal stayed
                for way in on_disk.values():
                    way.let_go()
                stayed = max(stayed, empty_page_cache(on_disk[name].files))

            rates |= measure_in_turns(runs, repeats=repeats, warm_up=False, before=empty, on_repeat=on_repeat)

    return {
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "store": {
            **about_store(store),
            "sequences": len(sequences),
            "sequences_in_store": len(store.sequences),
            "frames": int(sequences.length.sum()),
            "batch_size": batch_size,
            "clip_frames": clip_frames,
            "num_batches": num_batches,
            "repeats": repeats,
            **({"dataloader_workers": default_workers} if baselines else {}),
            **({"peer_workers": usable_cores(), "peers_missing": missing_peers(peers)} if peers else {}),
            "other_clips": [way.name for way in ways if not way.gives_planned_clips],
            **({"pages_that_stayed": round(stayed, 4)} if cold else {}),
        },
        "results": results(rates, "clips_per_s"),
    }


def format_table(report: Report) -> str:
    """The report for people."""
    about = report["store"]
    clip = " x ".join(str(n) for n in [about["clip_frames"], *about["frame_shape"]])
    part = about["sequences"] < about["sequences_in_store"]
    lines = [
        f"{about['path']} (codec {about['codec']}): {'the first ' if part else ''}{about['sequences']} sequences, "
        f"{about['frames']} frames; batches of {about['batch_size']} clips of {clip}; median of {about['repeats']}"
    ]
    if "dataloader_workers" in about:
        lines.append(f"DataLoaders where nothing else is said: workers {about['dataloader_workers']}")
    if "peer_workers" in about:
        lines.append(f"Peers: workers {about['peer_workers']}; a clip is cut from a whole sequence (ffcv: is a record)")
        lines += [f"{name} delivers other clips than the rest" for name in about["other_clips"]]
        lines += [f"{name} is not measured: {why}" for name, why in about["peers_missing"].items()]
    stayed = about.get("pages_that_stayed")
    if stayed is not None:
        lines.append(
            f"cold: the page cache could not be emptied, {100 * stayed:.0f} % of the pages stayed"
            if stayed > 0.01
            else "cold: with the page cache emptied of the files before each run"
        )
    return "\n".join([*lines, format_results(report, "clips_per_s", relative_to="gather")])


def check_positive(**parameters: int) -> None:
    """Raise ParameterError for a parameter below 1."""
    for name, value in parameters.items():
        if value < 1:
            raise ParameterError(f"{name} is {value}, but must be at least 1")


def about_store(store: Store) -> Report:
    """What a report says of a store."""
    layout = {"codec": store.codec, "chunk_frames": store.chunk_frames, "shard_frames": store.shard_frames}
    return {"path": str(store.location), **layout, "frame_shape": list(store.frame_shape)}


def clip_plan(
    store: Store, sequences: Sequences, batch_size: int, clip_frames: int, *, world_size: int = 1
) -> BatchPlan:
    """Batches of `batch_size` clips, which `world_size` divides, from as many subjects as divide it.

    Raises AttenGaitError when no sequence is long enough, or fewer subjects than `world_size` have one.
    """
    usable = sequences.length >= clip_frames
    if not usable.any():
        longest = int(store.sequences.length.max(initial=0))
        raise AttenGaitError(
            f"{store.location}: none of {len(sequences)} sequences has the {clip_frames} frames of a clip, the longest "
            f"has {longest}"
        )
    subjects = sorted({str(name) for name in sequences.subject[usable]})
    if len(subjects) < world_size:
        raise AttenGaitError(
            f"{store.location}: {world_size} processes need as many subjects, but only {len(subjects)} have a sequence "
            f"of {clip_frames} frames"
        )
    most = min(len(subjects), batch_size)
    per_batch = max(n for n in range(world_size, most + 1, world_size) if batch_size % n == 0)
    return BatchPlan(
        sequences,
        subjects,
        subjects_per_batch=per_batch,
        clips_per_subject=batch_size // per_batch,
        clip_frames=clip_frames,
        seed=0,
    )


@contextmanager
def _baselines(
    frames: NDArray[np.uint8], sequences: Sequences, clip_frames: int, workers: Sequence[int], default_workers: int
) -> Iterator[list[Way]]:
    """The DataLoaders, over files in a temporary folder."""
    with ExitStack() as stack:
        folder = _room_for(stack, "baselines", 3 * frames.nbytes)
        write_files(folder, frames, sequences)
        files = ClipFiles(folder, sequences.start, clip_frames)
        pools = [stack.enter_context(closing(LoaderPool(files, number))) for number in workers]
        yield dataloader_ways(folder, sequences, clip_frames, pools, default_workers)


def _room_for(stack: ExitStack, what: str, needed_bytes: int) -> Path:
    """A temporary folder, which `stack` removes. Raises AttenGaitError where the disk lacks room."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"attengait-{what}-")))
    _, _, free = shutil.disk_usage(folder)
    if needed_bytes > free * 0.9:
        raise AttenGaitError(
            f"the {what} need {needed_bytes / 2**30:.1f} GiB in {folder.parent}, but {free / 2**30:.1f} are free: "
            "set TMPDIR to a folder with more"
        )
    return folder


def _compare_first_batch(store: Store, ways: Sequence[Way], planned: PlannedBatch) -> None:
    """Raise AttenGaitError unless all ways give the clips of the first, which `planned` describes."""

    def first(way: Way) -> NDArray[Any]:
        (batch,) = way.batches([planned])
        clips = batch.numpy(force=True) if isinstance(batch, torch.Tensor) else np.asarray(batch)
        return clips if clips.dtype == np.uint8 else np.rint(255 * clips)

    expected = first(ways[0]).copy()
    for way in (way for way in ways[1:] if way.gives_planned_clips):
        if not np.array_equal(first(way), expected):
            raise AttenGaitError(f"{store.location}: {way.name} gives other clips than were read at first")


def _first_sequences(store: Store, max_bytes: int) -> Sequences:
    """The sequences from the beginning of the store whose frames fit into memory, and are no more than that."""
    # What the page cache holds is available: how full it is must not change what is measured.
    memory_bytes = available_memory_bytes()
    max_bytes = max_bytes if memory_bytes is None else min(max_bytes, memory_bytes // 2)
    max_frames = max_bytes // store.layout.frame_bytes
    fits = store.sequences.start + store.sequences.length <= max_frames
    return store.sequences.select(fits)


def _read_all(reader: ClipReader, store: Store, num_frames: int) -> NDArray[np.uint8]:
    """The first `num_frames` frames of a store, in memory."""
    frames = np.empty((num_frames, *store.frame_shape), np.uint8)
    for start in range(0, num_frames, store.shard_frames):
        stop = min(start + store.shard_frames, num_frames)
        (frames[start:stop],) = reader.read_clips([start], [stop - start])
    return frames
