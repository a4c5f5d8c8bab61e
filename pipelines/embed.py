"""A store and a model put together: sequences become embeddings, as with `attengait embed` and `evaluate`."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.evaluation.embeddings import Embeddings, embed_store
from attengait.model.config import ModelConfig
from attengait.model.loading import load_model
from attengait.model.net import AttenGait
from attengait.model.precision import autocast, computing, resolve_device
from attengait.pipelines.channels import channels_for, take_channels
from attengait.pipelines.runs import memory_errors, subjects_of, unseen_subjects
from attengait.pipelines.stream import SequenceStream
from attengait.sampling.selection import Spec, parse_subjects
from attengait.store import Store, open_store
from attengait.store.joined import describe_kind, picture_kind
from attengait.store.opening import AnyStore
from attengait.system.lookup import check_name
from attengait.system.progress import SILENT, Progress
from attengait.training.checkpoint import read_record
from attengait.training.config import PRECISIONS

EMBED_BATCH_FRAMES = 1024
_OF_CHANNELS = ("encoding_steps_per_px", "encoding_offset")
"""What decodes single channels, whatever others a store has."""


Model = AttenGait | str | os.PathLike[str]
"""A network, or what `attengait.load_model` takes."""


def embed(
    model: Model,
    store: AnyStore,
    *,
    subjects: Spec | None = None,
    device: str = "auto",
    precision: str = "fp32",
    progress: Progress = SILENT,
) -> Embeddings:
    """Embed whole sequences of a store. The same as `attengait embed`.

    Args:
        model: the folder of a run, what `attengait.train` returned, a file of weights, or a network.
        store: a path, a URL, an open store (also some of its sequences), or what `attengait.preprocess` returned.
        subjects: names, numbers and ranges, such as "075-124"; None means those that the run did not train on, and all
            where there is no run to ask.
        device: auto, cpu, cuda or cuda:N; with auto a network stays where it is.
        precision: fp32, tf32, bf16, fp16, or auto: bf16 where the device computes in it, else fp32. The embeddings
            record it.
        progress: hears how many sequences are done.

    Returns:
        One embedding for each sequence, with its subject, walk and view. `attengait.evaluate` takes it.

    Raises:
        ParameterError: subjects that there are not, a device that is not there, or a precision that it lacks.
        AttenGaitError: a model or store that cannot be opened, images of another kind than the model was trained on, a
            store of whose subjects none is left, or too little memory.

    >>> embeddings = attengait.embed(model, store)
    >>> embeddings.features.shape == (len(store), 62, model.config.embedding_size)
    True
    """
    return prepare(model, store, subjects=subjects, device=device, precision=precision).embed(progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A network, and the sequences of a store that it is to embed. They fit together, and nothing is computed yet."""

    network: AttenGait
    """On the device."""
    device: torch.device
    precision: str
    store: Store
    indices: NDArray[np.int64]
    """[n]: which sequences of the store."""
    channels: list[int]
    """Which channels of the store's images."""

    def embed(self, progress: Progress = SILENT) -> Embeddings:
        """Embed the sequences. Raises AttenGaitError for too little memory or damaged images."""
        sequences = self.store.sequences
        with (
            memory_errors("choose another device"),
            computing(self.device, self.precision),
            autocast(self.device, self.precision),
            self.store.reader() as reader,
            SequenceStream(
                reader, sequences, self.indices, batch_frames=EMBED_BATCH_FRAMES, device=str(self.device)
            ) as stream,
        ):
            batches = ((rows, take_channels(frames, self.channels), lengths) for rows, frames, lengths in stream)
            return embed_store(
                self.network,
                batches,
                sequences,
                num_sequences=len(self.indices),
                precision=self.precision,
                progress=progress,
            )


def prepare(
    model: Model,
    store: AnyStore,
    *,
    subjects: Spec | None = None,
    device: str = "auto",
    precision: str = "fp32",
) -> Prepared:
    """Open and check what `embed` takes, and choose the sequences. Raises what `embed` raises before it computes."""
    check_name(PRECISIONS, precision, "precision")
    opened = open_store(store)
    run: Path | None = None
    if isinstance(model, AttenGait):
        network = model
        place = str(next(network.parameters()).device) if device == "auto" else device
    else:
        network, place = load_model(model), device
        run = Path(model)
    resolved, precision = resolve_device(place, precision)
    network.to(resolved)
    channels = channels_for(network.config, opened)
    check_pictures(network.config, run, opened)
    if subjects is None and run is not None and run.is_dir():
        names = unseen_subjects(run, opened)
    else:
        names = parse_subjects(() if subjects is None else subjects, subjects_of(opened))
    chosen = set(names)
    indices = np.flatnonzero([subject in chosen for subject in opened.sequences.subject.tolist()])
    return Prepared(
        network=network, device=resolved, precision=precision, store=opened, indices=indices, channels=channels
    )


def check_pictures(model: ModelConfig, run: Path | None, store: Store) -> None:
    """Raise AttenGaitError if the store's images are of another kind than those that the model was trained on."""
    name = run or "the model"
    if run is not None and (run / "config.json").exists():
        trained, here = picture_kind(read_record(run).store), picture_kind(store.attributes)
        if model.input_channels:  # whose names say what they hold
            trained, here = ({key: kind.get(key) for key in _OF_CHANNELS} for kind in (trained, here))
        if trained and here and trained != here:
            raise AttenGaitError(
                f"{name} was trained on {describe_kind(trained)}, but {store.location} holds {describe_kind(here)}"
            )
    channels = len(channels_for(model, store))
    if model.channels != channels:
        raise AttenGaitError(f"{name} takes frames of {model.channels} channels, but {store.location} has {channels}")
