"""A recording that reads a value is refused, and no step needs to read one."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from graph_steps import CPU, Job, same_step
from recorded_graphs import Recording
from torch import Tensor

from attengait.model.net import PARTS
from attengait.training import losses as losses_module
from attengait.training.config import OptimiserSettings
from attengait.training.losses import StepInputs, StepLosses
from attengait.training.margins import AdaptiveMargins


def test_a_recording_that_is_refused_is_said_once_and_the_run_goes_on(
    job: Callable[..., Job],
    recorded: list[Recording],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams = []
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)

    def reading(compute: StepLosses) -> Any:
        def losses(inputs: StepInputs, seed: int | None) -> dict[str, Tensor]:
            found = compute(inputs, seed)
            assert found["total"].item() == found["total"]
            return found

        return losses

    with_graphs, without = job(compute=reading), job(why_not="this is the other one")
    for step in range(5):
        assert same_step(with_graphs, without, step)
    assert streams == ["current stream"]
    assert [recording.replays for recording in recorded] == [0]
    assert caplog.text.count("steps are computed without CUDA graphs") == 1
    sentence = "steps are computed without CUDA graphs from now on: a graph could not be recorded or checked (operation"
    assert f"{sentence} _local_scalar_dense not permitted when stream is capturing)" in caplog.text
    assert "Compile with" not in caplog.text


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.tensor([1.0]) + x.sum(),
        lambda x: bool((x > 0).any()),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.equal(x, x),
    ],
)
def test_what_reads_a_value_is_found_while_it_is_recorded(read: Callable[[Tensor], Any]) -> None:
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), Recording():
        read(torch.ones(3))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("settings", [{}, {"soft_margin": True, "normalise_embeddings": True}, {"margin": 0.5}])
def test_nothing_that_is_recorded_looks_at_a_value(
    job: Callable[..., Job], settings: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job(precision)
    margins = AdaptiveMargins(0.2, PARTS, CPU) if "margin" in settings else None
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    compute = replace(one.compute, settings=OptimiserSettings(**settings), margins=margins, scaler=scaler)
    inputs = one.inputs(0)
    compute(inputs, 0)  # makes the scale

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a GPU's random state cannot be seeded while a graph is recorded")

    monkeypatch.setattr(losses_module, "seed_random", refuse)
    kept = []
    one.model.register_forward_hook(lambda *_: kept.append(torch.is_autocast_cache_enabled()))
    with Recording() as recording:
        compute(inputs, None)
    assert len(recording.operations) > 100
    assert kept == [False]
    assert torch.is_autocast_cache_enabled()


def test_a_step_on_the_meta_device_needs_no_value(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses_module, "autocast", lambda *_, **__: contextlib.nullcontext())
    one = job()
    inputs = one.inputs(0)
    on_meta = replace(
        inputs,
        frames=inputs.frames.to("meta"),
        targets=inputs.targets.to("meta"),
        pairs=tuple(type(pairs)(*(tensor.to("meta") for tensor in pairs)) for pairs in inputs.pairs),
    )
    one.model.to("meta")
    losses = one.compute(on_meta, None)
    assert all(value.is_meta for value in losses.values())
    assert all(parameter.grad is not None and parameter.grad.is_meta for parameter in one.model.parameters())
