"""A store and a model put together: sequences become embeddings, as with `attengait embed` and `evaluate`."""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from attengait import __version__
from attengait.errors import AttenGaitError
from attengait.evaluation.embeddings import Embeddings, embeddings_of, save_embeddings
from attengait.evaluation.kept import KeptParts
from attengait.model.config import ModelConfig
from attengait.model.loading import load_model
from attengait.model.net import AttenGait
from attengait.model.precision import autocast, computing, resolve_device
from attengait.pipelines.channels import channels_for, take_channels
from attengait.pipelines.runs import memory_errors, subjects_of, trained_on, trained_subjects, unseen_subjects
from attengait.pipelines.stream import SequenceStream
from attengait.sampling.plan import sequence_batches
from attengait.sampling.selection import Spec, parse_subjects
from attengait.store import Store, open_store
from attengait.store.joined import describe_kind, picture_kind
from attengait.store.opening import AnyStore
from attengait.store.sequences import content_sha256
from attengait.system.lookup import check_name
from attengait.system.progress import SILENT, Progress
from attengait.training.checkpoint import read_record
from attengait.training.config import PRECISIONS
from attengait.training.ranks import ALONE, Ranks

_log = logging.getLogger(__name__)

EMBED_BATCH_FRAMES = 1024
ROUND_BATCHES = 4
"""Batches that a process embeds before it gives them to the first one."""
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
    embeddings = prepare(model, store, subjects=subjects, device=device, precision=precision).embed(progress)
    assert embeddings is not None, "there is one process"
    return embeddings


