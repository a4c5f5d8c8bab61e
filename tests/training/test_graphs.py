"""Steps by CUDA graphs, recorded and replayed on the CPU: equal to the bit, checked, and given up where they are wrong.

tests/support/recorded_graphs.py stands in for the GPU. The last tests need one.
"""

import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import state_in
from recorded_graphs import Recording, recorded  # noqa: F401
from small_stores import make_store
from torch import Tensor

from attengait.model.config import SIZES, ModelConfig
from attengait.model.losses import pairs_of
from attengait.model.net import PARTS, AttenGait
from attengait.pipelines.train import train_run
from attengait.pipelines.validate import Validator
from attengait.training import graphs as graphs_module
from attengait.training import losses as losses_module
from attengait.training import margins as margins_module
from attengait.training.config import OptimiserSettings, make_config
from attengait.training.environment import read_environment
from attengait.training.graphs import CHECKED_REPLAYS, StepGraphs, why_without
from attengait.training.hooked import Hooked
from attengait.training.losses import StepInputs, StepLosses
from attengait.training.margins import AdaptiveMargins
from attengait.training.ranks import ALONE, Ranks

Heard = import_module("heard").Heard

CPU = torch.device("cpu")
NETWORK: dict[str, Any] = {"widths": (4, 4, 8), "part_width": 8, "embedding_size": 4}
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
    recorded: list[Recording],  # noqa: F811
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
    recorded: list[Recording],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graphs_module, "MAX_GRAPHS", 2)
    changes = {"vary_clip_frames": True, "clip_frames": 20, "epochs": 6, "epochs_without_cross_entropy": 0}
    check_same(train("with", **changes), train("without", cuda_graphs=False, **changes))
    assert len(recorded) == 2


@dataclass
class Job:
    """One small network, and what its steps are computed by."""

    graphs: StepGraphs
    compute: StepLosses
    model: AttenGait

    def inputs(self, step: int, labels: tuple[int, ...] = (0, 0, 1, 1), num_frames: int = 16) -> StepInputs:
        generator = torch.Generator().manual_seed(step)
        shape = (len(labels), num_frames, 64, 64, 3)
        return StepInputs(
            frames=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
            targets=torch.eye(3)[list(labels)],
            pairs=(pairs_of(torch.tensor(labels), CPU),),
            with_classes=True,
        )

    def step(self, step: int, inputs: StepInputs) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The losses and gradients, as copies; then the weights move, as an optimiser moves them."""
        losses = {name: value.clone() for name, value in self.graphs(inputs, seed=step).items()}
        gradients = [parameter.grad for parameter in self.model.parameters()]
        copies = [gradient.clone() for gradient in gradients if gradient is not None]
        with torch.no_grad():
            for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
                parameter.add_(gradient, alpha=-0.01)
        return losses, copies


@pytest.fixture
def job(recorded: list[Recording]) -> Iterator[Callable[..., Job]]:  # noqa: F811
    with contextlib.ExitStack() as stack:

        def make(precision: str = "fp32", why_not: str | None = None, compute: Any = None) -> Job:
            torch.manual_seed(0)
            model = AttenGait(ModelConfig(**NETWORK, blocks_per_stage=1, num_classes=3)).train()
            hooked = stack.enter_context(contextlib.closing(Hooked(model, CPU, ALONE)))
            losses = StepLosses(
                hooked=hooked,
                scaler=torch.amp.GradScaler("cpu", enabled=False),
                margins=None,
                precision=precision,
                settings=OptimiserSettings(),
                replicas=1,
                ranks=ALONE,
            )
            graphs = StepGraphs(
                compute=compute(losses) if compute else losses,
                parameters=list(model.parameters()),
                device=CPU,
                why_not=why_not,
            )
            return Job(stack.enter_context(contextlib.closing(graphs)), losses, model)

        yield make


def same_step(one: Job, other: Job, step: int, **options: Any) -> bool:
    (losses, gradients), (expected, expected_gradients) = (
        each.step(step, each.inputs(step, **options)) for each in (one, other)
    )
    return all(torch.equal(losses[name], expected[name]) for name in expected) and all(
        torch.equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True)
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_step_has_the_losses_and_gradients_of_its_own_clips_labels_weights_and_seed(
    job: Callable[..., Job],
    recorded: list[Recording],  # noqa: F811
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
    recorded: list[Recording],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graphs_module, "MAX_GRAPHS", 2)
    with_graphs, without = job(), job(why_not="this is the other one")
    for step in range(8):
        assert same_step(with_graphs, without, step, num_frames=16 + step % 4)
    assert len(recorded) == 2
    assert with_graphs.graphs.idle_bytes == 2000


def test_a_shape_that_comes_once_has_no_graph(job: Callable[..., Job], recorded: list[Recording]) -> None:  # noqa: F811
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
    recorded: list[Recording],  # noqa: F811
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
    recorded: list[Recording],  # noqa: F811
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
    recorded: list[Recording],  # noqa: F811
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


def test_a_recording_that_is_refused_is_said_once_and_the_run_goes_on(
    job: Callable[..., Job],
    recorded: list[Recording],  # noqa: F811
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
    recorded: list[Recording],  # noqa: F811
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
    recorded: list[Recording],  # noqa: F811
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
    recorded: list[Recording],  # noqa: F811
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


def test_memory_that_does_not_suffice_beside_the_graphs_ends_their_use(
    job: Callable[..., Job],
    recorded: list[Recording],  # noqa: F811
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


def test_memory_that_does_not_suffice_for_a_validation_beside_the_graphs_ends_their_use(
    train: Callable[..., Trained],
    recorded: list[Recording],  # noqa: F811
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
    recorded: list[Recording],  # noqa: F811
    changes: dict[str, Any],
    ranks: Ranks,
    reason: str | None,
) -> None:
    assert why_without(make_config(changes), CPU, ranks) == reason


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
