"""From the folders of a dataset to a store of flow images or silhouettes: puts dataset, recipe and store together."""

import importlib.metadata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import attengait
from attengait.datasets import NO_PICTURES, Scan, SourceSequence, Video, find_dataset
from attengait.datasets.video import decoder_version
from attengait.errors import ParameterError
from attengait.images import too_few
from attengait.kernels.flow import BACKENDS, make_backend
from attengait.packages import installed
from attengait.recipe import Recipe
from attengait.silhouettes import SilhouetteRecipe
from attengait.store.layout import check_chunk_frames, check_codec, report_path, work_path
from attengait.store.opening import is_finished
from attengait.store.plan import PlannedSequence, StorePlan
from attengait.store.workfolder import progress_of
from attengait.store.writer import OnProgress, StoreJob, WriteSummary, check_path, write_store


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessConfig:
    """What to make of what."""

    dataset: str
    """A name in `attengait.datasets.DATASETS`."""
    frames: Path | None
    """Folder of the frames; None for silhouettes alone."""
    silhouettes: Path
    """Folder of the silhouettes."""
    out: Path
    """The store."""
    recipe: Recipe | SilhouetteRecipe
    """Says the modality: flow or silhouette."""
    codec: str = "none"
    """none, lz4 or zstd."""
    chunk_frames: int = 16
    """Frames in one chunk, the unit of compression; from 1 to 512."""
    workers: int = 1
    """Processes."""

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

    out: Path
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
        return "\n".join(lines + _lines_of(_count(self.problems)))


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

    out: Path
    written: WriteSummary
    """Sequences, frames and shards; how many of them are new; seconds."""
    skipped: dict[str, SkipCount]
    """By reason; the details are in the report beside the store."""

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
                f"{content} ({written.seconds:,.1f} s, {self.frames_per_second:,.1f} frames/s"
                f"{reused if written.num_shards_reused else ''})"
            ]
        lines += _lines_of(self.skipped)
        return "\n".join(lines + ([f"details: {report_path(self.out)}"] if self.skipped else []))


def plan_preprocessing(config: PreprocessConfig) -> PlanSummary:
    """Look at the input and at the path of the store only; raises what `run_preprocessing` does before it begins."""
    check_path(config.out)
    _check_flow(config)
    scan, plan = _plan(config)
    return PlanSummary(
        out=config.out,
        num_sequences=len(plan.sequences),
        max_frames=plan.max_frames,
        num_shards=plan.layout.num_shards,
        shard_frames=plan.layout.shard_frames,
        raw_bytes=plan.layout.raw_bytes,
        codec=plan.codec,
        flow=config.recipe.flow if isinstance(config.recipe, Recipe) else None,
        problems=_problem_entries(scan),
        state=_state(config.out),
    )


def run_preprocessing(config: PreprocessConfig, on_progress: OnProgress | None = None) -> PreprocessSummary:
    """Make the store, continue one that was begun, or do nothing when it is finished; raises what `write_store` does.

    Bad sequences, frames and silhouettes are left out and reported, beside the store and in the summary.
    """
    check_path(config.out)
    _check_flow(config)
    scan, plan = _plan(config)
    job = StoreJob(
        path=config.out,
        plan=plan,
        inputs=scan.sequences,
        compute=partial(frames_and_report, recipe=config.recipe),
        num_workers=config.workers,
        problems=_problem_entries(scan),
    )
    written = write_store(job, on_progress)
    return PreprocessSummary(out=config.out, written=written, skipped=_count(written.report))


def frames_and_report(
    sequence: SourceSequence, *, recipe: Recipe | SilhouetteRecipe
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """The pictures of a sequence, uint8 [n, H, W, C], and a report entry for each reason to skip something."""
    result = recipe.images(sequence)
    entries: list[dict[str, Any]] = []
    for skip in result.skipped:
        entry: dict[str, Any] = {"where": sequence.name, "reason": skip.reason}
        if skip.reason != too_few(recipe.min_frames):  # which is about the whole sequence
            entry["frames"] = list(skip.frames)
        if skip.files:
            entry["files"] = list(skip.files)
        if skip.detail:
            entry["detail"] = skip.detail
        entries.append(entry)
    return result.images, entries


def _check_flow(config: PreprocessConfig) -> None:
    """Raise what stands against computing flow here, before anything is looked at or made."""
    if isinstance(config.recipe, Recipe) and not is_finished(config.out):
        make_backend(config.recipe.flow, config.recipe.farneback)


def _plan(config: PreprocessConfig) -> tuple[Scan, StorePlan]:
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
        versions=_versions(scan, recipe),
        frame_shape=recipe.frame_shape,
        codec=config.codec,
        chunk_frames=config.chunk_frames,
    )
    return scan, plan


def _state(out: Path) -> str:
    if is_finished(out):
        return "finished"
    progress = progress_of(work_path(out))
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


def _count(report: Iterable[dict[str, Any]]) -> dict[str, SkipCount]:
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
