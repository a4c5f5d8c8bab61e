"""The network: sizes, sequences of any length, ragged batches, half precision, how it starts."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attengait.errors import ParameterError
from attengait.model.config import SIZES, ModelConfig
from attengait.model.loading import load_model
from attengait.model.losses import penalised_weights
from attengait.model.net import AttenGait
from attengait.model.pyramids import BINS, SpatialPyramid, TemporalPyramid


@pytest.fixture(scope="module")
def model(data: Path) -> AttenGait:
    """Random weights whose attention and LayerNorm are random too."""
    return load_model(data / "tiny_weights.hdf5")


@pytest.fixture(scope="module")
def clip(data: Path) -> Tensor:
    """One flow clip of 47 frames, uint8 [1, 47, 64, 64, 3]."""
    return torch.from_numpy(np.load(data / "tiny_io.npz")["clips_1"])


def relative(ours: Tensor, theirs: Tensor) -> float:
    difference = torch.linalg.vector_norm(ours.detach().float() - theirs.detach())
    return float(difference / torch.linalg.vector_norm(theirs.detach()))


@pytest.mark.parametrize(("size", "parts_in", "size_d"), [("tiny", 32, 16), ("small", 128, 32), ("large", 512, 32)])
def test_sizes_have_the_published_widths(size: str, parts_in: int, size_d: int) -> None:
    with torch.device("meta"):
        model = AttenGait(ModelConfig.of_size(size, num_classes=74))
    assert model.part_linear.weight.shape == (62, parts_in, SIZES[size]["part_width"])
    assert model.classifier is not None
    assert model.classifier.weight.shape == (62, size_d, 74)
    assert len(model.backbone.convolutions) == 7
    assert [attention.weight.numel() for attention in model.backbone.attentions] == [484, 484, 121, 121, 36, 36, 36]


def test_deep_network_has_four_blocks_per_stage() -> None:
    model = AttenGait(ModelConfig(blocks_per_stage=4))
    assert len(model.backbone.convolutions) == 13
    assert [attention.weight.numel() for attention in model.backbone.attentions] == [484] * 4 + [121] * 4 + [36] * 5


def test_one_channel_and_no_classifier_are_possible() -> None:
    model = AttenGait(ModelConfig(channels=1)).eval()
    embeddings = model.embed(torch.zeros(1, 16, 64, 64, 1, dtype=torch.uint8))
    assert embeddings.shape == (1, 62, 16)
    with pytest.raises(ParameterError, match="num_classes is 0, but must be at least 1"):
        model.classify(embeddings)


@pytest.mark.parametrize("length", [1, 7, 15])
def test_short_sequences_are_repeated_to_sixteen_frames(model: AttenGait, clip: Tensor, length: int) -> None:
    short = clip[:, :length]
    repeated = short[:, torch.arange(16) % length]
    torch.testing.assert_close(model.embed(short), model.embed(repeated), rtol=1e-5, atol=1e-5)


def test_frames_beyond_the_last_whole_window_count_only_where_they_fit(model: AttenGait, clip: Tensor) -> None:
    maps = model.backbone(clip[0].float().div(127.5).sub(1))[None]
    changed = maps.clone()
    changed[:, 46] += 1  # 47 frames: bin 1 sees the last one, the others do not
    before, after = model.temporal(maps), model.temporal(changed)
    assert not torch.equal(before[:, :16], after[:, :16])
    assert torch.equal(before[:, 16:], after[:, 16:])
    torch.testing.assert_close(model.temporal(maps[:, :32])[:, -1], before[:, -1])  # 16-frame windows: 2, tail of 15


def test_ragged_batch_equals_one_by_one(model: AttenGait, clip: Tensor) -> None:
    lengths = [30, 30, 17, 5, 1, 16, 47]
    sequences = [clip[:, :length].flip(1) for length in lengths]
    frames = torch.cat([sequence[0] for sequence in sequences])
    together = model.embed_ragged(frames, torch.tensor(lengths), chunk_frames=37)
    alone = torch.cat([model.embed(sequence) for sequence in sequences])
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_pyramids_equal_sliding_convolutions() -> None:
    config = ModelConfig(widths=(4, 4, 8))
    spatial, temporal = SpatialPyramid(config), TemporalPyramid(config)
    x = torch.randn(2, 21, 16, 16, 8)
    planes = (x.mean(1) + x.amax(1)).permute(0, 3, 1, 2)
    expected = []
    for b, kernel in zip(BINS, spatial.kernels, strict=True):
        y = torch.nn.functional.conv2d(planes, kernel.permute(2, 0, 1)[:, None], stride=b, groups=8)
        expected.append(torch.nn.functional.silu(y[..., 0]).transpose(1, 2))
    torch.testing.assert_close(spatial(x), torch.cat(expected, 1), rtol=1e-4, atol=1e-5)
    volume = x.permute(0, 4, 1, 2, 3)
    expected = []
    for b, kernel in zip(BINS, temporal.kernels, strict=True):
        weight = kernel.permute(3, 0, 1, 2)[:, None]
        y = torch.nn.functional.conv3d(volume, weight, stride=(b, b, 16), groups=8)[..., 0]  # [N, C, S, R]
        y = torch.nn.functional.silu(y)
        expected.append((y.mean(2) + y.amax(2)).transpose(1, 2))
    torch.testing.assert_close(temporal(x), torch.cat(expected, 1), rtol=1e-4, atol=1e-5)


def test_mean_reduction_leaves_the_maximum_out() -> None:
    spatial = SpatialPyramid(ModelConfig(spatial_reduction="mean"))
    x = torch.randn(2, 16, 16, 16, 32)
    torch.testing.assert_close(spatial(x), spatial(x.mean(1, keepdim=True)))


def test_floating_frames_in_range_equal_uint8_frames(model: AttenGait, clip: Tensor) -> None:
    floating = torch.clip(2 * (clip.float() / 255 - 0.5), -1, 1)
    torch.testing.assert_close(model(floating), model(clip), rtol=1e-5, atol=1e-5)


def test_bfloat16_embeddings_and_gradients_are_close_to_float32(model: AttenGait, clip: Tensor) -> None:
    def run() -> tuple[Tensor, dict[str, Tensor]]:
        embeddings = model(clip[:, :16])
        loss = (embeddings * torch.linspace(-1, 1, 8)).sum()
        names, weights = zip(*penalised_weights(model).items(), strict=True)
        return embeddings, dict(zip(names, torch.autograd.grad(loss, weights), strict=True))

    expected, expected_gradients = run()
    with torch.autocast("cpu", torch.bfloat16):
        embeddings, gradients = run()
    assert embeddings.dtype == torch.float32
    assert relative(embeddings, expected) < 0.03
    flat = [torch.cat([gradient.flatten() for gradient in g.values()]) for g in (gradients, expected_gradients)]
    assert all(gradient.isfinite().all() for gradient in flat)
    assert relative(*flat) < 0.1


def test_a_step_with_most_attention_dropped_is_finite() -> None:
    torch.manual_seed(0)
    model = AttenGait(ModelConfig(attention_dropout=0.9)).train()
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = model(torch.randint(0, 256, (2, 16, 64, 64, 3), dtype=torch.uint8))
    embeddings.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_embedding_keeps_no_graph_and_leaves_the_mode_alone(model: AttenGait, clip: Tensor) -> None:
    expected = model.embed(clip[:, :16])
    assert not expected.requires_grad
    assert not model.training
    model = copy.deepcopy(model).train()
    model.backbone.eval()
    before = {name: module.training for name, module in model.named_modules()}
    assert torch.equal(model.embed(clip[:, :16]), expected)  # without dropout
    assert {name: module.training for name, module in model.named_modules()} == before


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 16, 64, 64, 1), torch.uint8), ((1, 16, 32, 64, 3), torch.uint8), ((1, 16, 64, 64, 3), torch.float32)],
)
def test_frames_of_another_shape_or_type_are_refused(model: AttenGait, shape: tuple[int, ...], dtype: object) -> None:
    kind, (_, _, *pixels) = str(dtype).removeprefix("torch."), shape
    sentence = f"frames is {kind} {[16, *pixels]}, but must be uint8 [M, 64, 64, 3]"
    with pytest.raises(ParameterError, match=f"^{re.escape(sentence)}$"):
        model.embed(torch.zeros(shape, dtype=dtype))


def test_one_sequence_a_list_and_a_batch_are_embedded_alike(model: AttenGait, clip: Tensor) -> None:
    whole = clip[0]
    expected = model.embed(clip)
    assert torch.equal(model.embed(whole), expected[0])
    several = model.embed([whole, whole[:20].numpy(), whole[:3]])
    assert several.dtype == torch.float32
    for one, length in zip(several, (47, 20, 3), strict=True):
        torch.testing.assert_close(one, model.embed(whole[:length]), rtol=1e-5, atol=1e-5)


def test_arrays_that_are_read_only_or_mirrored_are_embedded_as_tensors_are(model: AttenGait, clip: Tensor) -> None:
    array = clip[0].numpy().copy()
    assert torch.equal(model.embed(array[:, :, ::-1]), model.embed(clip[0].flip(2)))
    array.flags.writeable = False
    assert torch.equal(model.embed(array), model.embed(clip[0]))


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ([], r"frames is \[\], but must be at least one sequence"),
        (np.zeros((64, 64, 3), np.uint8), r"frames is \[64, 64, 3\], but must be \[T, 64, 64, 3\] or \[N, T, "),
        (np.zeros((9, 64, 64, 3), ">u2"), r"frames is >u2 \[9, 64, 64, 3\], but must be uint8 \[M, 64, 64, 3\]"),
        (np.zeros((9, 64, 64, 3), object), r"frames is object \[9, 64, 64, 3\], but must be uint8"),
        ([np.zeros((9, 64, 64, 3), np.uint8), np.zeros((9, 64, 64, 1), np.uint8)], r"frames is uint8 \[9, 64, 64, 1\]"),
        (np.zeros((0, 64, 64, 3), np.uint8), r"lengths is \[0\], but must be at least 1 each"),
        (7, "frames is of type int, but must be NumPy arrays or torch tensors, one or several"),
        ([1, 2], "frames is of type int, but must be NumPy arrays"),
        ("walkers.zarr", "frames is of type str, but must be NumPy arrays"),
    ],
)
def test_what_is_no_sequence_is_refused(model: AttenGait, frames: Any, sentence: str) -> None:
    with pytest.raises(ParameterError, match=f"^{sentence}"):
        model.embed(frames)


def test_lengths_that_do_not_add_up_are_refused(model: AttenGait, clip: Tensor) -> None:
    for lengths in ([46], [48], [0, 47], []):
        with pytest.raises(ParameterError, match="add up to the 47 frames"):
            model.embed_ragged(clip[0], lengths)


def test_new_weights_fill_the_bounds_that_keras_would_use() -> None:
    torch.manual_seed(0)
    model = AttenGait(ModelConfig(num_classes=10))

    def limit(receptive_field: int, inputs: int, outputs: int) -> float:
        return (6 / (receptive_field * (inputs + outputs))) ** 0.5

    bounds = {
        model.backbone.convolutions[0].weight: limit(25, 3, 8),
        model.backbone.convolutions[6].weight: limit(9, 32, 32),
        model.spatial.kernels[2]: limit(4 * 16, 1, 32),
        model.temporal.kernels[3]: limit(8 * 8 * 16, 1, 32),
        model.part_linear.weight: limit(62, 32, 64),
        model.embedding_linear.weight: limit(62, 64, 16),
        model.classifier.weight: limit(1, 16, 10),
    }
    for weight, bound in bounds.items():
        assert weight.abs().max() <= bound
        assert weight.max() > 0.95 * bound
        assert weight.min() < -0.95 * bound
    for name, parameter in model.named_parameters():
        if name.endswith((".bias", "attention.weight", ".gain")) or "attentions" in name:
            assert (parameter == (0 if name.endswith(".bias") else 1)).all(), name


def test_penalty_covers_kernels_and_attention_only() -> None:
    model = AttenGait(ModelConfig(num_classes=10))
    names = set(penalised_weights(model))
    assert "backbone.convolutions.0.weight" in names
    assert "backbone.attentions.6.weight" in names
    assert {"spatial.kernels.0", "temporal.kernels.4", "part_linear.weight", "embedding_attention.weight"} <= names
    assert len(names) == 7 + 7 + 10 + 2 + 4
    assert not any("classifier" in name or name.endswith((".bias", ".gain")) for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (8, 16)}, "widths"),
        ({"channels": 0}, "channels"),
        ({"num_classes": -1}, "num_classes"),
        ({"attention_dropout": 1.0}, "attention_dropout"),
        ({"spatial_reduction": "max"}, "spatial_reduction"),
        ({"depth": 4}, "model setting is 'depth', but must be one of blocks_per_stage"),
    ],
)
def test_bad_settings_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ModelConfig.of_size("tiny", **change)


def test_unknown_size_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ParameterError, match="size is 'huge', but must be one of tiny, small, medium, large"):
        ModelConfig.of_size("huge")


def test_configuration_survives_json() -> None:
    config = ModelConfig.of_size("small", num_classes=74, blocks_per_stage=4, spatial_reduction="mean")
    assert ModelConfig.from_dict(config.to_dict()) == config
