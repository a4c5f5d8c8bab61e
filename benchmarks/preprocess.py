"""How many flow images per second come out of `attengait preprocess`, and where the time of one goes.

The whole: folders to a finished, flushed store in a temporary folder, with the start of the workers, for each number of
workers in turn. The stages: milliseconds per flow image in one process with one OpenCV thread, for the first sequences
that have `stage_frames` images together. The files are read before anything is timed, so they come from memory.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import zarr
from numpy.typing import NDArray

from attengait.benchmarks.report import Report, format_results, machine, measure_in_turns, results, versions
from attengait.datasets import SourceSequence, find_dataset
from attengait.datasets.pictures import read_gray
from attengait.datasets.reading import Gray, read_frames
from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.encode import encode
from attengait.kernels.flow import make_backend
from attengait.kernels.silhouette import has_walker
from attengait.preprocess import PreprocessConfig, run_preprocessing
from attengait.recipe import Recipe
from attengait.store.layout import FrameLayout

PUBLISHED = {
    "frames_per_s": 31,
    "note": "the published script, on one core of another machine: compare with care",
}

STAGES = ("decode", "flow", "colour and crop", "write")
CHUNK_FRAMES = 16


def benchmark_preprocess(
    frames: Path,
    silhouettes: Path,
    *,
    workers: Sequence[int] = (1,),
    repeats: int = 3,
    dataset: str = "casia-b",
    stage_frames: int = 100,
    on_repeat: Callable[[int], None] = lambda repeat: None,
) -> Report:
    """Frames/s of the whole for each of `workers`, and milliseconds per frame of each stage.

    Raises ParameterError for parameters below 1, AttenGaitError when the folders hold nothing usable.
    """
    if not workers or min(workers) < 1:
        raise ParameterError(f"workers is {list(workers)}, but must be one or more numbers of at least 1")
    for name, value in (("repeats", repeats), ("stage_frames", stage_frames)):
        if value < 1:
            raise ParameterError(f"{name} is {value}, but must be at least 1")
    recipe = Recipe()
    sequences = find_dataset(dataset)(frames, silhouettes).sequences
    _read_files(sequences)
    stages = _measure_stages(sequences, recipe, stage_frames, repeats)

    def run(num_workers: int) -> int:
        with tempfile.TemporaryDirectory() as folder:
            config = PreprocessConfig(
                dataset=dataset,
                frames=frames,
                silhouettes=silhouettes,
                out=Path(folder) / "store.zarr",
                recipe=recipe,
                workers=num_workers,
            )
            return run_preprocessing(config).written.new_frames

    runs = {_name(number): (lambda _, number=number: run(number)) for number in workers}
    rates = measure_in_turns(runs, repeats=repeats, warm_up=False, on_repeat=on_repeat)
    return {
        "machine": machine(),
        "versions": versions("attengait", "numpy", "opencv-contrib-python-headless", "zarr"),
        "input": {"frames": str(frames), "silhouettes": str(silhouettes), "sequences": len(sequences)},
        "repeats": repeats,
        "results": results(rates, "frames_per_s"),
        "stages": results(stages, "ms_per_frame"),
        "published": PUBLISHED,
    }


def format_table(report: Report) -> str:
    """The report for people."""
    lines = [
        f"{report['input']['frames']}: {report['input']['sequences']} sequences; median of {report['repeats']}",
        format_results(report, "frames_per_s", relative_to=report["results"][0]["name"]),
        "",
        "one process, ms per frame: " + ", ".join(f"{s['name']} {s['ms_per_frame']:.1f}" for s in report["stages"]),
        f"published: {report['published']['frames_per_s']} frames/s ({report['published']['note']})",
    ]
    return "\n".join(lines)


def _name(num_workers: int) -> str:
    return f"{num_workers} worker{'' if num_workers == 1 else 's'}"


def _read_files(sequences: Iterable[SourceSequence]) -> None:
    for sequence in sequences:
        for source in (sequence.frames, sequence.silhouettes):
            for path in source.files:
                Path(path).read_bytes()


def _measure_stages(
    sequences: Sequence[SourceSequence], recipe: Recipe, stage_frames: int, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds per flow image, `repeats` values for each stage; a first pass warms up."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        passes = [_time_stages(sequences, recipe, stage_frames) for _ in range(repeats + 1)][1:]
    finally:
        cv2.setNumThreads(threads)
    return {stage: [each[i] for each in passes] for i, stage in enumerate(STAGES)}


def _time_stages(sequences: Iterable[SourceSequence], recipe: Recipe, stage_frames: int) -> list[float]:
    """Milliseconds per flow image of each stage; decoding includes the frames that give no image."""
    backend = make_backend(recipe.flow, recipe.farneback)
    seconds = np.zeros(len(STAGES))
    images: list[NDArray[np.uint8]] = []
    pairs = (pair for sequence in sequences for pair in _pairs(sequence, recipe))
    while len(images) < stage_frames:
        clock = [time.perf_counter()]
        pair = next(pairs, None)
        clock.append(time.perf_counter())
        if pair is None:
            break
        before, after, silhouette = pair
        (flow,) = backend.flows([before, after], [(0, 1)])
        clock.append(time.perf_counter())
        images.append(encode(flow, silhouette, recipe.encoding, recipe.crop_size))
        clock.append(time.perf_counter())
        seconds[:3] += np.diff(clock)
    if not images:
        raise AttenGaitError("there are no two frames in a row with a silhouette to measure with")
    started = time.perf_counter()
    _write(np.stack(images))
    seconds[3] = time.perf_counter() - started
    return [float(value) for value in seconds / len(images) * 1000]


def _pairs(sequence: SourceSequence, recipe: Recipe) -> Iterator[tuple[Gray, Gray, Gray]]:
    """Frame, next frame and its silhouette, uint8 [H, W] each, where nothing is wrong with them."""
    outlines = sequence.silhouettes.by_number
    last: tuple[int, Gray] | None = None
    for number, gray in read_frames(sequence.frames, outlines.keys(), []):
        if gray is None:
            continue
        if last is not None and last[0] == number - 1:
            silhouette = read_gray(outlines[number])
            if (
                silhouette is not None
                and silhouette.shape == gray.shape
                and has_walker(silhouette, recipe.silhouette_threshold)
            ):
                yield last[1], gray, silhouette
        last = number, gray


def _write(images: NDArray[np.uint8]) -> None:
    """One uncompressed shard, as a store has it."""
    _, height, width, channels = images.shape
    shard_frames = -(-len(images) // CHUNK_FRAMES) * CHUNK_FRAMES
    layout = FrameLayout(
        num_shards=1,
        shard_frames=shard_frames,
        chunk_frames=CHUNK_FRAMES,
        frame_shape=(height, width, channels),
        codec="none",
    )
    padded = np.zeros((shard_frames, height, width, channels), np.uint8)
    padded[: len(images)] = images
    with tempfile.TemporaryDirectory() as folder:
        layout.create(zarr.create_group(folder, zarr_format=3))[:] = padded
