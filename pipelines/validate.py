"""Does it learn? Held-out training subjects are recognised while a run trains.

Nothing of the training changes by it: the network is put back into its mode, no random number is drawn, and the frames
have a reader of their own.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation import Embeddings, evaluate_embeddings, rules
from attengait.evaluation.embeddings import embed_store
from attengait.evaluation.protocols import recognisable
from attengait.evaluation.result import mean_of_present
from attengait.evaluation.sides import Labels
from attengait.model.net import AttenGait
from attengait.model.precision import autocast
from attengait.pipelines.channels import take_channels
from attengait.pipelines.embed import EMBED_BATCH_FRAMES
from attengait.pipelines.stream import SequenceStream
from attengait.sampling.holding_out import WHAT
from attengait.sampling.plan import sequence_batches
from attengait.sampling.selection import distinct, some_of
from attengait.store import Store
from attengait.store.joined import JoinedStores
from attengait.system.progress import SILENT, Progress
from attengait.system.stopping import StopRequest
from attengait.training.best import Validation
from attengait.training.config import TrainingConfig

_log = logging.getLogger(__name__)

CROSS_WALK = "cross-walk"
"""The protocol of data sets that have none: each sequence is looked for among those of all other walks."""


class _StoppedError(Exception):
    """A validation was asked to stop."""


@dataclass(slots=True, kw_only=True)
class Validator:
    """Recognises the held-out subjects of a run; made by `open_validator`."""

    store: Store | JoinedStores
    indices: NDArray[np.int64]
    """[n]: which sequences of the store."""
    num_subjects: int
    """Those who can be recognised."""
    num_probes: int
    """Sequences of these subjects that are to be recognised."""
    channels: list[int]
    protocol: str
    device: torch.device
    precision: str
    check_frames: bool
    progress: Progress = SILENT
    stop: StopRequest
    """A validation that is asked to stop ends without a result."""

    def __call__(self, network: AttenGait) -> Validation | None:
        """Recognise the subjects. Returns None where it was asked to stop. Raises what embedding raises."""
        sequences = self.store.sequences
        with (
            autocast(self.device, self.precision),
            self.store.reader(check_frames=self.check_frames) as reader,
            SequenceStream(
                reader,
                sequences,
                sequence_batches(sequences, self.indices, EMBED_BATCH_FRAMES),
                device=str(self.device),
            ) as stream,
        ):
            try:
                embeddings = embed_store(
                    network,
                    self._batches(stream),
                    sequences,
                    num_sequences=len(self.indices),
                    precision=self.precision,
                    progress=_Validating(self.progress),
                )
            except _StoppedError:
                return None
        self.check_frames = False  # now they are
        figures = _figures(self.protocol, embeddings)
        return Validation(
            protocol=self.protocol,
            rank1=figures.pop("rank1"),
            more=figures,
            num_subjects=self.num_subjects,
            num_probes=self.num_probes,
        )

    def _batches(self, stream: SequenceStream) -> Iterator[tuple[NDArray[np.int64], torch.Tensor, NDArray[np.int64]]]:
        for rows, frames, lengths in stream:
            if self.stop.signal is not None:
                raise _StoppedError
            yield rows, take_channels(frames, self.channels), lengths


class _Validating(Progress):
    """Says what is embedded, and why."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def update(self, task: str, done: int, total: int, *, unit: str, detail: object = None) -> None:
        """See Progress."""
        self._progress.update("Validating", done, total, unit=unit, detail=detail)


def open_validator(
    store: Store | JoinedStores,
    config: TrainingConfig,
    channels: list[int],
    *,
    device: torch.device,
    precision: str,
    progress: Progress = SILENT,
    stop: StopRequest,
) -> Validator | None:
    """What validates a run with these settings, in which the held-out subjects are named; None where it is not to.

    Raises ParameterError where the held-out subjects have nothing that could be recognised.
    """
    if not config.run.validate_every_steps:
        return None
    names = set(config.data.validation_subjects)
    indices = np.flatnonzero([subject in names for subject in store.sequences.subject.tolist()])
    protocol, probes = _protocol_for(store, indices, config)
    found = distinct(store.sequences.subject[indices[probes]])[0].tolist()
    if lost := sorted(names.difference(found)):
        _log.warning(
            "validation: %s of the %s held-out subjects cannot be recognised by the protocol %s, because none of their "
            "sequences is a probe that has another of theirs to be found: %s",
            len(lost),
            len(names),
            protocol,
            some_of(lost),
        )
    return Validator(
        store=store,
        indices=indices,
        num_subjects=len(found),
        num_probes=int(probes.sum()),
        channels=channels,
        protocol=protocol,
        device=device,
        precision=precision,
        check_frames=config.run.check_frames,
        progress=progress,
        stop=stop,
    )


def _protocol_for(
    store: Store | JoinedStores, indices: NDArray[np.int64], config: TrainingConfig
) -> tuple[str, NDArray[np.bool_]]:
    """The protocol of the data set where it has one that fits, else cross-walk; and which sequences [n] it can find."""
    stores = store.stores if isinstance(store, JoinedStores) else (store,)
    datasets = {str(one.attributes.get("dataset")) for one in stores}
    labels = Labels.of_columns(store.sequences.columns, indices)
    own = datasets & rules().keys() if len(datasets) == 1 else set()
    for protocol in (*own, CROSS_WALK):
        with suppress(AttenGaitError):  # they may lack what it compares, such as a second view
            if (probes := recognisable(labels, protocol)).any():
                return protocol, probes
    names = config.data.validation_subjects
    raise ParameterError(
        f"{WHAT} is {some_of(names)!r}, but must be subjects of whom one has two walks: these have one each, or "
        "no label, so that nobody can be found again"
    )


def _figures(protocol: str, embeddings: Embeddings) -> dict[str, Any]:
    """rank1 and other figures, by name."""
    result = evaluate_embeddings(embeddings, protocol=protocol)
    if protocol == CROSS_WALK:
        return {"rank1": result.mean, "mean_average_precision": result.metrics["mAP"]}
    conditions = {name: mean_of_present(views.values()) for name, views in result.rank1.items()}
    figures = {"rank1": result.mean, **{f"rank1_{name}": figure for name, figure in conditions.items()}}
    return {name: figure for name, figure in figures.items() if figure is not None}
