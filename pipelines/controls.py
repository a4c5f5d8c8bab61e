"""What a model's figures are to be compared with: recognition without learning, without a network, and without time.

Each control embeds the same sequences as `attengait.embed` does, so each is measured by the same protocol.

- discriminant: a linear discriminant on the mean and the spread of a sequence's frames, fitted on the subjects that the
  network was trained on.
- shuffled frames: the trained network on sequences whose frames are in a random order.
- untrained: the same network with new weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attengait.evaluation import Embeddings, EvaluationOptions, EvaluationResult, evaluate_embeddings
from attengait.evaluation.comparison import DEFAULT_RESAMPLES, Difference, compare_embeddings
from attengait.evaluation.discriminant import LinearDiscriminant, mean_and_spread
from attengait.model.loading import load_model
from attengait.model.net import AttenGait
from attengait.pipelines.embed import embed, prepare
from attengait.pipelines.runs import unseen_subjects
from attengait.store import Store
from attengait.system.progress import SILENT, Progress
from attengait.training.checkpoint import read_record


def control_embeddings(run: Path, store: Store, *, seed: int = 0, progress: Progress = SILENT) -> dict[str, Embeddings]:
    """The embeddings of each control for the test subjects of a run: those that it did not train on.

    `seed` draws the untrained weights and the orders of the frames. Raises what `attengait.embed` raises, and
    ParameterError where the run was trained on sequences that are too few for a discriminant.
    """
    return {
        "discriminant": _by_discriminant(run, store),
        "shuffled frames": _shuffled(run, store, seed, progress),
        "untrained": _untrained(run, store, seed, progress),
    }


def _shuffled(run: Path, store: Store, seed: int, progress: Progress) -> Embeddings:
    found = prepare(run, store).embed(progress, shuffle_seed=seed)
    assert found is not None, "a process that is alone gets all"
    return found


def _untrained(run: Path, store: Store, seed: int, progress: Progress) -> Embeddings:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AttenGait(load_model(run).config)
    return embed(network, store, subjects=unseen_subjects(run, store), progress=progress)


def _by_discriminant(run: Path, store: Store) -> Embeddings:
    learned = store.select(subjects=read_record(run).subjects)
    seen = store.select(subjects=unseen_subjects(run, store))
    fitted = LinearDiscriminant.fit(_pictures(learned), _names(learned.sequences.subject))
    columns = seen.sequences
    return Embeddings(
        features=fitted.project(_pictures(seen))[:, None],
        subjects=_names(columns.subject),
        views=_names(columns.view),
        sequences=_names(columns.walk),
        feature_order="parts-first",
    )


def _names(column: NDArray[Any]) -> NDArray[np.str_]:
    return np.array(column.tolist(), dtype=np.str_)


def _pictures(store: Store) -> NDArray[np.float32]:
    """Mean and spread of each sequence, [n, F]."""
    return np.stack([mean_and_spread(store[row]) for row in range(len(store))])


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRow:
    """One line of the table of controls; figures are fractions of 1."""

    name: str
    result: EvaluationResult
    """With intervals."""
    ahead: Difference | None
    """How far the model is ahead of this control, in rank-1 on the same probes; None for the model itself."""

    def to_dict(self) -> dict[str, Any]:
        """A dictionary for `json.dumps`."""
        assert self.result.intervals is not None
        found: dict[str, Any] = {
            "name": self.name,
            "conditions": {condition: figures["rank1"] for condition, figures in self.result.conditions.items()},
            "mean": self.result.mean,
            "interval": list(self.result.intervals["metrics"]["rank1"]),
        }
        if self.ahead is not None:
            found |= {"model_ahead": self.ahead.difference, "model_ahead_interval": list(self.ahead.interval)}
        return found


def compare_controls(model: Embeddings, controls: Mapping[str, Embeddings]) -> list[ControlRow]:
    """The model's row and one for each control, all by the protocol casia-b, with bootstrap intervals over subjects.

    Raises AttenGaitError where the protocol fits no sequence.
    """
    options = EvaluationOptions(bootstrap=DEFAULT_RESAMPLES)
    rows = [ControlRow(name="model", result=evaluate_embeddings(model, options=options), ahead=None)]
    for name, embeddings in controls.items():
        ahead = compare_embeddings(embeddings, model, options=options).figures[0]
        rows.append(ControlRow(name=name, result=evaluate_embeddings(embeddings, options=options), ahead=ahead))
    return rows
