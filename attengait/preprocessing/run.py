"""From the folders of a dataset to a store of flow images or silhouettes: puts dataset, recipe and store together."""

import importlib.metadata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2

import attengait
from attengait.datasets import NO_PICTURES, Scan, Video, find_dataset
from attengait.datasets.video import decoder_version
from attengait.errors import ParameterError
from attengait.kernels.flow.backends import BACKENDS
from attengait.preprocessing.executors import Engine, WorkerProcesses
from attengait.preprocessing.flow import Recipe
from attengait.preprocessing.silhouette import SilhouetteRecipe
from attengait.store.layout import DEFAULT_CHUNK_FRAMES, check_chunk_frames, check_codec, report_location
from attengait.store.location import Where
from attengait.store.opening import is_finished
from attengait.store.plan import PlannedSequence, StorePlan
from attengait.store.workfolder import progress_of
from attengait.store.writer import StoreJob, WriteSummary, check_path, write_store
from attengait.system.packages import installed
from attengait.system.progress import SILENT, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessConfig:
    """What to make of what."""

    dataset: str
    """A name in `attengait.datasets.DATASETS`."""
    frames: Path | None
    """Folder of the frames; None for silhouettes alone."""
    silhouettes: Path
    """Folder of the silhouettes."""
    out: Where
    """The store: a folder, or an s3:// or gs:// URL."""
    recipe: Recipe | SilhouetteRecipe
    """Says the modality: flow or silhouette."""
    codec: str = "none"
    """none, lz4 or zstd."""
    chunk_frames: int = DEFAULT_CHUNK_FRAMES
    """Frames in one chunk, the unit of compression; from 1 to 512."""
    workers: int = 1
    """Worker processes; another engine has its own."""

    def __post_init__(self) -> None:
        find_dataset(self.dataset)
        check_codec(self.codec)
        check_chunk_frames(self.chunk_frames)
        if self.workers < 1:
            raise ParameterError(f"workers is {self.workers}, but must be at least 1")
        if isinstance(self.recipe, Recipe) and self.frames is None:
            raise ParameterError(
                "frames is missing: flow needs the folder of the frames, beside that of the silhouettes"
            )
        if isinstance(self.recipe, SilhouetteRecipe) and self.frames is not None:
            raise ParameterError(
                f"frames is {str(self.frames)!r}, but the modality silhouette takes no frames: leave it out"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """What a run would do."""

    out: Where
    num_sequences: int
    max_frames: int
    """Upper bound of the pictures."""
    num_shards: int
    shard_frames: int
    raw_bytes: int
    """Size of the frames without compression, with the shards' unused tails."""
    codec: str
    flow: str | None
    """The flow backend; None for silhouettes."""
    problems: list[dict[str, Any]]
    """What the scan of the folders left out."""
    state: str
    """What is at `out`: "new", "begun" (with the shards done) or "finished"."""

    def __str__(self) -> str:
        size, sequences = f"{self.raw_bytes / 1e9:,.3f} GB", _plural(self.num_sequences, "sequence")
        lines = [
            f"{self.out} ({self.state}): {sequences}, at most {_plural(self.max_frames, 'frame')},",
            f"in {_plural(self.num_shards, 'shard')} of {_plural(self.shard_frames, 'frame')}, {size}"
            + (" before compression" if self.codec != "none" else ""),
        ]
        lines += [] if self.flow is None else [f"flow backend: {self.flow}"]
        return "\n".join(lines + _lines_of(count_skipped(self.problems)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipCount:
    """How often something was skipped for one reason."""

    entries: int
    """Sequences, or folders and files that are no sequences."""
    frames: int
    """Frames; 0 where whole sequences, folders or files were skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessSummary:
    """What a run did."""

    out: Where
    written: WriteSummary
    """Sequences, frames and shards; how many of them are new; seconds."""
    skipped: dict[str, SkipCount]
    """By reason; the details are in the report beside the store."""
    flow: str | None
    """The flow backend; None for silhouettes."""

    @property
    def frames_per_second(self) -> float:
        """Pictures made by this run in each second of it."""
        return self.written.new_frames / self.written.seconds

    def __str__(self) -> str:
        written = self.written
        content = f"{self.out}: {_plural(written.num_sequences, 'sequence')}, {_plural(written.num_frames, 'frame')}"
        if written.already_finished:
            lines = [f"{content}; it was finished already, nothing was done"]
        else:
            reused = f", {written.num_shards_reused} of {written.num_shards} shards from earlier runs"
            lines = [
                f"{content} ({f'flow by {self.flow}, ' if self.flow else ''}{written.seconds:,.1f} s, "
                f"{self.frames_per_second:,.1f} frames/s{reused if written.num_shards_reused else ''})"
            ]
        lines += _lines_of(self.skipped)
        return "\n".join(lines + ([f"details: {report_location(self.out)}"] if self.skipped else []))


def plan_preprocessing(config: PreprocessConfig, *, engine: Engine | None = None) -> PlanSummary:
    """Look at the input and at the path of the store only; raises what `run_preprocessing` does before it begins."""
    check_path(config.out)
    scan, plan = _plan(config, _checked(engine, config))
    return PlanSummary(
        out=config.out,
        num_sequences=len(plan.sequences),
        max_frames=plan.max_frames,
        num_shards=plan.layout.num_shards,
        shard_frames=plan.layout.shard_frames,
        raw_bytes=plan.layout.raw_bytes,
        codec=plan.codec,
        flow=_flow_of(config),
        problems=_problem_entries(scan),
        state=state_of(config.out),
    )


def run_preprocessing(
    config: PreprocessConfig, progress: Progress = SILENT, *, engine: Engine | None = None
) -> PreprocessSummary:
    """Make the store, continue one that was begun, or do nothing when it is finished; raises what `write_store` does.

    Bad sequences, frames and silhouettes are left out and reported, beside the store and in the summary. The pictures
    are made by `engine`, by default by `config.workers` worker processes.
    """
    check_path(config.out)
    engine = _checked(engine, config)
    scan, plan = _plan(config, engine)
    job = StoreJob(
        path=config.out,
        plan=plan,
        inputs=scan.sequences,
        run_shards=partial(engine.run_shards, config.recipe),
        problems=_problem_entries(scan),
    )
    written = write_store(job, progress)
    return PreprocessSummary(
        out=config.out, written=written, skipped=count_skipped(written.report), flow=_flow_of(config)
    )


def _flow_of(config: PreprocessConfig) -> str | None:
    return config.recipe.flow if isinstance(config.recipe, Recipe) else None


def _checked(engine: Engine | None, config: PreprocessConfig) -> Engine:
    """The engine, after it said that it can work here, before anything is looked at or made."""
    engine = engine if engine is not None else WorkerProcesses(num_workers=config.workers)
    if not is_finished(config.out):
        engine.check(config.recipe)
    return engine


def _plan(config: PreprocessConfig, engine: Engine) -> tuple[Scan, StorePlan]:
    scan = find_dataset(config.dataset)(config.frames, config.silhouettes)
    recipe = config.recipe
    plan = StorePlan(
        sequences=tuple(
            PlannedSequence(
                subject=sequence.subject,
                walk=sequence.walk,
                view=sequence.view,
                max_frames=recipe.max_images(sequence),
                content_digest=sequence.content_digest,
                scan_digest=sequence.scan_digest,
            )
            for sequence in scan.sequences
        ),
        parameters={"dataset": config.dataset, **recipe.attributes, **_frames_from(scan)},
        versions=_versions(scan, recipe) | engine.versions(scan.sequences),
        frame_shape=recipe.frame_shape,
        codec=config.codec,
        chunk_frames=config.chunk_frames,
    )
    return scan, plan


def state_of(out: Where) -> str:
    """What is at `out`, for a PlanSummary."""
    if is_finished(out):
        return "finished"
    progress = progress_of(out)
    return "new" if progress is None else f"begun, {progress[0]} of {progress[1]} shards done"


def _frames_from(scan: Scan) -> dict[str, str]:
    """What the frames are read from; nothing where silhouettes alone are used."""
    kinds = {sequence.frames.kind for sequence in scan.sequences if sequence.frames != NO_PICTURES}
    return {"frames_from": " and ".join(sorted(kinds))} if kinds else {}


def _versions(scan: Scan, recipe: Recipe | SilhouetteRecipe) -> dict[str, str]:
    """Versions of everything that has a hand in the bytes."""
    libraries = {name: importlib.metadata.version(name) for name in ("numpy", "zarr", "numcodecs")}
    if any(isinstance(sequence.frames, Video) for sequence in scan.sequences):
        libraries["ffmpeg"] = decoder_version()
    if isinstance(recipe, Recipe):
        libraries |= installed(*BACKENDS[recipe.flow].packages)
    return {"attengait": attengait.__version__, "opencv": cv2.__version__, **libraries}


def _problem_entries(scan: Scan) -> list[dict[str, Any]]:
    return [{"where": p.where, "reason": p.reason, "detail": p.detail} for p in scan.problems]


def count_skipped(report: Iterable[dict[str, Any]]) -> dict[str, SkipCount]:
    """Count the entries of a report by their reasons."""
    entries: Counter[str] = Counter()
    frames: Counter[str] = Counter()
    for entry in report:
        entries[entry["reason"]] += 1
        frames[entry["reason"]] += len(entry.get("frames", ()))
    return {reason: SkipCount(entries=entries[reason], frames=frames[reason]) for reason in entries}


def _lines_of(skipped: dict[str, SkipCount]) -> list[str]:
    return [
        f"skipped, {reason}: "
        + (
            f"{_plural(count.frames, 'frame')} in {_plural(count.entries, 'sequence')}"
            if count.frames
            else f"{count.entries:,}"
        )
        for reason, count in skipped.items()
    ]


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
