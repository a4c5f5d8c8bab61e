"""A model can be trained on some channels of a store, and takes these from whatever store has them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_stores import make_store

from attengait.errors import AttenGaitError, ParameterError
from attengait.model.config import ModelConfig
from attengait.model.loading import load_model
from attengait.pipelines.channels import channels_for, take_channels
from attengait.pipelines.embed import embed
from attengait.pipelines.train import train_run
from attengait.store import Store
from attengait.store.description import channel_names, select_channels
from attengait.training.config import TrainingConfig, make_config

BOTH = {
    "modality": "silhouette+flow",
    "encoding": "gray+uv",
    "encoding_steps_per_px": 8,
    "channels": ["silhouette", "flow-u", "flow-v"],
}
FLOW = {"modality": "flow", "encoding": "uv", "encoding_steps_per_px": 8}


def store_of(path: Path, channels: int, attributes: dict[str, Any]) -> Store:
    shape = (64, 64, channels)
    return make_store(path, lengths=(18,) * 6, shard_frames=32, frame_shape=shape, attributes=attributes)


def config(**settings: Any) -> TrainingConfig:
    small = {"size": "tiny", "subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 16, "stop_after_steps": 1}
    return make_config({**small, "precision": "fp32", "device": "cpu", **settings})


@pytest.mark.parametrize(
    ("attributes", "channels", "names"),
    [
        (BOTH, 3, ("silhouette", "flow-u", "flow-v")),
        (FLOW, 2, ("flow-u", "flow-v")),
        ({"encoding": "colour"}, 3, ("flow-r", "flow-g", "flow-b")),
        ({"encoding": "gray+colour"}, 4, ("silhouette", "flow-r", "flow-g", "flow-b")),
        ({"encoding": "gray"}, 1, ("silhouette",)),
        ({"encoding": "unknown"}, 2, ("0", "1")),
        ({}, 3, ("0", "1", "2")),
    ],
)
def test_channels_have_names(attributes: dict[str, Any], channels: int, names: tuple[str, ...]) -> None:
    assert channel_names(attributes, channels) == names


def test_channels_are_chosen_by_name_or_kind_in_the_store_s_order() -> None:
    names = ("silhouette", "flow-u", "flow-v")
    assert select_channels(names, ()) == [0, 1, 2]
    assert select_channels(names, ("flow",)) == [1, 2]
    assert select_channels(names, ("flow-v", "silhouette")) == [0, 2]
    with pytest.raises(ParameterError, match="channels is 'depth', but must be some of silhouette, flow, flow-u"):
        select_channels(names, ("depth",))


def test_frames_keep_the_channels_that_are_taken() -> None:
    frames = torch.arange(24, dtype=torch.uint8).view(2, 3, 4)
    assert take_channels(frames, [0, 1, 2, 3]) is frames
    assert torch.equal(take_channels(frames, [3, 1]), frames[..., [3, 1]])


def test_a_run_on_some_channels_trains_and_embeds_them_alone(tmp_path: Path) -> None:
    both = store_of(tmp_path / "both.zarr", 3, BOTH)
    train_run(both.path, tmp_path / "run", config(channels=("flow",)))
    model = load_model(tmp_path / "run")
    assert (model.config.channels, model.config.input_channels) == (2, ("flow-u", "flow-v"))
    found = embed(tmp_path / "run", both.path, subjects=["001"])
    frames = torch.from_numpy(both[0][None, ..., 1:].copy())
    np.testing.assert_allclose(found.features[0], model.embed(frames)[0].numpy(), atol=1e-5)
    # The weights alone know it, too; and a store of flow alone has what the model takes.
    weights = embed(tmp_path / "run" / "model.safetensors", both.path, subjects=["001"])
    np.testing.assert_array_equal(weights.features, found.features)
    flow = store_of(tmp_path / "flow.zarr", 2, FLOW)
    assert len(embed(tmp_path / "run", flow.path, subjects=["001"])) == 2


def test_a_store_without_the_channels_is_refused(tmp_path: Path) -> None:
    silhouettes = store_of(tmp_path / "s.zarr", 1, {"modality": "silhouette", "encoding": "gray"})
    model = ModelConfig(channels=2, input_channels=("flow-u", "flow-v"))
    with pytest.raises(AttenGaitError, match=r"takes the channels flow-u, flow-v, but .*s\.zarr has silhouette"):
        channels_for(model, silhouettes)
    with pytest.raises(ParameterError, match="channels is 'flow', but must be some of silhouette"):
        train_run(silhouettes.path, tmp_path / "run", config(channels=("flow",)))


def test_resuming_with_other_channels_is_refused(tmp_path: Path) -> None:
    both = store_of(tmp_path / "both.zarr", 3, BOTH)
    train_run(both.path, tmp_path / "run", config(channels=("flow",)))
    with pytest.raises(ParameterError, match="channels"):
        train_run(both.path, tmp_path / "run", config(channels=("silhouette",)), resume=True)


def test_names_that_do_not_fit_the_channels_are_refused() -> None:
    with pytest.raises(ParameterError, match="input_channels"):
        ModelConfig(channels=3, input_channels=("flow-u",))
