"""Where a step does not repeat itself, a graph may differ as much as it does, and not more."""

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph_steps import Job
from recorded_graphs import Recording
from torch import Tensor

from attengait.model.net import AttenGait
from attengait.training.losses import StepInputs, StepLosses


class Noisy:
    """Gradients that differ from call to call, as sums do on a GPU whose order changes; recorded, `more` than that."""

    def __init__(self, compute: StepLosses, more: float) -> None:
        self.compute, self.more, self.generator = compute, more, torch.Generator().manual_seed(0)

    def __call__(self, inputs: StepInputs, seed: int | None) -> dict[str, Tensor]:
        losses = self.compute(inputs, seed)
        for parameter in self.compute.hooked.model.parameters():
            noise = torch.randn(parameter.shape, generator=self.generator)
            parameter.grad += 1e-6 * noise * (self.more if seed is None else 1)
        return losses


@pytest.mark.parametrize(("more", "num_replays"), [(1.0, 4), (100.0, 1)])
def test_where_a_step_does_not_repeat_itself_a_graph_may_differ_as_much_and_not_more(
    job: Callable[..., Job],
    recorded: list[Recording],
    caplog: pytest.LogCaptureFixture,
    more: float,
    num_replays: int,
) -> None:
    one = job(compute=lambda compute: Noisy(compute, more))
    with caplog.at_level(logging.INFO, logger="attengait"):
        for step in range(5):
            one.step(step, one.inputs(step))
    assert recorded[0].replays == num_replays
    assert ("as close to those without it as these are to each other" in caplog.text) == (more == 1)
    assert ("a graph gave other gradients than the same step without it" in caplog.text) == (more > 1)


class NoisyOnce(Noisy):
    """Gradients whose last bits differ from call to call; `spoil` is done to those that are recorded."""

    def __init__(self, compute: StepLosses, spoil: Callable[[AttenGait], None]) -> None:
        super().__init__(compute, 1)
        self.spoil = spoil

    def __call__(self, inputs: StepInputs, seed: int | None) -> dict[str, Tensor]:
        losses = self.compute(inputs, seed)
        for parameter in self.compute.hooked.model.parameters():
            assert parameter.grad is not None
            parameter.grad *= 1 + 1e-2 * torch.randn(parameter.shape, generator=self.generator)
        if seed is None:
            self.spoil(self.compute.hooked.model)
        return losses


def double(model: AttenGait) -> None:
    gradient = model.embedding_attention.weight.grad
    assert gradient is not None
    gradient *= 2


def forget(model: AttenGait) -> None:
    model.embedding_attention.weight.grad = None


@pytest.mark.parametrize("spoil", [double, forget])
def test_a_small_gradient_that_is_wrong_is_found_among_large_ones_that_do_not_repeat_themselves(
    job: Callable[..., Job],
    recorded: list[Recording],
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[AttenGait], None],
) -> None:
    one = job(compute=lambda compute: NoisyOnce(compute, spoil))
    for step in range(5):
        one.step(step, one.inputs(step))
    sizes = torch.stack([parameter.grad.norm() for parameter in one.model.parameters()])
    assert one.model.embedding_attention.weight.grad.norm() < 1e-2 * sizes.norm(), "it hardly counts in the sum"
    assert recorded[0].replays == 1
    assert "a graph gave other gradients than the same step without it" in caplog.text


def test_steps_that_the_loss_scaler_skips_prove_nothing_of_a_graph(
    job: Callable[..., Job],
    recorded: list[Recording],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The gradients of the first three overflow; what is recorded halves those of the others."""

    def overflowing(compute: StepLosses) -> Any:
        factor = torch.ones(())

        def losses(inputs: StepInputs, seed: int | None) -> dict[str, Tensor]:
            if seed is not None:
                factor.fill_(math.inf if seed < 3 else 1)
            found = compute(inputs, seed)
            for parameter in compute.hooked.model.parameters():
                assert parameter.grad is not None
                parameter.grad *= factor * (0.5 if seed is None else 1)
            return found

        return losses

    one = job(compute=overflowing)
    with caplog.at_level(logging.INFO, logger="attengait"):
        for step in range(6):
            inputs = one.inputs(step)
            one.graphs(inputs, seed=step)
    assert recorded[0].replays == 3
    assert "a graph gave other gradients than the same step without it" in caplog.text
    assert "its first results were" not in caplog.text
