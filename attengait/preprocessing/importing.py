"""A store from another program's files: their frames as they are, one sequence for each file.

The store says that it was imported and from what; what its pictures show is taken from the file that `export` leaves
beside its pickles, or told by the caller.
"""

import importlib.metadata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import attengait
from attengait.datasets.arrays import FileError, picture_shape, to_frames
from attengait.datasets.found import Found, FoundFile, Source
from attengait.datasets.opengait import PICKLES
from attengait.datasets.published_h5 import HDF5
from attengait.datasets.source import Problem
from attengait.errors import AttenGaitError, ParameterError
from attengait.preprocessing.images import WRONG_SIZE
from attengait.preprocessing.run import PlanSummary, PreprocessSummary, count_skipped, state_of
from attengait.store.description import Description, describe, read_description
from attengait.store.layout import DEFAULT_CHUNK_FRAMES, check_chunk_frames, check_codec
from attengait.store.location import Where
from attengait.store.plan import PlannedSequence, StorePlan
from attengait.store.shards import WorkerPool
from attengait.store.writer import StoreJob, check_path, write_store
from attengait.system.progress import SILENT, Progress

SOURCES: dict[str, Source] = {"pickles": PICKLES, "h5": HDF5}
"""What can be imported, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportConfig:
    """What to import from where, and what its pictures show."""

    source: str
    """A key of `SOURCES`."""
    folder: Path
    out: Where
    """The store: a folder, or an s3:// or gs:// URL."""
    file: str | None = None
    """Pattern that chooses among several files of a sequence by their names; for pickles only."""
    dataset: str | None = None
    """Name that the store will give; by default what was exported, or "imported"."""
    modality: str | None = None
    """A key of `attengait.store.description.MODALITIES`; by default what was exported, or found by channels."""
    encoding: str | None = None
    """How flow is stored, a key of `ENCODINGS`; by default what was exported, or colour."""
    pad: bool = True
    """Whether frames narrower than high get columns of zeros on both sides."""
    codec: str = "none"
    """none, lz4 or zstd."""
    chunk_frames: int = DEFAULT_CHUNK_FRAMES
    """Frames in one chunk, the unit of compression; from 1 to 512."""
    workers: int = 1
    """Worker processes."""

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ParameterError(f"source must be one of {', '.join(SOURCES)}, got {self.source!r}")
        if self.file is not None and self.source != "pickles":
            raise ParameterError(f"file is {self.file!r}, but only pickles take it")
        check_codec(self.codec)
        check_chunk_frames(self.chunk_frames)
        if self.workers < 1:
            raise ParameterError(f"workers is {self.workers}, but must be at least 1")


def plan_import(config: ImportConfig) -> PlanSummary:
    """Look at the files' headers and at the path of the store only; raises what `run_import` does before it begins."""
    check_path(config.out)
    contents, plan = _plan(config)
    return PlanSummary(
        out=config.out,
        num_sequences=len(plan.sequences),
        max_frames=plan.max_frames,
        num_shards=plan.layout.num_shards,
        shard_frames=plan.layout.shard_frames,
        raw_bytes=plan.layout.raw_bytes,
        codec=plan.codec,
        flow=None,
        problems=_entries(contents.problems),
        state=state_of(config.out),
    )


def run_import(config: ImportConfig, progress: Progress = SILENT) -> PreprocessSummary:
    """Make the store, continue one that was begun, or do nothing when it is finished; raises what `write_store` does.

    Files that hold no frames, or frames of another size than most, are left out and reported, beside the store and in
    the summary. Raises AttenGaitError when none is left and ParameterError when nobody says what the pictures show.
    """
    check_path(config.out)
    contents, plan = _plan(config)
    compute = partial(
        frames_and_report,
        read_array=SOURCES[config.source].read_array,
        frame_shape=contents.frame_shape,
        pad=config.pad,
    )
    job = StoreJob(
        path=config.out,
        plan=plan,
        inputs=contents.files,
        run_shards=WorkerPool(compute=compute, num_workers=config.workers),
        problems=_entries(contents.problems),
        task="Importing",
    )
    written = write_store(job, progress)
    return PreprocessSummary(out=config.out, written=written, skipped=count_skipped(written.report), flow=None)