def embed_to_file(
    model: Model,
    store: AnyStore,
    out: Path,
    *,
    subjects: Spec | None = None,
    device: str = "auto",
    precision: str = "fp32",
    progress: Progress = SILENT,
    ranks: Ranks = ALONE,
) -> Embeddings | None:
    """Embed sequences, as `embed` does, and write them. Killed at any moment, the same call continues.

    Several processes share the work, and all call this. The first one writes the file and returns the embeddings, the
    others return None. Raises what `embed`, `KeptParts` and `save_embeddings` raise.
    """
    prepared = prepare(model, store, subjects=subjects, device=device, precision=precision, ranks=ranks)
    with ExitStack() as end:
        kept: KeptParts | None = None
        with ranks.all_or_none():
            if ranks.is_first:
                kept = end.enter_context(KeptParts(out, prepared.sha256()))
        embeddings = prepared.embed(progress, ranks=ranks, kept=kept)
        if kept is not None and embeddings is not None:
            save_embeddings(out, embeddings)
            kept.remove()
    return embeddings


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
    remarks: tuple[str, ...] = ()
    """What must be known of figures on these sequences, one phrase each."""

    def sha256(self) -> str:
        """The digest of what the embeddings depend on."""
        digest = hashlib.sha256()
        contents = (self.store.content_sha256, content_sha256(self.store.sequences))  # the second of those selected
        about = (__version__, torch.__version__, self.network.config, contents, self.channels)
        digest.update(repr((*about, self.device.type, self.precision, EMBED_BATCH_FRAMES)).encode())
        digest.update(self.indices.tobytes())
        for name, values in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def embed(
        self,
        progress: Progress = SILENT,
        *,
        ranks: Ranks = ALONE,
        kept: KeptParts | None = None,
        shuffle_seed: int | None = None,
    ) -> Embeddings | None:
        """Embed the sequences. Raises AttenGaitError for too little memory or damaged images.

        Several processes embed some batches each, the same as one process would. All call this, with the same
        sequences. The first one returns all embeddings, the others None. `kept`, which only the first one has, knows
        what is done already, and keeps what gets done. With `shuffle_seed`, which excludes `kept`, the frames of each
        sequence are taken in a random order, which does not depend on the other sequences.
        """
        assert kept is None or shuffle_seed is None, "parts do not say in which order their frames were"
        sequences, num_sequences = self.store.sequences, len(self.indices)
        if num_sequences == 0:
            raise AttenGaitError("there is no sequence to embed")
        whole = _Features(num_sequences)
        for rows, features in kept.load() if kept is not None else ():
            whole.put(rows, features)
        ranks.take_first([whole.is_done])
        rounds = self._rounds(whole, ranks.world_size)
        own = [batch for shares in rounds for batch in shares[ranks.rank]]
        with (
            memory_errors("choose another device"),
            computing(self.device, self.precision),
            autocast(self.device, self.precision),
            self.store.reader() as reader,
            SequenceStream(reader, sequences, own, device=str(self.device)) as stream,
        ):
            for shares in rounds:
                embedded, num_done = [], whole.num_done
                for indices, frames, lengths in islice(stream, len(shares[ranks.rank])):
                    frames = _ordered(frames, indices, lengths, shuffle_seed)
                    batch = self.network.embed_ragged(take_channels(frames, self.channels), lengths.tolist())
                    embedded.append(batch.detach().float().cpu())
                    num_done += len(indices)
                    progress.update("Embedding", num_done, num_sequences, unit="sequences")
                for rows, values in self._collect(shares, embedded, ranks):
                    whole.put(rows, values)
                    if kept is not None:
                        kept.add(rows, values)
                if whole.num_done > num_done:
                    progress.update("Embedding", whole.num_done, num_sequences, unit="sequences")
        if not ranks.is_first:
            return None
        return embeddings_of(whole.features, sequences, self.indices, self.precision)

    def _rounds(self, whole: "_Features", world_size: int) -> list[list[list[NDArray[np.int64]]]]:
        """For each round, the batches of each process. Batches are the same whatever is done, and by how many."""
        batches = sequence_batches(self.store.sequences, self.indices, EMBED_BATCH_FRAMES)
        left = [batch for batch in batches if not whole.is_done[self._rows(batch)].all()]
        num_each = max(1, min(ROUND_BATCHES, -(-len(left) // world_size)))
        shares = [left[first : first + num_each] for first in range(0, len(left), num_each)]
        shares += [[]] * (-len(shares) % world_size)
        return [shares[first : first + world_size] for first in range(0, len(shares), world_size)]

    def _collect(
        self, shares: list[list[NDArray[np.int64]]], embedded: list[torch.Tensor], ranks: Ranks
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """In the first process the rows and features of each process's share of a round; in the others nothing."""
        own = torch.cat(embedded) if embedded else None
        if not ranks.is_first:
            if own is not None:
                ranks.send_to_first(own)
            return
        assert own is not None, "the first process has a share of each round"
        for source, share in enumerate(shares):
            if share:
                rows = self._rows(np.concatenate(share))
                values = own if source == 0 else torch.empty(len(rows), *own.shape[1:])
                if source != 0:
                    ranks.receive(values, source)
                yield rows, values.numpy()

    def _rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where sequences of the store are among those to embed."""
        return np.searchsorted(self.indices, indices)


class _Features:
    """Features [n, parts, D] that come one after the other."""

    def __init__(self, number: int) -> None:
        self.is_done = torch.zeros(number, dtype=torch.bool)
        self.features: NDArray[np.float32] = np.empty(0, np.float32)

    @property
    def num_done(self) -> int:
        return int(self.is_done.sum())

    def put(self, rows: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        if not self.features.size:
            self.features = np.empty((len(self.is_done), *features.shape[1:]), np.float32)
        self.features[rows] = features
        self.is_done[rows] = True


def _ordered(
    frames: torch.Tensor, rows: NDArray[np.int64], lengths: NDArray[np.int64], shuffle_seed: int | None
) -> torch.Tensor:
    """Frames [sum of lengths, H, W, C] of the sequences `rows` as they are, or each sequence's in another order."""
    if shuffle_seed is None:
        return frames
    starts = np.cumsum(lengths) - lengths
    orders = [
        start + np.random.default_rng([shuffle_seed, row]).permutation(length)
        for row, start, length in zip(rows.tolist(), starts.tolist(), lengths.tolist(), strict=True)
    ]
    return frames[torch.from_numpy(np.concatenate(orders)).to(frames.device)]


def prepare(
    model: Model,
    store: AnyStore,
    *,
    subjects: Spec | None = None,
    device: str = "auto",
    precision: str = "fp32",
    ranks: Ranks = ALONE,
) -> Prepared:
    """Open and check what `embed` takes, and choose the sequences. Raises what `embed` raises before it computes.

    Several processes all call this, and must find the same model and sequences.
    """
    with ranks.all_or_none():
        prepared = _prepare(model, store, subjects, device, precision, ranks)
    if not ranks.is_alone:
        ranks.check_same("what is to be embedded by the model and store", prepared.sha256())
    return prepared


def _prepare(
    model: Model, store: AnyStore, subjects: Spec | None, device: str, precision: str, ranks: Ranks
) -> Prepared:
    check_name(PRECISIONS, precision, "precision")
    opened = open_store(store)
    run: Path | None = None
    if isinstance(model, AttenGait):
        network = model
        device = str(next(network.parameters()).device) if device == "auto" and ranks.is_alone else device
    else:
        network = load_model(model)
        run = Path(model)
    resolved, precision = resolve_device(ranks.device(device), precision)
    network.to(resolved)
    channels = channels_for(network.config, opened)
    check_pictures(network.config, run, opened)
    if subjects is None and run is not None and run.is_dir():
        names = unseen_subjects(run, opened)
    else:
        names = parse_subjects(() if subjects is None else subjects, subjects_of(opened))
    chosen = set(names)
    remarks: tuple[str, ...] = ()
    if subjects is not None and run is not None and (run / "config.json").exists():
        trained = [name for name in trained_subjects(run, opened) if name in chosen]
        if trained:
            remarks = (trained_on(run, trained, len(chosen)),)
            _log.warning("%s", *remarks)
    indices = np.flatnonzero([subject in chosen for subject in opened.sequences.subject.tolist()])
    return Prepared(
        network=network,
        device=resolved,
        precision=precision,
        store=opened,
        indices=indices,
        channels=channels,
        remarks=remarks,
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
