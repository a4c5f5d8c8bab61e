"""Triplet loss, cross entropy and L2 penalty against their definitions written as loops."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from attengait.model.config import ModelConfig
from attengait.model.losses import (
    cross_entropy,
    l2_penalty,
    pairs_of,
    penalised_weights,
    triplet_loss,
    triplets_per_part,
)
from attengait.model.net import AttenGait


def triplet_by_loops(embeddings: Tensor, labels: list[int], margin: float, *, soft: bool) -> float:
    num_clips, num_parts, _ = embeddings.shape
    total = 0.0
    for part in range(num_parts):
        terms = []
        for anchor in range(num_clips):
            for positive in range(num_clips):
                for negative in range(num_clips):
                    if labels[anchor] != labels[positive] or labels[anchor] == labels[negative]:
                        continue
                    near = float((embeddings[anchor, part] - embeddings[positive, part]).norm())
                    far = float((embeddings[anchor, part] - embeddings[negative, part]).norm())
                    terms.append(math.log1p(math.exp(near - far)) if soft else max(0.0, margin + near - far))
        active = [term for term in terms if term > 0]
        total += sum(active) / max(len(active), 1)
    return total / num_clips


@pytest.mark.parametrize("soft", [False, True])
def test_triplet_loss_equals_loops_over_all_triplets(soft: bool) -> None:
    torch.manual_seed(1)
    embeddings = torch.randn(7, 3, 4)
    labels = [0, 1, 2, 1, 0, 0, 3]  # two subjects have one clip only: their own positive
    expected = triplet_by_loops(embeddings, labels, 0.2, soft=soft)
    ours = triplet_loss(embeddings, torch.tensor(labels), margin=0.2, soft_margin=soft)
    assert ours.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.2, 5.0])
def test_the_share_of_active_triplets_is_that_of_loops_over_all_triplets(margin: float) -> None:
    torch.manual_seed(1)
    embeddings = torch.randn(7, 3, 4)
    labels = [0, 1, 2, 1, 0, 0, 3]
    active = total = 0
    for part in range(3):
        for anchor, positive, negative in itertools.product(range(7), repeat=3):
            if labels[anchor] == labels[positive] and labels[anchor] != labels[negative]:
                near = (embeddings[anchor, part] - embeddings[positive, part]).norm()
                far = (embeddings[anchor, part] - embeddings[negative, part]).norm()
                total += 1
                active += bool(margin + near - far > 0)
    options = {"margin": margin, "normalised": False, "soft_margin": False}
    _, share = triplets_per_part(embeddings, pairs_of(torch.tensor(labels), torch.device("cpu")), **options)
    assert share.item() == pytest.approx(active / total)
    assert (share.item() == 1) == (margin == 5.0)


def test_without_triplets_none_is_active() -> None:
    options = {"margin": 0.2, "normalised": False, "soft_margin": False}
    pairs = pairs_of(torch.zeros(4, dtype=torch.int64), torch.device("cpu"))
    _, share = triplets_per_part(torch.randn(4, 2, 3), pairs, **options)
    assert share.item() == 0


def test_equal_clips_have_finite_zero_distance_gradients() -> None:
    embeddings = torch.ones(4, 2, 3, requires_grad=True)
    loss = triplet_loss(embeddings, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(2 * 0.2 / 4)
    assert torch.equal(embeddings.grad, torch.zeros(4, 2, 3))


def test_one_subject_alone_makes_no_triplet() -> None:
    assert triplet_loss(torch.randn(4, 2, 3), torch.zeros(4, dtype=torch.int64)).item() == 0


def test_triplet_loss_is_float32_whatever_the_network_ran_in() -> None:
    torch.manual_seed(2)
    embeddings = torch.randn(6, 3, 8).bfloat16()
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    with torch.autocast("cpu", torch.bfloat16):
        loss = triplet_loss(embeddings, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, triplet_loss(embeddings.float(), labels))


def test_cross_entropy_of_certain_mistakes_is_bounded_by_the_clip() -> None:
    logits = torch.tensor([[[100.0, 0.0]]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-7), rel=1e-5)
    assert torch.equal(logits.grad, torch.zeros(1, 1, 2))


def test_cross_entropy_of_mixed_targets_is_the_mix_of_both() -> None:
    logits = torch.randn(3, 4, 5)
    one, other = torch.eye(5)[[0, 1, 2]], torch.eye(5)[[3, 3, 4]]
    mixed = cross_entropy(logits, 0.3 * one + 0.7 * other)
    torch.testing.assert_close(mixed, 0.3 * cross_entropy(logits, one) + 0.7 * cross_entropy(logits, other))


def test_l2_penalty_is_part_of_the_gradient() -> None:
    model = AttenGait(ModelConfig(num_classes=3))
    penalty = l2_penalty(model)
    penalty.backward()
    weights = penalised_weights(model)
    assert penalty.item() == pytest.approx(
        1e-5 * sum(float(w.detach().double().square().sum()) for w in weights.values())
    )
    for name, parameter in model.named_parameters():
        if name in weights:
            torch.testing.assert_close(parameter.grad, 2e-5 * parameter.detach())
        else:
            assert parameter.grad is None, name
