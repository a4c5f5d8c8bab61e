"""How many flow images per second come out of `attengait preprocess`, and where the time of one goes.

The whole: folders to a finished, flushed store in a temporary folder, with the start of the workers, for each flow
backend and number of workers in turn. The stages: milliseconds per flow image in one process with one OpenCV thread,
for the first sequences that have `stage_frames` images together. The files are read before anything is timed, so they
come from memory. Other sizes than the pictures' own are measured on resized copies of the first sequences, and videos
are made of them, too (MPEG-4 in AVI files).
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import zarr
from numpy.typing import NDArray

from attengait.benchmarks.flow import present_backends
from attengait.benchmarks.reading import measure_reading
from attengait.benchmarks.report import Report, format_results, machine, measure_in_turns, results, versions
from attengait.datasets import Folders, SourceSequence, find_dataset
from attengait.datasets.pictures import Pictures, read_colour, read_gray
from attengait.datasets.reading import FrameSizes, read_frames
from attengait.datasets.source import FRAMES
from attengait.datasets.video import Video
from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.flow.backends import check_backend, make_backend
from attengait.pipelines.preprocess.run import choose_executor, preprocess
from attengait.preprocessing.flow import FlowRecipe
from attengait.store.layout import DEFAULT_CHUNK_FRAMES, FrameLayout

PUBLISHED = {
    "frames_per_s": 31,
    "note": "the published script, on one core of another machine: compare with care",
}

STAGES = ("decode", "flow", "colour and crop", "write")
RESIZED_PIXELS = 200_000_000
"""Pixels of copied frames, about: large pictures would take long, and few small ones less than the workers' start."""


def benchmark_preprocess(
    frames: Path,
    silhouettes: Path,
    *,
    flows: Sequence[str] | None = None,
    workers: Sequence[int] = (1,),
    sizes: Sequence[tuple[int, int]] = (),
    video: bool = False,
    readers: Sequence[int] = (),
    repeats: int = 3,
    dataset: str = "casia-b",
    stage_frames: int = 32,
    on_repeat: Callable[[int], None] = lambda repeat: None,
) -> Report:
    """Frames/s of the whole for each of `flows` and `workers`, and milliseconds per frame of each stage.

    `flows` are backends, by default all that can be used here. `sizes` (width, height) are those of resized copies, of
    as many sequences as make RESIZED_PIXELS; without any, all pictures are taken as they are. `video` also measures
    from videos of the same frames, of as many sequences. For each of `readers` also the frames/s of reading alone are
    measured, as a GPU needs it. Raises ParameterError for parameters out of range, AttenGaitError when a backend is
    missing or the folders hold nothing usable.
    """
    if not workers or min(workers) < 1:
        raise ParameterError(f"workers is {list(workers)}, but must be one or more numbers of at least 1")
    if readers and min(readers) < 1:
        raise ParameterError(f"readers is {list(readers)}, but must be numbers of at least 1")
    for name, value in (("repeats", repeats), ("stage_frames", stage_frames)):
        if value < 1:
            raise ParameterError(f"{name} is {value}, but must be at least 1")
    names = list(flows) if flows else present_backends()
    for name in names:
        check_backend(name)
    recipes = {name: FlowRecipe(flow=name) for name in names}
    for recipe in recipes.values():
        recipe.check()
    sequences = _find(dataset, frames, silhouettes)
    if video and any(sequence.frames.kind == Video.kind for sequence in sequences):
        raise ParameterError("video is True, but must be left out: the frames are videos already")
    parts: list[Report] = []
    chosen: Sequence[tuple[int, int] | None] = sizes or [None]
    with tempfile.TemporaryDirectory() as folder:
        for size in chosen:
            root = Path(folder) / _format_size(size)
            sides, taken = (frames, silhouettes), sequences
            if size is not None:
                _resize(sequences, root, size)
                sides = root / "frames", root / "silhouettes"
                taken = _find(dataset, *sides)
            inputs = [(sides, taken)]
            if video:
                _make_videos(taken, root / "videos")
                sides = root / "videos", sides[1]
                inputs.append((sides, _find(dataset, *sides)))
            for each, found in inputs:
                part = _measure(dataset, each, found, recipes, workers, stage_frames, repeats, on_repeat)
                if readers:
                    part["reading"] = measure_reading(found, readers, repeats=repeats)
                parts.append({"size": _format_size(size), **part})
    return {
        "machine": machine(),
        "versions": versions("attengait", "numpy", "opencv-contrib-python-headless", "zarr"),
        "input": {"frames": str(frames), "silhouettes": str(silhouettes), "sequences": len(sequences)},
        "repeats": repeats,
        "sizes": parts,
        "published": PUBLISHED,
    }


