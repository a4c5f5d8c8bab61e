"""The network and its losses compute what the published TensorFlow program computes."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from attengait.model.keras import _kind_and_number
from attengait.model.loading import load_model
from attengait.model.losses import cross_entropy, l2_penalty, triplet_loss, triplet_loss_per_part
from attengait.model.net import AttenGait
from attengait.training.schedule import learning_rate

EMBEDDING_TOLERANCE = 1e-4  # absolute; also for probabilities


def relative_error(ours: Tensor | float, theirs: np.ndarray) -> float:
    """Norm of the difference over the norm of the reference."""
    ours = np.asarray(ours.detach() if isinstance(ours, Tensor) else ours, np.float64)
    assert np.linalg.norm(theirs) > 0
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def check_embeddings(folder: Path, name: str) -> None:
    model = load_model(folder / f"{name}_weights.hdf5")
    io = np.load(folder / f"{name}_io.npz")
    for i in [i for i in range(2) if f"clips_{i}" in io]:
        embeddings = model.embed(torch.from_numpy(io[f"clips_{i}"]))
        probabilities = model.classify(embeddings).softmax(-1)
        assert embeddings.dtype == torch.float32
        np.testing.assert_allclose(embeddings.transpose(0, 1), io[f"encode_{i}"], rtol=0, atol=EMBEDDING_TOLERANCE)
        np.testing.assert_allclose(probabilities.detach(), io[f"probs_{i}"], rtol=0, atol=EMBEDDING_TOLERANCE)
    if "features_1" in io:  # the vector used for recognition: part after part
        np.testing.assert_allclose(embeddings.flatten(1), io["features_1"], rtol=0, atol=EMBEDDING_TOLERANCE)


def test_tiny_network_embeds_and_classifies_as_published(data: Path) -> None:
    check_embeddings(data, "tiny")


def test_deep_network_embeds_and_classifies_as_published(shared: Path) -> None:
    check_embeddings(shared / "reference", "deep")


def test_copied_references_are_the_shared_ones(data: Path, shared: Path) -> None:
    for name in ("tiny_weights.hdf5", "tiny_io.npz", "losses.npz"):
        assert (data / name).read_bytes() == (shared / "reference" / name).read_bytes()


@pytest.mark.parametrize("case", range(4), ids=["plain", "normalised", "soft margin", "no active triplet"])
def test_triplet_loss_and_gradient_are_the_published_ones(data: Path, case: int) -> None:
    losses = np.load(data / "losses.npz")
    embeddings = torch.from_numpy(losses[f"triplet{case}_embeddings"]).transpose(0, 1).requires_grad_()
    labels = torch.from_numpy(losses[f"triplet{case}_labels"])
    margin, normalised, soft = losses[f"triplet{case}_margin_norm_soft"]
    options = {"margin": float(margin), "normalised": bool(normalised), "soft_margin": bool(soft)}
    per_part = triplet_loss_per_part(embeddings, labels, **options)
    loss = triplet_loss(embeddings, labels, **options)
    loss.backward()
    # The original's distance of a clip to itself is rounding noise, ours is 0; in one part the soft margin shows it.
    np.testing.assert_allclose(per_part.detach(), losses[f"triplet{case}_per_part"], rtol=2e-5 if soft else 1e-5)
    np.testing.assert_allclose(loss.item(), losses[f"triplet{case}_batch_loss"], rtol=1e-5)
    expected = losses[f"triplet{case}_grad"]
    assert np.linalg.norm(embeddings.grad.transpose(0, 1).numpy() - expected) <= 1e-3 * np.linalg.norm(expected)


def test_cross_entropy_and_gradient_are_the_published_ones(data: Path) -> None:
    losses = np.load(data / "losses.npz")
    logits = torch.from_numpy(losses["ce_logits"]).requires_grad_()
    targets = torch.from_numpy(losses["ce_targets"])
    loss = cross_entropy(logits, targets)
    loss.backward()
    per_sample = [cross_entropy(logits[i : i + 1], targets[i : i + 1]).item() for i in range(len(logits))]
    np.testing.assert_allclose(loss.item(), losses["ce_batch_loss"], rtol=1e-5)
    np.testing.assert_allclose(per_sample, losses["ce_per_sample"], rtol=1e-5)
    assert relative_error(logits.grad, losses["ce_grad"]) < 1e-3


@pytest.mark.parametrize("name", ["casiab", "short"])
def test_learning_rate_is_the_published_schedule(data: Path, name: str) -> None:
    losses = np.load(data / "losses.npz")
    warmup, total, base = losses[f"lr_{name}_args"]
    ours = [learning_rate(int(step), base, int(warmup), int(total)) for step in losses[f"lr_{name}_steps"]]
    np.testing.assert_allclose(ours, losses[f"lr_{name}_values"], rtol=1e-5, atol=1e-6 * base)


def keras_gradient(model: AttenGait, name: str) -> Tensor:
    """Our gradient of the tensor that Keras calls `name`, in Keras's layout."""
    layer, *middle, tensor = name.split("/")
    kind, number = _kind_and_number(layer)
    field = {"gamma:0": "gain", "beta:0": "bias"}.get(tensor, "weight")
    if kind in ("hpp", "temporal_hpp"):
        pyramid = model.spatial if kind == "hpp" else model.temporal
        gradient = pyramid.kernels[int((re.findall(r"_(\d+)$", middle[0]) or ["0"])[0])].grad
        return gradient.unsqueeze(-2)
    if kind == "time_distributed":
        return model.backbone.convolutions[number].weight.grad.permute(2, 3, 1, 0)
    if kind == "dense":
        return getattr(model.classifier, "bias" if tensor == "bias:0" else "weight").grad[number]
    if kind == "attention_conv":
        module = model.backbone.attentions[number]
    elif kind == "mat_mul":
        module = (model.part_linear, model.embedding_linear)[number]
    else:
        assert kind == "attention_hpp", name
        names = ("spatial_attention", "temporal_attention", "part_attention", "embedding_attention")
        module = getattr(model, names[number])
    return getattr(module, field).grad


def test_one_training_step_has_the_published_losses_and_gradients(shared: Path) -> None:
    model = load_model(shared / "reference/step_weights.hdf5")
    io = np.load(shared / "reference/step_io.npz")
    embeddings = model(torch.from_numpy(io["clips"]))
    losses = {
        "triplet": triplet_loss(embeddings, torch.from_numpy(io["labels"])),
        "crossentropy": cross_entropy(model.classify(embeddings), torch.from_numpy(io["onehot"])),
        "l2": l2_penalty(model),
    }
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    for name, loss in (losses | {"total": total}).items():
        np.testing.assert_allclose(loss.item(), io[name], rtol=1e-4, err_msg=name)
    names = [name.removeprefix("grad:") for name in io if name.startswith("grad:")]
    assert len(names) == 56
    errors = {name: relative_error(keras_gradient(model, name), io[f"grad:{name}"]) for name in names}
    assert max(errors.values()) < 1e-3, errors
