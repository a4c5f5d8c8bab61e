"""A store and a model put together: embed sequences. The library call behind `attengait embed` and `evaluate`."""

from pathlib import Path
from typing import Any

import numpy as np

from attengait.errors import AttenGaitError
from attengait.evaluation.embeddings import Embeddings, embed_store
from attengait.model.loading import load_model
from attengait.model.net import AttenGait
from attengait.pipelines.channels import channels_for, take_channels
from attengait.pipelines.runs import contents_of, memory_errors, subjects_of
from attengait.pipelines.stream import SequenceStream
from attengait.sampling.selection import parse_subjects, subjects_among
from attengait.store import Store, open_store
from attengait.store.joined import describe_kind, picture_kind, prefix_of, store_name
from attengait.system.progress import SILENT, Progress
from attengait.training.checkpoint import RunRecord, read_record
from attengait.training.trainer import resolve_device

EMBED_BATCH_FRAMES = 1024
_OF_CHANNELS = ("encoding_steps_per_px", "encoding_offset")
"""What decodes single channels, whatever others a store has."""


def unseen_subjects(run: Path, store: Store) -> list[str]:
    """Return the store's subjects that a run neither trained on nor set aside.

    Raises AttenGaitError where there are none, and for a run on several stores of which this is none.
    """
    record = read_record(run)
    available = subjects_of(store)
    prefix = _prefix_in(run, record, store)
    data = record.config.data
    specs = [*(data.train_subjects or record.subjects), *data.exclude_subjects]
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
    channels = channels_for(model.config, store)
    _check_pictures(model, model_path, store)
    if subjects is None and model_path.is_dir():
        names = unseen_subjects(model_path, store)
    else:
        names = parse_subjects(subjects or [], subjects_of(store))
    chosen = set(names)
    indices = np.flatnonzero([subject in chosen for subject in store.sequences.subject.tolist()])
    with (
        memory_errors("choose another device"),
        store.reader() as reader,
        SequenceStream(
            reader, store.sequences, indices, batch_frames=EMBED_BATCH_FRAMES, device=str(resolved)
        ) as stream,
    ):
        batches = ((rows, take_channels(frames, channels), lengths) for rows, frames, lengths in stream)
        return embed_store(model, batches, store.sequences, num_sequences=len(indices), progress=progress)


def _check_pictures(model: AttenGait, model_path: Path, store: Store) -> None:
    """Raise AttenGaitError for a store whose pictures are not of the kind that the model was trained on."""
    if (model_path / "config.json").exists():
        trained, here = picture_kind(read_record(model_path).store), picture_kind(store.attributes)
        if model.config.input_channels:  # whose names say what they hold
            trained, here = ({key: kind.get(key) for key in _OF_CHANNELS} for kind in (trained, here))
        if trained and here and trained != here:
            raise AttenGaitError(
                f"{model_path} was trained on {describe_kind(trained)}, but {store.location} holds "
                f"{describe_kind(here)}"
            )
    channels = len(channels_for(model.config, store))
    if model.config.channels != channels:
        raise AttenGaitError(
            f"{model_path} takes frames of {model.config.channels} channels, but {store.location} has {channels}"
        )


def _prefix_in(run: Path, record: RunRecord, store: Store) -> str:
    """What the names of a store's subjects begin with in a run: empty, unless that was on several stores."""
    stores: list[dict[str, Any]] = record.store.get("stores", [])
    if not stores:
        return ""
    digest = contents_of(store)["sha256"]
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