def _measure(
    dataset: str,
    sides: tuple[Path, Path],
    sequences: tuple[SourceSequence, ...],
    recipes: Mapping[str, FlowRecipe],
    workers: Sequence[int],
    stage_frames: int,
    repeats: int,
    on_repeat: Callable[[int], None],
) -> Report:
    """The figures of some sequences, which lie in the two folders."""
    _read_files(sequences)
    runs = {
        _name(name, number): partial(_run, dataset, sides, recipe, number)
        for name, recipe in recipes.items()
        for number in workers
    }
    stages = {name: _measure_stages(sequences, recipe, stage_frames, repeats) for name, recipe in recipes.items()}
    rates = measure_in_turns(runs, repeats=repeats, warm_up=False, on_repeat=on_repeat)
    return {
        "source": sequences[0].frames.kind if sequences else Pictures.kind,
        "sequences": len(sequences),
        "results": results(rates, "frames_per_s"),
        "stages": {name: results(each, "ms_per_frame") for name, each in stages.items()},
    }


def format_table(report: Report) -> str:
    """The report for people."""
    lines = [f"{report['input']['frames']}: {report['input']['sequences']} sequences; median of {report['repeats']}"]
    for part in report["sizes"]:
        lines.append(f"\n{part['source']} {part['size']}, {part['sequences']} sequences")
        table = {**report, "results": part["results"]}
        lines.append(format_results(table, "frames_per_s", relative_to=part["results"][0]["name"]))
        for name, stages in part["stages"].items():
            lines.append(
                f"{name}, one process, ms per frame: "
                + ", ".join(f"{stage['name']} {stage['ms_per_frame']:.2f}" for stage in stages)
            )
        if reading := part.get("reading"):
            lines.append("reading and decoding alone, as for a GPU:")
            lines.append(format_results({**report, "results": reading}, "frames_per_s", relative_to=reading[0]["name"]))
    lines.append(f"published: {report['published']['frames_per_s']} frames/s ({report['published']['note']})")
    return "\n".join(lines)


def _format_size(size: tuple[int, int] | None) -> str:
    return f"{size[0]}x{size[1]}" if size else "as they are"


def _name(flow: str, num_workers: int) -> str:
    what = "reader" if flow == "cuda" else "worker"
    return f"{flow}, {num_workers} {what}{'' if num_workers == 1 else 's'}"


def _find(dataset: str, frames: Path, silhouettes: Path) -> tuple[SourceSequence, ...]:
    """The sequences of a data set that have frames and silhouettes."""
    scan = find_dataset(dataset).scan(Folders(frames=frames, silhouettes=silhouettes))
    return FlowRecipe().fit(scan)[1].sequences


def _run(dataset: str, sides: tuple[Path, Path], recipe: FlowRecipe, num_workers: int, _: int) -> int:
    """Flow images of a whole run."""
    with tempfile.TemporaryDirectory() as folder:
        summary = preprocess(
            dataset,
            Path(folder) / "store.zarr",
            frames=sides[0],
            silhouettes=sides[1],
            recipe=recipe,
            executor=choose_executor(recipe, workers=num_workers),
        )
        return summary.written.new_frames


def _resize(sequences: Iterable[SourceSequence], root: Path, size: tuple[int, int]) -> None:
    """Write the first sequences with pictures of another size (width, height), laid out as CASIA-B is."""
    num_pixels = 0
    for sequence in sequences:
        if num_pixels >= RESIZED_PIXELS:
            break
        num_pixels += FlowRecipe().max_pictures(sequence) * size[0] * size[1]
        outlines = sequence.silhouettes.by_number
        grays = [(frame.number, frame.gray) for frame in read_frames(sequence.frames, outlines.keys(), [])]
        pictures = {"frames": grays, "silhouettes": [(number, read_gray(path)) for number, path in outlines.items()]}
        for side, numbered in pictures.items():
            folder = root / side / sequence.name
            folder.mkdir(parents=True)
            how = cv2.INTER_NEAREST if side == "silhouettes" else cv2.INTER_AREA
            for number, picture in numbered:
                if picture is not None:
                    name = f"{sequence.name.replace('/', '-')}-{number:03d}.png"
                    cv2.imwrite(str(folder / name), cv2.resize(picture, size, interpolation=how))


