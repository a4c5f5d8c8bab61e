"""From a source to a store: source, recipe, executor and store put together. Every store is made here.

The source yields sequences, the recipe makes pictures of one sequence, the executor runs the recipe on the shards of
the plan, and the store keeps them.
"""

import importlib.metadata
from dataclasses import dataclass, field
from functools import partial

import cv2

import attengait
from attengait.datasets import Folders, Scan, find_dataset
from attengait.datasets.source import FLOW, FRAMES, SILHOUETTES
from attengait.datasets.video import Video, decoder_version
from attengait.errors import ParameterError
from attengait.preprocessing.executors import Executor, LocalProcesses
from attengait.preprocessing.recipe import Recipe
from attengait.preprocessing.summary import PlanSummary, PreprocessSummary
from attengait.store.layout import DEFAULT_CHUNK_FRAMES, check_chunk_frames, check_codec
from attengait.store.location import Location, Where
from attengait.store.opening import is_finished
from attengait.store.plan import PlannedSequence, StorePlan
from attengait.store.skipped import NothingMadeError, in_brackets
from attengait.store.workfolder import progress_of
from attengait.store.writer import StoreJob, check_path, check_plan, write_store
from attengait.system.packages import installed
from attengait.system.progress import SILENT, Progress

_FOLDER_OF = {
    "frames": (FRAMES, "frames"),
    "silhouettes": (SILHOUETTES, "silhouettes"),
    "flow_images": (FLOW, "flow images"),
}
"""Fields of Folders: the part that each gives, and what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessConfig:
    """What to make of what."""

    dataset: str
    """A name in `attengait.datasets.DATASETS`."""
    folders: Folders
    """Where the data set lies."""
    out: Where
    """The store: a folder, or an s3:// or gs:// URL."""
    recipe: Recipe
    executor: Executor = field(default_factory=lambda: LocalProcesses(num_workers=1))
    codec: str = "none"
    """none, lz4 or zstd."""
    chunk_frames: int = DEFAULT_CHUNK_FRAMES
    """Frames in one chunk, the unit of compression; from 1 to 512."""

    def __post_init__(self) -> None:
        adapter = find_dataset(self.dataset)
        adapter.check(self.dataset, self.folders)
        check_codec(self.codec)
        check_chunk_frames(self.chunk_frames)
        modality = self.recipe.modality
        for name, (part, what) in _FOLDER_OF.items():
            if part in self.recipe.needs and name in adapter.takes and getattr(self.folders, name) is None:
                other = "; the modality silhouette does not" if self.folders.silhouettes is not None else ""
                raise ParameterError(
                    f"{name} is missing, but must be given: the modality {modality} needs the folder of the {what}"
                    f"{other}"
                )
        for name, (part, what) in _FOLDER_OF.items():
            given = getattr(self.folders, name)
            if part not in self.recipe.needs and given is not None:
                takes_no = f"the modality {modality} takes no {what}" if part != FLOW else "no ready flow is asked for"
                raise ParameterError(f"{name} is {str(given)!r}, but must be left out: {takes_no}")


def plan_preprocessing(config: PreprocessConfig) -> PlanSummary:
    """Look at the input and at the path of the store only; raises what `run_preprocessing` does before it begins."""
    recipe, scan, plan = _plan(config)
    check_plan(config.out, plan)
    return PlanSummary(
        location=Location.parse(config.out),
        num_sequences=len(plan.sequences),
        max_frames=plan.max_frames,
        num_shards=plan.layout.num_shards,
        shard_frames=plan.layout.shard_frames,
        raw_bytes=plan.layout.raw_bytes,
        codec=plan.codec,
        flow=recipe.flow,
        skipped=scan.skipped,
        state=_state_of(config.out),
    )


def run_preprocessing(config: PreprocessConfig, progress: Progress = SILENT) -> PreprocessSummary:
    """Make the store, continue one that was begun, or do nothing when it is finished; raises what `write_store` does.

    Bad sequences, frames and silhouettes are left out and reported, beside the store and in the summary.
    """
    recipe, scan, plan = _plan(config)
    job = StoreJob(
        path=config.out,
        plan=plan,
        inputs=scan.sequences,
        run_shards=partial(config.executor.run, recipe),
        skipped=scan.skipped,
    )
    written = write_store(job, progress)
    return PreprocessSummary(location=Location.parse(config.out), written=written, flow=recipe.flow)


def _plan(config: PreprocessConfig) -> tuple[Recipe, Scan, StorePlan]:
    """The settled recipe, what is used of the source, and the plan; first of all whether the run is possible here."""
    check_path(config.out)
    if not is_finished(config.out):
        config.executor.check(config.recipe)
    adapter = find_dataset(config.dataset)
    recipe, scan = config.recipe.fit(adapter.scan(config.folders))
    if not scan.sequences:
        sentence = f"no sequence can be used for the modality {recipe.modality} {in_brackets(scan.skipped)}"
        raise NothingMadeError(sentence, scan.skipped)
    plan = StorePlan(
        sequences=tuple(
            PlannedSequence(
                subject=sequence.subject,
                walk=sequence.walk,
                view=sequence.view,
                max_frames=recipe.max_pictures(sequence),
                content_digest=sequence.content_digest,
                scan_digest=sequence.scan_digest,
                columns=dict(sequence.columns),
            )
            for sequence in scan.sequences
        ),
        parameters={"dataset": config.dataset, **recipe.attributes, **_made_from(recipe, scan)},
        versions=_versions(recipe, scan, adapter.packages) | config.executor.versions(scan.sequences),
        frame_shape=recipe.frame_shape,
        codec=config.codec,
        chunk_frames=config.chunk_frames,
    )
    return recipe, scan, plan


def _made_from(recipe: Recipe, scan: Scan) -> dict[str, str]:
    """What the store was made from: pictures, video, pickles, h5; nothing where it is silhouettes alone."""
    kinds = {s.parts[part].kind for s in scan.sequences for part in recipe.needs if part != "silhouettes"}
    return {"frames_from": " and ".join(sorted(kinds))} if kinds else {}


def _versions(recipe: Recipe, scan: Scan, packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of everything that has a hand in the bytes."""
    names = ("numpy", "zarr", "numcodecs", *packages)
    versions = {"attengait": attengait.__version__, "opencv": cv2.__version__}
    versions |= {name: importlib.metadata.version(name) for name in names}
    if any(part.kind == Video.kind for sequence in scan.sequences for part in sequence.parts.values()):
        versions["ffmpeg"] = decoder_version()
    return versions | installed(*recipe.packages)


def _state_of(out: Where) -> str:
    """What is at `out`, for a PlanSummary."""
    if is_finished(out):
        return "finished"
    progress = progress_of(out)
    return "new" if progress is None else f"begun, {progress[0]} of {progress[1]} shards done"