def frames_and_report(
    file: FoundFile, *, read_array: Callable[[str], NDArray[Any]], frame_shape: tuple[int, int, int], pad: bool
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """The frames of a file, uint8 [n, H, W, C], and its report: an entry, and no frames, where it is of no use."""
    nothing = np.empty((0, *frame_shape), np.uint8)
    try:
        frames = to_frames(read_array(file.path), pad=pad)
    except FileError as error:
        return nothing, _entries([_problem(file, error)])
    if frames.shape[1:] != frame_shape:
        return nothing, _entries([_wrong_size(file, frames.shape[1:], frame_shape)])
    return frames, []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """Files that can be imported together."""

    files: tuple[FoundFile, ...]
    lengths: tuple[int, ...]
    """Frames in each."""
    frame_shape: tuple[int, int, int]
    problems: tuple[Problem, ...]


def _plan(config: ImportConfig) -> tuple[_Contents, StorePlan]:
    source = SOURCES[config.source]
    exported = read_description(config.folder)
    contents = _look_into(source, source.find(config.folder, config.file), config)
    description = describe(
        contents.frame_shape[2],
        dataset=config.dataset,
        modality=config.modality if config.modality is not None or exported is not None else source.modality,
        encoding=config.encoding,
        exported=exported,
    )
    plan = StorePlan(
        sequences=tuple(
            PlannedSequence(
                subject=file.subject,
                walk=file.walk,
                view=file.view,
                max_frames=length,
                content_digest=file.content_digest,
                scan_digest=file.scan_digest,
            )
            for file, length in zip(contents.files, contents.lengths, strict=True)
        ),
        parameters={**description.attributes, "recipe": _recipe(config, exported), "frames_from": config.source},
        versions={
            "attengait": attengait.__version__,
            **{name: importlib.metadata.version(name) for name in ("numpy", "zarr", "numcodecs", *source.packages)},
        },
        frame_shape=contents.frame_shape,
        codec=config.codec,
        chunk_frames=config.chunk_frames,
    )
    return contents, plan


def _look_into(source: Source, found: Found, config: ImportConfig) -> _Contents:
    """Read every file's header; the size that most of them have is the store's."""
    shapes: list[tuple[FoundFile, int, tuple[int, int, int]]] = []
    problems = list(found.problems)
    for file in found.files:
        try:
            shape = source.read_shape(file.path)
            shapes.append((file, shape[0], picture_shape(shape, pad=config.pad)))
        except FileError as error:
            problems.append(_problem(file, error))
    if not shapes:
        raise AttenGaitError(f"no file of {config.folder} holds frames: {problems[-1].detail}")
    frame_shape = Counter(shape for _, _, shape in shapes).most_common(1)[0][0]
    problems += [_wrong_size(file, shape, frame_shape) for file, _, shape in shapes if shape != frame_shape]
    fitting = [(file, length) for file, length, shape in shapes if shape == frame_shape]
    return _Contents(
        files=tuple(file for file, _ in fitting),
        lengths=tuple(length for _, length in fitting),
        frame_shape=frame_shape,
        problems=tuple(problems),
    )


def _recipe(config: ImportConfig, exported: Description | None) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "name": f"import-{config.source}",
        "version": 1,
        "layout": SOURCES[config.source].layout,
        "pad": "square" if config.pad else "none",
    }
    if config.file is not None:
        recipe["file"] = config.file
    if exported is not None:
        recipe["exported_recipe"] = exported.recipe
    return recipe


def _problem(file: FoundFile, error: FileError) -> Problem:
    sentence = str(error)
    return Problem(
        reason=error.reason,
        where=file.name,
        detail=sentence if file.path in sentence else f"{file.path} cannot be imported: {sentence}",
    )


def _wrong_size(file: FoundFile, shape: tuple[int, ...], expected: tuple[int, ...]) -> Problem:
    detail = f"{file.path} holds frames of {_times(shape)}, most files of {_times(expected)}"
    return Problem(reason=WRONG_SIZE, where=file.name, detail=detail)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _entries(problems: tuple[Problem, ...] | list[Problem]) -> list[dict[str, Any]]:
    return [{"where": p.where, "reason": p.reason, "detail": p.detail} for p in problems]
