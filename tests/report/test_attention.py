"""The picture of attention shows the numbers of the network where they belong."""

import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_stores import make_store

from attengait.errors import AttenGaitError, ParameterError
from attengait.model.config import ModelConfig
from attengait.model.loading import save_weights
from attengait.model.net import AttenGait
from attengait.pipelines import attention as gluing
from attengait.pipelines.attention import show_attention
from attengait.report.attention import attention_of, draw_attention

attengait = import_module("command").attengait


def network(*, softmax: bool = True, channels: int = 3) -> AttenGait:
    torch.manual_seed(0)
    config = ModelConfig.of_size("tiny", channels=channels, blocks_per_stage=1, attention_softmax=softmax)
    made = AttenGait(config)
    for name, parameter in made.named_parameters():
        if name.endswith("weight") and "attention" in name:
            parameter.data.add_(torch.randn_like(parameter))
    return made


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_weights(network(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize("softmax", [True, False])
def test_the_attention_of_each_pixel_is_that_of_the_layer(softmax: bool) -> None:
    made = network(softmax=softmax).eval()
    found = attention_of(made)
    assert [layer.size_px for layer in found.layers] == [64, 32, 16, 16]
    for layer, module in zip(found.layers, made.backbone.attentions, strict=True):
        factor = 64 // layer.size_px
        expected = module.pixel_scalars().double() * (module.patches_per_side**2 if softmax else 1)
        np.testing.assert_allclose(layer.picture()[::factor, ::factor], expected.detach(), rtol=1e-6)
        np.testing.assert_array_equal(layer.picture()[factor - 1 :: factor], layer.picture()[::factor])
        if softmax:
            assert layer.patches.mean() == pytest.approx(1)


def test_parts_lie_along_the_body_bin_by_bin() -> None:
    made = network()
    spatial = made.spatial_attention.eval().scalars().detach().double() * 31
    table = attention_of(made).parts["spatial pyramid"]
    assert table.shape == (16, 5)
    np.testing.assert_allclose(table[:, 0], spatial[:16])
    np.testing.assert_allclose(table[::2, 1], spatial[16:24])
    np.testing.assert_allclose(table[[0, 7, 8, 15], 3], spatial[[28, 28, 29, 29]])
    np.testing.assert_allclose(table[:, 4], spatial[30].repeat(16))
    whole = made.part_attention.eval().scalars().detach().double() * 62
    np.testing.assert_allclose(attention_of(made).parts["parts, temporal"][:, 0], whole[31:47])


def test_dropout_changes_nothing_and_the_mode_stays() -> None:
    made = network().train()
    first, second = attention_of(made), attention_of(made)
    assert all(np.array_equal(a.patches, b.patches) for a, b in zip(first.layers, second.layers, strict=True))
    assert all(module.training for module in made.modules())


@pytest.mark.parametrize("rows", [0, 2, 50])
def test_a_row_for_the_mean_and_one_for_each_sequence(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=(5, 7, 9), frame_shape=(64, 64, 3))
    drawn, draw = [], gluing.draw_attention

    def hear(found, pictures, out):
        drawn.append(pictures)
        draw(found, pictures, out)

    monkeypatch.setattr(gluing, "draw_attention", hear)
    show_attention(weights, tmp_path / "a.png", store=store.path, rows=rows)
    names, pictures = zip(*drawn[0], strict=True)
    indices = {0: [], 2: [0, 2], 50: [0, 1, 2]}[rows]
    assert names == ("mean of 3", *(store.sequences.name(index) for index in indices))
    with store.reader() as reader:
        clips = reader.read_clips(store.sequences.start, store.sequences.length)
    means = [clip.mean(0) for clip in clips]
    for picture, expected in zip(pictures, [np.mean(means, 0), *(means[index] for index in indices)], strict=True):
        np.testing.assert_allclose(picture, expected, atol=0.51)
    assert cv2.imread(str(tmp_path / "a.png")).shape[0] > 300 * len(drawn[0])


def test_what_cannot_be_drawn_is_refused_before_anything_is_read(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ParameterError, match=r"out is .*a\.jpg, but must be a file that ends in \.png"):
        show_attention(weights, tmp_path / "a.jpg")
    with pytest.raises(ParameterError, match="rows is -1, but must be at least 0"):
        show_attention(weights, tmp_path / "a.png", rows=-1)
    with pytest.raises(AttenGaitError, match="no weights at"):
        show_attention(tmp_path / "none", tmp_path / "a.png")
    store = make_store(tmp_path / "gray.zarr", lengths=(5,), frame_shape=(64, 64, 1))
    with pytest.raises(AttenGaitError, match=r"takes frames of 3 channels, but .*gray\.zarr has 1"):
        show_attention(weights, tmp_path / "a.png", store=store.path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(AttenGaitError, match="a plot needs matplotlib"):
        show_attention(weights, tmp_path / "a.png")
    assert not list(tmp_path.glob("a.*"))


def test_a_sequence_whose_name_looks_like_a_formula_is_drawn(tmp_path: Path) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    draw_attention(attention_of(network()), [(r"a/$\bad{x$/090", picture)], tmp_path / "a.png")
    assert cv2.imread(str(tmp_path / "a.png")) is not None


def test_the_command_says_each_layer(weights: Path, tmp_path: Path) -> None:
    done = attengait("attention", weights, "--out", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["layer 1", "layer 2", "layer 3", "layer 4"]
    assert lines[0].startswith("layer 1: map 64 x 64, 22 x 22 patches: ")
    assert lines[-1] == str(tmp_path / "a.png")
    assert cv2.imread(str(tmp_path / "a.png")) is not None
