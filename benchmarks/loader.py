"""How many training clips per second come out of a store: our stream beside other ways to the same clips.

    gather       numpy.take of the clips, from frames in memory into an array that is ready: one thread, no files
    stream       ClipStream: from the store through DALI to a torch tensor
    tensorstore  one batched read per batch, into numpy arrays
    zarr-python  one slice per clip

All read from the page cache, deliver the same clips (checked on the first batch), and take turns in one process. Only
`stream` plans its batches within the measured time. The two slow ones get a tenth of the batches.
"""

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from attengait.benchmarks.report import Report, format_results, machine, measure_in_turns, results, versions
from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.stream import ClipStream
from attengait.sampling import BatchPlan
from attengait.store import Sequences, Store, open_store
from attengait.store.reader import ClipReader, TensorStoreReader

PACKAGES = ("attengait", "numpy", "torch", "nvidia-dali", "zarr", "tensorstore")

MAX_MEMORY_BYTES = 4 * 2**30
"""Of frames in memory for `gather`: of larger stores, only the sequences at the beginning are used, by all alike."""


def benchmark_loader(
    store_path: str | Path,
    *,
    batch_size: int = 64,
    clip_frames: int = 30,
    num_batches: int = 40,
    repeats: int = 5,
    on_repeat: Callable[[int], None] = lambda repeat: None,
) -> Report:
    """Clips/s from a store: median, least and most of `repeats` runs of `num_batches` batches.

    Raises ParameterError for a parameter below 1, AttenGaitError when no sequence is long enough.
    """
    for name, value in (
        ("batch_size", batch_size),
        ("clip_frames", clip_frames),
        ("num_batches", num_batches),
        ("repeats", repeats),
    ):
        if value < 1:
            raise ParameterError(f"{name} is {value}, but must be at least 1")
    store = open_store(store_path)
    sequences = _sequences_in_memory(store)
    plan = _plan(store, sequences, batch_size, clip_frames)
    slow_batches = max(1, num_batches // 10)
    offsets = np.arange(clip_frames)
    lengths = np.full(batch_size, clip_frames)
    gathered = np.empty((batch_size, clip_frames, *store.frame_shape), np.uint8)

    array = zarr.open_array(store.path / "frames", mode="r")
    with (
        store.reader() as reader,
        TensorStoreReader(store.path, store.layout) as tensorstore_reader,
        ClipStream(reader, plan) as stream,
    ):
        frames = _read_all(reader, store, int((sequences.start + sequences.length).max()))
        first = next(stream)
        starts = [plan.batch(step).starts for step in range(1, (repeats + 1) * num_batches + 1)]

        def steps(repeat: int, count: int) -> list[NDArray[np.int64]]:
            return starts[repeat * num_batches :][:count]

        def take(starts: NDArray[np.int64]) -> None:
            np.take(frames, starts[:, None] + offsets, axis=0, out=gathered, mode="clip")

        def run_gather(repeat: int) -> int:
            for batch in steps(repeat, num_batches):
                take(batch)
            return num_batches * batch_size

        def run_stream(repeat: int) -> int:
            return sum(len(next(stream).clips) for _ in range(num_batches))

        def run_tensorstore(repeat: int) -> int:
            return sum(len(tensorstore_reader.read_clips(batch, lengths)) for batch in steps(repeat, slow_batches))

        def run_zarr(repeat: int) -> int:
            return sum(len([array[s : s + clip_frames] for s in batch]) for batch in steps(repeat, slow_batches))

        first_starts = plan.batch(0).starts
        take(first_starts)
        others = {
            "stream": first.clips.numpy(),
            "tensorstore": np.stack(tensorstore_reader.read_clips(first_starts, lengths)),
            "zarr-python": np.stack([np.asarray(array[s : s + clip_frames]) for s in first_starts]),
        }
        for name, clips in others.items():
            if not np.array_equal(clips, gathered):
                raise AttenGaitError(f"{store.path}: {name} gives other clips than were read at first")
        del first, others
        runs = {"gather": run_gather, "stream": run_stream, "tensorstore": run_tensorstore, "zarr-python": run_zarr}
        rates = measure_in_turns(runs, repeats=repeats, on_repeat=on_repeat)

    return {
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "store": {
            "path": str(store.path),
            "codec": store.codec,
            "sequences": len(sequences),
            "frames": int(sequences.length.sum()),
            "frame_shape": list(store.frame_shape),
            "batch_size": batch_size,
            "clip_frames": clip_frames,
            "num_batches": num_batches,
            "repeats": repeats,
        },
        "results": results(rates, "clips_per_s"),
    }


def format_table(report: Report) -> str:
    """The report for people."""
    about = report["store"]
    clip = " x ".join(str(n) for n in [about["clip_frames"], *about["frame_shape"]])
    head = (
        f"{about['path']} (codec {about['codec']}): {about['sequences']} sequences, {about['frames']} frames; batches "
        f"of {about['batch_size']} clips of {clip}; median of {about['repeats']}"
    )
    return f"{head}\n{format_results(report, 'clips_per_s', relative_to='gather')}"


def _sequences_in_memory(store: Store) -> Sequences:
    """The sequences from the beginning of the store whose frames fit into memory."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    max_frames = min(MAX_MEMORY_BYTES, memory_bytes // 2) // store.layout.frame_bytes
    fits = store.sequences.start + store.sequences.length <= max_frames
    return Sequences(**{field.name: getattr(store.sequences, field.name)[fits] for field in fields(Sequences)})


def _plan(store: Store, sequences: Sequences, batch_size: int, clip_frames: int) -> BatchPlan:
    """Batches of `batch_size` clips from as many subjects as divide it."""
    usable = sequences.length >= clip_frames
    if not usable.any():
        longest = int(store.sequences.length.max(initial=0))
        raise AttenGaitError(
            f"{store.path}: none of {len(sequences)} sequences has the {clip_frames} frames of a clip, the longest has "
            f"{longest}"
        )
    subjects = sorted({str(name) for name in sequences.subject[usable]})
    per_batch = max(n for n in range(1, min(len(subjects), batch_size) + 1) if batch_size % n == 0)
    return BatchPlan(
        sequences,
        subjects,
        subjects_per_batch=per_batch,
        clips_per_subject=batch_size // per_batch,
        clip_frames=clip_frames,
        seed=0,
    )


def _read_all(reader: ClipReader, store: Store, num_frames: int) -> NDArray[np.uint8]:
    """The first `num_frames` frames of a store, in memory."""
    frames = np.empty((num_frames, *store.frame_shape), np.uint8)
    for start in range(0, num_frames, store.shard_frames):
        stop = min(start + store.shard_frames, num_frames)
        (frames[start:stop],) = reader.read_clips([start], [stop - start])
    return frames
