"""A store, a stream and the model put together: train a run, embed sequences with one.

These are the library calls behind `attengait train`, `attengait embed` and `attengait evaluate`.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation.embeddings import Embeddings, embed_store
from attengait.model.config import FRAME_PIXELS
from attengait.model.loading import load_model
from attengait.model.net import AttenGait
from attengait.pipelines.resident import choose_cache, open_clips
from attengait.pipelines.stream import SequenceStream
from attengait.sampling.plan import BatchPlan, ClipBatch
from attengait.sampling.selection import distinct, parse_subjects, some_of, subjects_among
from attengait.store import Store, open_store
from attengait.store.joined import JoinedStores, describe_kind, join_stores, picture_kind, prefix_of, store_name
from attengait.store.location import Location, Where
from attengait.store.sequences import content_sha256
from attengait.system.files import lock
from attengait.system.progress import SILENT, Progress
from attengait.training.checkpoint import RunRecord, read_record, write_record
from attengait.training.config import TrainingConfig, differences
from attengait.training.trainer import Trainer, TrainingResult, resolve_device

EMBED_BATCH_FRAMES = 1024

_log = logging.getLogger(__name__)


def train_run(
    store_path: Where | Sequence[Where],
    run: Path,
    config: TrainingConfig,
    *,
    resume: bool = False,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Train on a store, or several together, into the folder `run`, which is made; with `resume`, continue what is
    there.

    Raises ParameterError for settings that do not fit the store, AttenGaitError for a folder that already holds a run
    (without `resume`) or something else, that another process trains in, or whose run differs in a setting or in its
    store, and when memory does not suffice. The precision `auto` is settled here and recorded. The log
    says where frames are kept, and why, which is settled when the model is in its place.
    """
    if resume:
        read_record(run)
    device, precision = resolve_device(config.device, config.precision)
    config = dataclasses.replace(config, precision=precision)
    store = open_stores(store_path)
    stores = store.stores if isinstance(store, JoinedStores) else [store]
    plan = batch_plan(store, config)
    if plan.dropped_subjects:
        _log.warning(
            "%s subjects have no sequence %s and are left out: %s",
            len(plan.dropped_subjects),
            plan.requirement,
            some_of(plan.dropped_subjects),
        )
    record = RunRecord(config=config, subjects=list(plan.subjects), store=_identity(store))
    if not resume and run.exists() and not _is_begun(run):
        raise AttenGaitError(f"{run} exists already and is no folder of a training run: choose another --out")
    run.mkdir(parents=True, exist_ok=True)
    batch = f"{config.subjects_per_batch} x {config.clips_per_subject} clips of {config.clip_frames} frames"
    advice = f"choose smaller batches than {batch}, or a smaller size than {config.size}"
    with (run / ".lock").open("wb") as file, _memory_errors(advice):
        lock(file, AttenGaitError(f"{run} is being trained in by another process"))
        if resume:
            _check_same(run, read_record(run), record)
        elif (run / "checkpoint.pt").exists():
            raise AttenGaitError(
                f"{run} already holds a training run: continue it with --resume or choose another --out"
            )
        else:
            write_record(run, record)
        with store.reader() as reader:

            def open_stream(start_step: int, num_steps: int) -> AbstractContextManager[Iterator[ClipBatch]]:
                choice = choose_cache(config.cache, stores, device)
                _log.info("%s", choice.reason)
                return open_clips(
                    choice.cache,
                    reader,
                    store.sequences,
                    plan,
                    start_step=start_step,
                    num_steps=num_steps,
                    device=device,
                    progress=progress,
                )

            trainer = Trainer(
                config=config,
                run=run,
                plan=plan,
                channels=store.frame_shape[2],
                open_stream=open_stream,
                sequence_name=store.sequences.name,
                progress=progress,
            )
            return trainer.train(resume=resume)


def open_stores(where: Where | Sequence[Where]) -> Store | JoinedStores:
    """Open what is trained on: a store, or several as one.

    Raises AttenGaitError for stores that cannot be opened or joined, or whose pictures no model takes.
    """
    places = [where] if isinstance(where, (str, Path, Location)) else list(where)
    stores = [open_store(place) for place in places]
    for store in stores:
        _check_size(store)
    return stores[0] if len(stores) == 1 else join_stores(stores)


def batch_plan(store: Store | JoinedStores, config: TrainingConfig) -> BatchPlan:
    """Return the plan of a run's batches over a store, or several."""
    available = _subjects_of(store)
    excluded = set(parse_subjects(config.exclude_subjects, available)) if config.exclude_subjects else set()
    subjects = [name for name in parse_subjects(config.train_subjects, available) if name not in excluded]
    return BatchPlan(
        store.sequences,
        subjects,
        subjects_per_batch=config.subjects_per_batch,
        clips_per_subject=config.clips_per_subject,
        clip_frames=config.clip_frames,
        seed=config.seed,
        rules=config.clip_rules,
    )


