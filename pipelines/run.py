"""A store, a stream and the model put together: train a run, embed sequences with one.

These are the library calls behind `attengait train`, `attengait embed` and `attengait evaluate`.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation.embeddings import Embeddings, embed_store
from attengait.files import lock
from attengait.model.config import FRAME_PIXELS
from attengait.model.loading import load_model
from attengait.model.net import AttenGait
from attengait.pipelines.stream import ClipStream, SequenceStream
from attengait.sampling import BatchPlan, ClipBatch
from attengait.store import Store, open_store
from attengait.subjects import parse_subjects
from attengait.training.checkpoint import RunRecord, read_record, write_record
from attengait.training.config import TrainingConfig, differences
from attengait.training.trainer import Progress, Trainer, TrainingResult, resolve_device

EMBED_BATCH_FRAMES = 1024


def train_run(
    store_path: str | Path,
    run: Path,
    config: TrainingConfig,
    *,
    resume: bool = False,
    on_warning: Callable[[str], None] = lambda text: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> TrainingResult:
    """Train on a store into the folder `run`, which is made; with `resume`, continue what is there.

    Raises ParameterError for settings that do not fit the store, AttenGaitError for a folder that already holds a run
    (without `resume`) or something else, that another process trains in, or whose run differs in a setting or in its
    store, and when memory does not suffice. The precision `auto` is settled here and recorded.
    """
    if resume:
        read_record(run)
    device, precision = resolve_device(config.device, config.precision)
    config = dataclasses.replace(config, precision=precision)
    store = open_store(store_path)
    _check_size(store)
    plan = batch_plan(store, config)
    if plan.dropped_subjects:
        on_warning(
            f"{len(plan.dropped_subjects)} subjects have no sequence of {config.clip_frames} frames and are left out: "
            + _some(plan.dropped_subjects)
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
                return ClipStream(reader, plan, start_step=start_step, num_steps=num_steps, device=str(device))

            trainer = Trainer(
                config=config,
                run=run,
                plan=plan,
                channels=store.frame_shape[2],
                open_stream=open_stream,
                sequence_name=store.sequences.name,
                on_progress=on_progress,
            )
            return trainer.train(resume=resume)


def batch_plan(store: Store, config: TrainingConfig) -> BatchPlan:
    """Return the plan of a run's batches over a store."""
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
    """Return the store's subjects that a run neither trained on nor set aside; AttenGaitError where there are none."""
    record = read_record(run)
    available = _subjects_of(store)
    specs = [*(record.config.train_subjects or record.subjects), *record.config.exclude_subjects]
    known: set[str] = set()
    for piece in (piece for spec in specs for piece in spec.split(",")):
        # A part of the training set may have nobody in this store, which is no mistake here.
        with contextlib.suppress(ParameterError):
            known.update(parse_subjects([piece], available))
    subjects = [name for name in available if name not in known]
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
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Embeddings:
    """Embed whole sequences of a store with a run folder's model or a weights file.

    `subjects` are specs such as 075-124; None means a run's test subjects (all subjects for a weights file).
    `on_progress` receives (sequences done, sequences in all).
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
        return embed_store(model, stream, store.sequences, on_progress=lambda done: on_progress(done, len(indices)))


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
        trained, here = _kind(read_record(model_path).store), _kind(store.attributes)
        if trained and here and trained != here:
            raise AttenGaitError(
                f"{model_path} was trained on {_describe(trained)}, but {store.location} holds {_describe(here)}"
            )
    channels = store.frame_shape[2]
    if model.config.channels != channels:
        raise AttenGaitError(
            f"{model_path} takes frames of {model.config.channels} channels, but {store.location} has {channels}"
        )


def _kind(attributes: dict[str, Any]) -> dict[str, Any]:
    """What the pictures of a store show and how: its modality and encoding; empty where it does not say."""
    return {
        key: value
        for key, value in attributes.items()
        if key in ("modality", "encoding") or key.startswith("encoding_")
    }


def _describe(kind: dict[str, Any]) -> str:
    """Such as: modality flow, encoding uv, encoding steps per px 8."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in kind.items())


def _subjects_of(store: Store) -> list[str]:
    return sorted(set(store.sequences.subject.tolist()))


def _identity(store: Store) -> dict[str, Any]:
    sequences = store.sequences
    digest = hashlib.sha256()
    for i in range(len(sequences)):
        digest.update(f"{sequences.name(i)} {sequences.length[i]} {sequences.crc32c[i]}\n".encode())
    counts = {"sequences": len(sequences), "frames": store.num_frames, "sha256": digest.hexdigest()}
    return {**counts, **_kind(store.attributes)}


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


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