def _make_videos(sequences: Iterable[SourceSequence], root: Path) -> None:
    """Write the first sequences of pictures as videos. Frames are numbered from 1, and a missing one is repeated.

    Raises AttenGaitError for pictures of an odd width or height, which OpenCV would cut.
    """
    root.mkdir(parents=True)
    num_pixels = 0
    for sequence in sequences:
        if num_pixels >= RESIZED_PIXELS:
            break
        read = {number: read_colour(path) for number, path in sequence.parts[FRAMES].by_number.items()}
        pictures = {number: picture[..., ::-1] for number, picture in read.items() if picture is not None}
        if not pictures:
            continue
        frame = pictures[min(pictures)]
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            raise AttenGaitError(f"{sequence.name} has frames of {width} x {height} pixels: a video needs even sizes")
        path = root / f"{sequence.name.replace('/', '-')}.avi"
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"XVID"), 25, (width, height))
        for number in range(1, max(pictures) + 1):
            if number in pictures and pictures[number].shape == frame.shape:
                frame = pictures[number]
            writer.write(np.ascontiguousarray(frame))
            num_pixels += height * width
        writer.release()


def _read_files(sequences: Iterable[SourceSequence]) -> None:
    for sequence in sequences:
        for source in (sequence.frames, sequence.silhouettes):
            for path in source.files:
                Path(path).read_bytes()


def _measure_stages(
    sequences: Sequence[SourceSequence], recipe: FlowRecipe, stage_frames: int, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds per flow image, `repeats` values for each stage; a first pass warms up."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        passes = [_time_stages(sequences, recipe, stage_frames) for _ in range(repeats + 1)][1:]
    finally:
        cv2.setNumThreads(threads)
    return {stage: [each[i] for each in passes] for i, stage in enumerate(STAGES)}


def _time_stages(sequences: Iterable[SourceSequence], recipe: FlowRecipe, stage_frames: int) -> list[float]:
    """Milliseconds per flow image of each stage; decoding includes the frames that give no image."""
    backend = make_backend(recipe.flow, recipe.farneback)
    seconds = np.zeros(len(STAGES))
    images: list[NDArray[np.uint8]] = []
    num_images = 0
    blocks = (block for sequence in sequences for block in recipe.read_blocks(sequence, [], FrameSizes()))
    while num_images < stage_frames:
        started = time.perf_counter()
        block = next(blocks, None)
        seconds[0] += time.perf_counter() - started
        if block is None:
            break
        started = time.perf_counter()
        for _ in backend.flows(block.grays, block.pairs):
            pass
        flow_seconds = time.perf_counter() - started
        started = time.perf_counter()
        images.append(recipe.pictures(block, backend))
        # Both are of one call, whose flow was just timed.
        seconds[1:3] += flow_seconds, time.perf_counter() - started - flow_seconds
        num_images += len(images[-1])
    if not num_images:
        raise AttenGaitError("there are no two frames in a row with a silhouette to measure with")
    started = time.perf_counter()
    _write(np.concatenate(images))
    seconds[3] = time.perf_counter() - started
    return [float(value) for value in seconds / num_images * 1000]


def _write(images: NDArray[np.uint8]) -> None:
    """One uncompressed shard, as a store has it."""
    _, height, width, channels = images.shape
    shard_frames = -(-len(images) // DEFAULT_CHUNK_FRAMES) * DEFAULT_CHUNK_FRAMES
    layout = FrameLayout(
        num_shards=1,
        shard_frames=shard_frames,
        chunk_frames=DEFAULT_CHUNK_FRAMES,
        frame_shape=(height, width, channels),
        codec="none",
    )
    padded = np.zeros((shard_frames, height, width, channels), np.uint8)
    padded[: len(images)] = images
    with tempfile.TemporaryDirectory() as folder:
        layout.create(zarr.create_group(folder, zarr_format=3))[:] = padded
