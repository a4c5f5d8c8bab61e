"""How gradients become weights: optimisers, clipping, micro-batches, averages, margins. Each piece by itself."""

import sys
from typing import Any

import pytest
import torch

from attengait.errors import AttenGaitError, ParameterError
from attengait.model.config import ModelConfig
from attengait.model.losses import cross_entropy, smoothed, triplet_loss, triplet_loss_per_part
from attengait.model.net import AttenGait
from attengait.training import margins as margins_module
from attengait.training.average import WeightAverage
from attengait.training.config import make_config
from attengait.training.margins import AdaptiveMargins
from attengait.training.micro_batches import MicroBatches
from attengait.training.optimisers import clip, make_optimiser
from attengait.training.schedule import learning_rate
from attengait.training.settings import UpdateSettings


def stepped(gradients: list[float], rate: float = 0.1, **settings: Any) -> float:
    """A weight that was 1, after steps with these gradients."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimiser = make_optimiser(UpdateSettings(**settings), [weight])
    for gradient in gradients:
        weight.grad = torch.full((1,), gradient)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
    return weight.item()


def test_each_optimiser_does_what_its_name_says() -> None:
    assert stepped([2.0], optimiser="sgd", momentum=0.0) == pytest.approx(1 - 0.1 * 2)
    assert stepped([2.0, 0.0], optimiser="sgd", momentum=0.5) == pytest.approx(1 - 0.1 * 2 - 0.1 * 0.5 * 2)
    assert stepped([2.0]) == pytest.approx(1 - 0.1)  # the first step of Adam is as large as the rate
    assert stepped([0.0], optimiser="adamw", weight_decay=0.5) == pytest.approx(1 - 0.1 * 0.5)
    assert stepped([1.0, 2.0], optimiser="adamw") == stepped([1.0, 2.0])
    # amsgrad divides by the largest second moment so far, so small gradients after a large one move less.
    small_after_large = [10.0] + [0.01] * 300
    assert stepped(small_after_large, optimiser="amsgrad") > stepped(small_after_large)


def test_lamb_comes_from_its_library_and_scales_by_the_norm_of_the_weights() -> None:
    pytest.importorskip("pytorch_optimizer")
    moved = []
    for size in (1.0, 5.0):
        weight = torch.nn.Parameter(torch.full((4,), size))
        optimiser = make_optimiser(UpdateSettings(optimiser="lamb"), [weight])
        weight.grad = torch.ones(4)
        optimiser.param_groups[0]["lr"] = 0.01
        optimiser.step()
        moved.append(float((size - weight.detach()).norm()))
    assert moved[1] == pytest.approx(5 * moved[0], rel=1e-3)


def test_without_its_library_lamb_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(AttenGaitError, match=r"lamb needs the library pytorch-optimizer: run pip install '\.\[optimi"):
        stepped([1.0], optimiser="lamb")


def test_a_constant_rate_stays_after_the_warm_up() -> None:
    rates = [learning_rate(step, 1.0, 2, 10, schedule="constant") for step in range(10)]
    assert rates == [0, 0.5] + [1] * 8


def test_gradients_are_scaled_down_to_the_largest_norm_and_never_up() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    for largest, expected in ((0.0, 5.0), (1.0, 1.0), (10.0, 5.0)):
        parameters[0].grad, parameters[1].grad = torch.tensor([0.0, 3.0]), torch.tensor([4.0])
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
        clip(parameters, norm, largest)
        after = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
        assert float(after) == pytest.approx(expected, rel=1e-5)


TINY = ModelConfig(widths=(4, 4, 8), part_width=8, embedding_size=4, blocks_per_stage=1, num_classes=3)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def gradients(num_parts: int, *, recompute_frames: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """The loss, the gradients, and the bytes that autograd kept at most for the backward pass of one network."""
    torch.manual_seed(0)
    model = AttenGait(TINY).train()
    model.recompute_frames = recompute_frames
    clips = torch.randint(0, 256, (6, 16, 64, 64, 3), dtype=torch.uint8)
    kept = [0, 0]

    def pack(tensor: torch.Tensor) -> Any:
        kept[0] += tensor.nbytes
        kept[1] = max(kept)
        return tensor.nbytes, tensor

    def unpack(packed: Any) -> torch.Tensor:
        kept[0] -= packed[0]
        return packed[1]  # type: ignore[no-any-return]

    def embed(frames: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # attention dropout
        return model(frames)  # type: ignore[no-any-return]

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        whole = MicroBatches(embed, clips, num_parts)
        logits = model.classify(whole.embeddings)
        loss = triplet_loss(whole.embeddings, LABELS, normalised=True)
        loss = loss + cross_entropy(logits, torch.eye(3)[LABELS])
        loss.backward()  # type: ignore[no-untyped-call]
        whole.backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(grads) == len(list(model.parameters()))
    return loss.detach(), grads, kept[1]


@pytest.fixture(scope="module")
def whole_batch() -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    return gradients(1)


@pytest.mark.parametrize("options", [{"num_parts": 2}, {"num_parts": 4}, {"num_parts": 1, "recompute_frames": 20}])
def test_parts_and_recomputed_activations_give_the_gradients_of_the_whole_batch_with_less_memory(
    whole_batch: tuple[torch.Tensor, dict[str, torch.Tensor], int], options: dict[str, int]
) -> None:
    """Equal but for the order of float32 sums over 96 frames of 64 x 64 pixels: 1e-4 of the largest gradient."""
    loss, expected, kept = whole_batch
    ours, grads, ours_kept = gradients(**options)
    torch.testing.assert_close(ours, loss, rtol=1e-5, atol=0)
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            grads[name], gradient, rtol=0, atol=1e-4 * scale + 1e-9, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert ours_kept < 0.7 * kept


def test_the_average_is_the_one_written_out_and_the_model_gets_its_own_weights_back() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average, expected = WeightAverage(model, 0.5), 0.0
    for step, value in enumerate((1.0, 3.0, -2.0, 8.0, 8.0, 8.0, 8.0, 8.0), 1):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(model, step)
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * value
    assert average.weights["weight"].item() == pytest.approx(expected, rel=1e-6)
    with average.in_place(model):
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)
    assert model.weight.item() == 8.0


def test_the_margin_of_a_part_grows_when_it_was_idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert margins_module.IDLE_BATCHES == 100  # as published
    monkeypatch.setattr(margins_module, "IDLE_BATCHES", 2)
    margins = AdaptiveMargins(0.2, 2, torch.device("cpu"))
    seen = []
    for loss in (0.0, 0.0, 0.0, 1.0, 0.0, 0.0):
        margins.update(torch.tensor([loss, 1.0]))
        seen.append([round(value, 3) for value in margins.values.tolist()])
    assert seen == [[0.2, 0.2]] * 2 + [[0.3, 0.2]] * 4


def test_each_part_has_its_own_margin_in_the_triplet_loss() -> None:
    torch.manual_seed(0)
    embeddings, labels = torch.randn(6, 2, 4), torch.tensor([0, 0, 0, 1, 1, 1])
    options: dict[str, Any] = {"normalised": False, "soft_margin": False}
    both = triplet_loss_per_part(embeddings, labels, margin=torch.tensor([0.2, 0.9]), **options)
    for part, margin in enumerate((0.2, 0.9)):
        assert torch.equal(both[part], triplet_loss_per_part(embeddings, labels, margin=margin, **options)[part])


def test_smoothed_targets_still_sum_to_one_and_cost_what_they_mix() -> None:
    targets = torch.eye(4)[[0, 2]]
    assert smoothed(targets, 0.0) is targets
    torch.testing.assert_close(smoothed(targets, 0.2)[0], torch.tensor([0.85, 0.05, 0.05, 0.05]))
    logits = torch.randn(2, 3, 4)
    expected = 0.8 * cross_entropy(logits, targets) + 0.2 * cross_entropy(logits, torch.full((2, 4), 0.25))
    torch.testing.assert_close(cross_entropy(logits, smoothed(targets, 0.2)), expected)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weight_decay": 0.1}, "weight_decay is 0.1, but must be 0 with the optimiser adam"),
        ({"optimiser": "rmsprop"}, "optimiser is 'rmsprop', but must be one of adam, amsgrad, adamw, sgd, lamb"),
        ({"accumulate_steps": 65}, "accumulate_steps is 65, but must be at most 64, the clips of a batch"),
        ({"vary_clip_frames": True, "clip_frames": 16}, "clip_frames is 16, but must be more than 16 with vary"),
        ({"adaptive_margin": True, "soft_margin": True}, "adaptive_margin is True, but must be false with soft_margin"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0, but must be at least 0 and below 1"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0, but must be at least 0 and below 1"),
        ({"embedding_size": -1}, "embedding_size is -1, but must be from 0 to 65,536"),
        ({"classifiers": "one"}, "classifiers is 'one', but must be"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        make_config(settings)


def test_a_first_step_that_the_loss_scaler_skips_leaves_sgd_without_momentum() -> None:
    weight = torch.nn.Parameter(torch.ones(1000))
    optimiser = make_optimiser(UpdateSettings(optimiser="sgd", momentum=0.5), [weight])
    optimiser.param_groups[0]["lr"] = 0.1
    scaler = torch.amp.GradScaler("cpu")
    torch.use_deterministic_algorithms(True)  # which fills what torch does not write with NaN
    try:
        for gradient in (float("inf"), 2.0, 0.0):
            weight.grad = torch.full((1000,), gradient)
            scaler.scale(torch.ones(1))  # type: ignore[no-untyped-call]
            weight.grad *= scaler.get_scale()
            scaler.step(optimiser)
            scaler.update()
    finally:
        torch.use_deterministic_algorithms(False)
    assert weight.detach().tolist() == pytest.approx([1 - 0.1 * 2 - 0.1 * 0.5 * 2] * 1000)
