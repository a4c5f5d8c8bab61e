"""Steps by CUDA graphs, replayed on the CPU, are equal to the bit, and given up where they are wrong or lack memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from graph_steps import CPU, Job, same_step
from recorded_graphs import Recording
from torch import Tensor

from attengait.training import graphs as graphs_module
from attengait.training.config import make_config
from attengait.training.graphs import CHECKED_REPLAYS, why_without
from attengait.training.losses import StepInputs, StepLosses
from attengait.training.ranks import ALONE, Ranks


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_step_has_the_losses_and_gradients_of_its_own_clips_labels_weights_and_seed(
    job: Callable[..., Job],
    recorded: list[Recording],
    precision: str,
) -> None:
    with_graphs, without = job(precision), job(precision, why_not="this is the other one")
    layouts = [(0, 0, 1, 1), (1, 0, 0, 1), (2, 1, 2, 1), (0, 0, 0, 1)]  # the last has more pairs than the others
    for step in range(12):
        assert same_step(with_graphs, without, step, labels=layouts[step % 4])
    assert [recording.replays for recording in recorded] == [8, 2]


def test_losses_and_gradients_stay_where_they_are(job: Callable[..., Job]) -> None:
    one = job()
    addresses = []
    for step in range(8):
        one.step(step, one.inputs(step))
        addresses.append([parameter.grad.data_ptr() for parameter in one.model.parameters()])
    replayed = addresses[1 + CHECKED_REPLAYS :]
    assert all(each == replayed[0] for each in replayed)


def test_the_number_of_graphs_is_bounded(
    job: Callable[..., Job],
    recorded: list[Recording],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graphs_module, "MAX_GRAPHS", 2)
    with_graphs, without = job(), job(why_not="this is the other one")
    for step in range(8):
        assert same_step(with_graphs, without, step, num_frames=16 + step % 4)
    assert len(recorded) == 2
    assert with_graphs.graphs.idle_bytes == 2000


def test_a_shape_that_comes_once_has_no_graph(job: Callable[..., Job], recorded: list[Recording]) -> None:
    one = job()
    for step in range(3):
        one.step(step, one.inputs(step, num_frames=16 + step))
    assert recorded == []


def stale(recording: Recording, from_replay: int) -> None:
    """Let a recording leave old results, from its n-th replay on."""
    replay = recording.replay

    def stop() -> None:
        if recording.replays + 1 < from_replay:
            replay()
        else:
            recording.replays += 1

    recording.replay = stop  # type: ignore[method-assign]


@pytest.mark.parametrize("from_replay", [1, 2])
def test_a_graph_that_gives_another_result_is_found_and_changes_nothing(
    job: Callable[..., Job],
    recorded: list[Recording],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    from_replay: int,
) -> None:
    made = Recording.__init__

    def make(recording: Recording) -> None:
        made(recording)
        stale(recording, from_replay)

    monkeypatch.setattr(Recording, "__init__", make)
    with_graphs, without = job(), job(why_not="this is the other one")
    for step in range(6):
        assert same_step(with_graphs, without, step)
    assert recorded[0].replays == from_replay
    assert len(recorded) == 1
    assert caplog.text.count("steps are computed without CUDA graphs") == 1
    assert "steps are computed without CUDA graphs from now on: a graph gave other losses than" in caplog.text
    assert with_graphs.graphs.record()["graphs"] == 0
    assert with_graphs.graphs.idle_bytes == 0


def test_a_graph_that_becomes_wrong_later_is_found_and_said(
    job: Callable[..., Job],
    recorded: list[Recording],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graphs_module, "LATER_CHECKS", {4, 6})
    made = Recording.__init__

    def make(recording: Recording) -> None:
        made(recording)
        stale(recording, 5)

    monkeypatch.setattr(Recording, "__init__", make)
    with_graphs, without = job(), job(why_not="this is the other one")
    assert [same_step(with_graphs, without, step) for step in range(8)] == [*[True] * 5, *[False] * 3]
    assert recorded[0].replays == 6
    assert "its first results were right, but 5 steps used it, and may be wrong" in caplog.text
    assert caplog.text.count("steps are computed without CUDA graphs") == 1


class Baked:
    """What is recorded reads a copy of an input, which nobody writes again."""

    def __init__(self, compute: StepLosses, name: str) -> None:
        self.compute, self.name = compute, name

    def __call__(self, inputs: StepInputs, seed: int | None) -> dict[str, Tensor]:
        if seed is None:  # while it is recorded
            with torch.utils._python_dispatch._disable_current_modes():
                inputs = replace(inputs, **{self.name: getattr(inputs, self.name).clone()})
        return self.compute(inputs, seed)


@pytest.mark.parametrize("name", ["frames", "targets"])
def test_inputs_that_were_recorded_as_values_are_found_at_the_second_replay(
    job: Callable[..., Job],
    recorded: list[Recording],
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    with_graphs = job(compute=lambda compute: Baked(compute, name))
    without = job(why_not="this is the other one")
    layouts = [(0, 0, 1, 1), (1, 1, 2, 2)]
    for step in range(6):
        assert same_step(with_graphs, without, step, labels=layouts[step % 2])
    assert recorded[0].replays == 2
    assert "a graph gave other losses than the same step without it" in caplog.text


def test_memory_that_does_not_suffice_beside_the_graphs_ends_their_use(
    job: Callable[..., Job],
    recorded: list[Recording],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def greedy(compute: StepLosses) -> Any:
        def losses(inputs: StepInputs, seed: int | None) -> dict[str, Tensor]:
            if inputs.frames.shape[1] == 17 and with_graphs.graphs.why_not is None:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB")
            return compute(inputs, seed)

        return losses

    with_graphs, without = job(compute=greedy), job(why_not="this is the other one")
    for step in range(6):
        assert same_step(with_graphs, without, step, num_frames=17 if step == 4 else 16)
    assert [recording.replays for recording in recorded] == [3]
    assert "the memory does not suffice for the graphs and for steps of other shapes" in caplog.text


def test_weights_that_have_moved_are_noticed(job: Callable[..., Job], caplog: pytest.LogCaptureFixture) -> None:
    with_graphs, without = job(), job(why_not="this is the other one")
    for step in range(6):
        if step == 4:
            for parameter in with_graphs.model.parameters():
                parameter.data = parameter.data.clone()
        assert same_step(with_graphs, without, step)
    assert "the weights have moved" in caplog.text


@pytest.mark.parametrize(
    ("changes", "ranks", "reason"),
    [
        ({"cuda_graphs": False}, ALONE, "cuda_graphs is false"),
        ({"accumulate_steps": 2}, ALONE, "accumulate_steps is 2"),
        ({"recompute_frames": 24}, ALONE, "recompute_frames is 24"),
        ({}, Ranks(world_size=2), "2 processes train together"),
        ({}, ALONE, None),
    ],
)
def test_where_graphs_are_not_used_the_reason_is_known(
    recorded: list[Recording],
    changes: dict[str, Any],
    ranks: Ranks,
    reason: str | None,
) -> None:
    assert why_without(make_config(changes), CPU, ranks) == reason
