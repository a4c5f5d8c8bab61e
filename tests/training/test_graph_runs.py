"""Runs with and without CUDA graphs are equal to the bit, on the CPU and on a GPU where there is one."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import state_in
from graph_steps import NETWORK
from recorded_graphs import Recording
from small_stores import make_store
from torch import Tensor

from attengait.model.config import SIZES
from attengait.model.net import AttenGait
from attengait.pipelines.train import train_run
from attengait.pipelines.validate import Validator
from attengait.training import graphs as graphs_module
from attengait.training import margins as margins_module
from attengait.training.config import make_config
from attengait.training.environment import read_environment
from attengait.training.graphs import why_without
from attengait.training.losses import StepInputs, StepLosses
from attengait.training.ranks import ALONE

Heard = import_module("heard").Heard

SMALL: dict[str, Any] = {
    "size": "tiny",
    "blocks_per_stage": 1,
    "subjects_per_batch": 2,
    "clips_per_subject": 2,
    "clip_frames": 16,
    "epochs": 4,
    "epochs_without_cross_entropy": 3,
    "warmup_epochs": 1,
    "learning_rate": 1e-3,
    "mixup_probability": 0.5,
    "cutmix_probability": 0.5,
    "precision": "fp32",
    "device": "cpu",
    "loggers": (),
}
"""14 steps, 8 of them with cross entropy."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "s.zarr"
    make_store(path, lengths=(20,) * 8, frame_shape=(64, 64, 3))
    return path


@dataclass
class Trained:
    losses: list[dict[str, float]]
    state: dict[str, Any]
    ended: dict[str, Any]


@pytest.fixture
def train(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trained]:
    def run(name: str, **changes: Any) -> Trained:
        if changes.get("device") == "cuda":  # the whole network, whose kernels are others
            changes["blocks_per_stage"] = 2
        else:
            monkeypatch.setitem(SIZES, "tiny", NETWORK)
        heard = Heard()
        train_run(store, tmp_path / name, make_config({**SMALL, **changes}), progress=heard)
        steps = [report.losses for report in heard.details if hasattr(report, "losses")]
        ended = read_environment(tmp_path / name)["starts"][-1]["ended"]
        return Trained(steps, state_in(tmp_path / name / "checkpoint.pt"), ended["cuda_graphs"])

    return run


def flat(state: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their places."""
    if isinstance(state, Tensor):
        return {"": state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {f"{key}.{name}": tensor for key, value in items for name, tensor in flat(value).items()}


def check_same(one: Trained, other: Trained) -> None:
    assert json.dumps(one.losses) == json.dumps(other.losses)  # NaN of a skipped step is NaN
    ours, theirs = flat(one.state), flat(other.state)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 100
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16"},
        {"precision": "fp16", "stop_after_steps": 5},  # slow on a CPU
        {"adaptive_margin": True, "optimiser": "sgd", "max_gradient_norm": 1.0, "ema_decay": 0.9},
        {"replicas": 2, "subjects_per_batch": 2, "label_smoothing": 0.1, "classifiers": "joint"},
    ],
)
def test_runs_with_and_without_graphs_are_equal_to_the_bit(
    train: Callable[..., Trained],
    recorded: list[Recording],
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(margins_module, "IDLE_BATCHES", -1)  # margins grow at every idle batch
    # No gradient overflows: steps that are skipped would prove nothing.
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=32.0))
    without = train("without", cuda_graphs=False, **changes)
    assert recorded == []
    with caplog.at_level(logging.INFO, logger="attengait"):
        with_graphs = train("with", **changes)
    check_same(with_graphs, without)
    num_steps = len(without.losses)
    num_graphs = 1 if num_steps == 5 else 2  # of the epochs with cross entropy, and of those without
    assert len(recorded) == num_graphs
    assert sum(recording.replays for recording in recorded) == num_steps - num_graphs
    assert caplog.text.count("its first results were equal to the bit to those without it") == num_graphs
    assert with_graphs.ended == {"graphs": num_graphs, "bytes": 1000, "why_not": None}
    assert without.ended == {"graphs": 0, "bytes": 0, "why_not": "cuda_graphs is false"}


def test_clips_of_many_lengths_have_few_graphs_and_the_same_weights(
    train: Callable[..., Trained],
    recorded: list[Recording],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graphs_module, "MAX_GRAPHS", 2)
    changes = {"vary_clip_frames": True, "clip_frames": 20, "epochs": 6, "epochs_without_cross_entropy": 0}
    check_same(train("with", **changes), train("without", cuda_graphs=False, **changes))
    assert len(recorded) == 2


def test_memory_that_does_not_suffice_for_a_validation_beside_the_graphs_ends_their_use(
    train: Callable[..., Trained],
    recorded: list[Recording],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    validate, calls = Validator.__call__, []

    def greedy(self: Validator, network: AttenGait) -> Any:
        calls.append(len(recorded))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB")
        return validate(self, network)

    changes = {"validate_every_steps": 4, "validation_subjects": ["003-004"], "stop_after_steps": 5}
    without = train("without", cuda_graphs=False, **changes)
    monkeypatch.setattr(Validator, "__call__", greedy)
    with_graphs = train("with", **changes)
    assert calls == [1, 1]
    check_same(with_graphs, without)
    assert recorded[0].replays == 3
    assert with_graphs.ended["why_not"] == "the memory does not suffice for the graphs and for a validation"


def test_without_a_gpu_there_are_none(train: Callable[..., Trained]) -> None:
    assert why_without(make_config({}), torch.device("cuda", 0), ALONE) is None
    ended = train("run", stop_after_steps=1).ended
    assert ended == {"graphs": 0, "bytes": 0, "why_not": "the device is cpu"}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_runs_with_and_without_graphs_are_equal_to_the_bit(
    train: Callable[..., Trained], precision: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=32.0))  # no step is skipped
    settings = {"device": "cuda", "precision": precision, "deterministic": True}
    with caplog.at_level(logging.INFO, logger="attengait"):
        with_graphs = train("with", **settings)
    without = train("without", cuda_graphs=False, **settings)
    assert (with_graphs.ended["why_not"], with_graphs.ended["graphs"]) == (None, 2), caplog.text
    assert with_graphs.ended["bytes"] > 0
    check_same(with_graphs, without)


@pytest.mark.gpu
def test_on_a_gpu_a_recording_that_is_refused_leaves_a_device_that_works(
    train: Callable[..., Trained], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = StepLosses.__call__

    def reading(self: StepLosses, inputs: StepInputs, seed: int | None) -> dict[str, Tensor]:
        losses = compute(self, inputs, seed)
        float(losses["total"])
        return losses

    settings = {"device": "cuda", "deterministic": True}
    without = train("without", cuda_graphs=False, **settings)
    monkeypatch.setattr(StepLosses, "__call__", reading)
    with_graphs = train("with", **settings)
    assert "steps are computed without CUDA graphs from now on: a graph could not be recorded" in caplog.text
    assert (with_graphs.ended["graphs"], with_graphs.ended["bytes"]) == (0, 0)
    check_same(with_graphs, without)


@pytest.mark.gpu
def test_on_a_gpu_clips_of_many_lengths_are_equal_to_the_bit_with_graphs(train: Callable[..., Trained]) -> None:
    changes = {"vary_clip_frames": True, "clip_frames": 20, "epochs": 8, "epochs_without_cross_entropy": 0}
    settings = {"device": "cuda", "deterministic": True, **changes}
    with_graphs, without = train("with", **settings), train("without", cuda_graphs=False, **settings)
    assert with_graphs.ended["graphs"] > 1
    check_same(with_graphs, without)