def unseen_subjects(run: Path, store: Store) -> list[str]:
    """Return the store's subjects that a run neither trained on nor set aside.

    Raises AttenGaitError where there are none, and for a run on several stores of which this is none.
    """
    record = read_record(run)
    available = _subjects_of(store)
    prefix = _prefix_in(run, record, store)
    specs = [*(record.config.train_subjects or record.subjects), *record.config.exclude_subjects]
    # A part of the training set may have nobody in this store, which is no mistake here.
    known = subjects_among(specs, [prefix + name for name in available])
    subjects = [name for name in available if prefix + name not in known]
    if not subjects:
        raise AttenGaitError(
            f"all {len(available)} subjects of {store.location} belong to the training set of {run}: name the ones to "
            "use with --subjects"
        )
    return subjects


def embed_run(
    model_path: Path,
    store_path: str | Path,
    *,
    subjects: list[str] | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Embeddings:
    """Embed whole sequences of a store with a run folder's model or a weights file.

    `subjects` are specs such as 075-124; None means a run's test subjects (all subjects for a weights file).
    """
    store = open_store(store_path)
    resolved, _ = resolve_device(device, "fp32")
    model = load_model(model_path).to(resolved)
    _check_pictures(model, model_path, store)
    if subjects is None and model_path.is_dir():
        names = unseen_subjects(model_path, store)
    else:
        names = parse_subjects(subjects or [], _subjects_of(store))
    chosen = set(names)
    indices = np.flatnonzero([subject in chosen for subject in store.sequences.subject.tolist()])
    with (
        _memory_errors("choose another device"),
        store.reader() as reader,
        SequenceStream(
            reader, store.sequences, indices, batch_frames=EMBED_BATCH_FRAMES, device=str(resolved)
        ) as stream,
    ):
        return embed_store(model, stream, store.sequences, num_sequences=len(indices), progress=progress)


def _check_size(store: Store) -> None:
    """Raise AttenGaitError for a store whose pictures no model takes."""
    height, width, _ = store.frame_shape
    if (height, width) != (FRAME_PIXELS, FRAME_PIXELS):
        raise AttenGaitError(
            f"{store.location} has frames of {height} x {width} pixels, but the model takes {FRAME_PIXELS} x "
            f"{FRAME_PIXELS}"
        )


def _check_pictures(model: AttenGait, model_path: Path, store: Store) -> None:
    """Raise AttenGaitError for a store whose pictures are not of the kind that the model was trained on."""
    if (model_path / "config.json").exists():
        trained, here = picture_kind(read_record(model_path).store), picture_kind(store.attributes)
        if trained and here and trained != here:
            raise AttenGaitError(
                f"{model_path} was trained on {describe_kind(trained)}, but {store.location} holds "
                f"{describe_kind(here)}"
            )
    channels = store.frame_shape[2]
    if model.config.channels != channels:
        raise AttenGaitError(
            f"{model_path} takes frames of {model.config.channels} channels, but {store.location} has {channels}"
        )


def _subjects_of(store: Store | JoinedStores) -> list[str]:
    names: list[str] = distinct(store.sequences.subject)[0].tolist()
    return names


def _identity(store: Store | JoinedStores) -> dict[str, Any]:
    """What a run notes of its store; of several, their names and what identifies each."""
    if isinstance(store, JoinedStores):
        stores = [{"name": store_name(one.location), **_contents(one)} for one in store.stores]
        return {"stores": stores, **picture_kind(store.stores[0].attributes)}
    return {**_contents(store), **picture_kind(store.attributes)}


def _contents(store: Store) -> dict[str, Any]:
    sha256 = content_sha256(store.sequences)
    return {"sequences": len(store.sequences), "frames": store.num_frames, "sha256": sha256}


def _prefix_in(run: Path, record: RunRecord, store: Store) -> str:
    """What the names of a store's subjects begin with in a run: empty, unless that was on several stores."""
    stores: list[dict[str, Any]] = record.store.get("stores", [])
    if not stores:
        return ""
    digest = _contents(store)["sha256"]
    names = [one["name"] for one in stores]
    same = [one["name"] for one in stores if one["sha256"] == digest]
    if not same and (name := store_name(store.location)) in names:
        same = [name]
    if not same:
        raise AttenGaitError(
            f"{run} was trained on the stores {', '.join(names)}, of which {store.location} is none, so that it cannot "
            "be said whom it has seen: name the subjects to use with --subjects"
        )
    return prefix_of(same[0])


def _is_begun(run: Path) -> bool:
    """Whether a folder is empty or holds a run."""
    if not run.is_dir():
        return False
    if all(entry.name == ".lock" for entry in run.iterdir()):
        return True
    try:
        read_record(run)
    except AttenGaitError:
        return False
    return True


def _check_same(run: Path, before: RunRecord, now: RunRecord) -> None:
    changed = differences(before.config, now.config)
    if changed:
        raise ParameterError(
            f"{run} was trained with other settings ({'; '.join(changed)}): continue with those or choose another --out"
        )
    # An older record says less about its store.
    same_store = all(now.store.get(key) == value for key, value in before.store.items())
    if not same_store or before.subjects != now.subjects:
        raise AttenGaitError(f"{run} was trained on another store: continue with that one or choose another --out")


@contextmanager
def _memory_errors(advice: str) -> Iterator[None]:
    """Say in a sentence that memory does not suffice, and what needs less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On a GPU torch raises its OutOfMemoryError, on a CPU a bare RuntimeError.
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
            raise AttenGaitError(f"the device has too little memory: {advice}") from None
        raise
