"""A store and a model put together: embed sequences. The library call behind `attengait embed` and `evaluate`."""

from pathlib import Path

import numpy as np

from attengait.errors import AttenGaitError
from attengait.evaluation.embeddings import Embeddings, embed_store
from attengait.model.loading import load_model
from attengait.model.net import AttenGait
from attengait.pipelines.channels import channels_for, take_channels
from attengait.pipelines.runs import memory_errors, subjects_of, unseen_subjects
from attengait.pipelines.stream import SequenceStream
from attengait.sampling.selection import parse_subjects
from attengait.store import Store, open_store
from attengait.store.joined import describe_kind, picture_kind
from attengait.system.progress import SILENT, Progress
from attengait.training.checkpoint import read_record
from attengait.training.trainer import resolve_device

EMBED_BATCH_FRAMES = 1024
_OF_CHANNELS = ("encoding_steps_per_px", "encoding_offset")
"""What decodes single channels, whatever others a store has."""


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
