"""Weights in files: saved and loaded whole, or refused in one sentence that names what does not fit."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import attengait
from attengait.errors import AttenGaitError, ParameterError
from attengait.model.config import ModelConfig
from attengait.model.loading import load_model, load_weights, read_weights, save_weights
from attengait.model.net import AttenGait

h5py = pytest.importorskip("h5py")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A run folder with the weights of a tiny network of 5 classes."""
    torch.manual_seed(0)
    save_weights(AttenGait(ModelConfig(num_classes=5)), tmp_path / "model.safetensors")
    return tmp_path


def refusal(path: Path) -> str:
    with pytest.raises(AttenGaitError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_equal_networks_give_equal_files(saved: Path) -> None:
    for attempt in range(5):
        save_weights(load_model(saved), saved / f"{attempt}.safetensors")
        assert (saved / f"{attempt}.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


def test_what_is_no_path_is_refused(saved: Path) -> None:
    for value in (7, None, load_model(saved)):
        with pytest.raises(ParameterError, match=r"^model is of type \w+, but must be a path, or"):
            load_model(value)  # type: ignore[arg-type]


def test_saved_weights_come_back_from_file_and_run_folder(tmp_path: Path) -> None:
    config = ModelConfig(num_classes=5, attention_softmax=False, spatial_reduction="mean", blocks_per_stage=4)
    model = AttenGait(config).train()
    save_weights(model, tmp_path / "model.safetensors")
    for path in (tmp_path, str(tmp_path / "model.safetensors")):
        loaded = attengait.load_model(path)
        assert loaded.config == config
        assert not loaded.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_keras_shapes_give_widths_depth_embedding_and_classes(data: Path) -> None:
    config, _ = read_weights(data / "tiny_weights.hdf5")
    assert config == ModelConfig(widths=(4, 8, 16), part_width=32, embedding_size=8, num_classes=74)


def test_deep_keras_network_is_seen_from_its_layers(shared: Path) -> None:
    config, _ = read_weights(shared / "reference/deep_weights.hdf5")
    assert (config.blocks_per_stage, config.num_classes) == (4, 1000)


def test_keras_suffix_numbers_do_not_matter(data: Path, tmp_path: Path) -> None:
    """As in a process that had built other networks before: every number is larger, and 9 comes before 10."""
    with h5py.File(data / "tiny_weights.hdf5") as source, h5py.File(tmp_path / "w.hdf5", "w") as target:
        for name in source:
            stem, _, number = name.rpartition("_")
            kind, first = (stem, int(number)) if number.isdigit() else (name, 0)
            source.copy(name, target, f"{kind}_{first + 7}")
    expected, state = read_weights(data / "tiny_weights.hdf5")[1], read_weights(tmp_path / "w.hdf5")[1]
    assert expected.keys() == state.keys()
    assert all(torch.equal(expected[name], state[name]) for name in expected)


def test_other_digits_in_the_name_of_a_keras_layer_are_no_number(data: Path, tmp_path: Path) -> None:
    path = editable_copy(data, tmp_path)
    with h5py.File(path, "r+") as file:
        file.move("mat_mul_1", "mat_mul_١")
    assert "does not hold the Keras weights" in refusal(path)


def test_keras_file_without_classifiers_embeds(data: Path, tmp_path: Path) -> None:
    path = editable_copy(data, tmp_path)
    with h5py.File(path, "r+") as file:
        for name in [name for name in file if name.startswith("dense")]:
            del file[name]
    model = load_model(path)
    assert model.config.num_classes == 0
    clips = torch.from_numpy(np.load(data / "tiny_io.npz")["clips_1"])
    assert torch.equal(model.embed(clips), load_model(data / "tiny_weights.hdf5").embed(clips))


def test_other_hdf5_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "sequence.hdf5", "w") as file:  # as the published program keeps its sequences
        file["data"] = np.zeros((3, 64, 64, 3), np.uint8)
        file["group/names"] = ["a", "b"]
    assert "does not hold the Keras weights" in refusal(tmp_path / "sequence.hdf5")


def test_missing_h5py_says_what_to_install(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert refusal(data / "tiny_weights.hdf5").endswith("needs h5py: run pip install . in AttenGait's checkout")


def test_nothing_there_is_said(tmp_path: Path) -> None:
    assert refusal(tmp_path / "typo.safetensors") == f"no weights at {tmp_path / 'typo.safetensors'}"
    assert "holds no model.safetensors" in refusal(tmp_path)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for content in (b"", b"not weights", bytes(1000)):
        path.write_bytes(content)
        assert "is not a whole .safetensors or .hdf5 weights file" in refusal(path)


def test_truncated_safetensors_is_refused(saved: Path) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "is not a whole" in refusal(saved)


def test_truncated_hdf5_is_refused(data: Path, tmp_path: Path) -> None:
    path = editable_copy(data, tmp_path)
    for size in (20, 50_000, 700_000):
        path.write_bytes((data / "tiny_weights.hdf5").read_bytes()[:size])
        assert "readable HDF5" in refusal(path)


def test_safetensors_of_another_program_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(safetensors.torch.save({"weight": torch.zeros(3)}))
    assert "is not a weights file of AttenGait" in refusal(path)


def test_safetensors_with_a_damaged_configuration_are_refused(saved: Path) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"part_width", b"parf_width"))
    assert "model setting is 'parf_width', but must be one of" in refusal(saved)


def test_hdf5_of_another_network_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["dense/kernel:0"] = np.zeros((3, 4), np.float32)
    assert "does not hold the Keras weights of an AttenGait network" in refusal(tmp_path / "other.hdf5")


def test_mismatch_names_the_tensor_and_both_shapes(saved: Path) -> None:
    with pytest.raises(AttenGaitError, match=r"classifier\.weight is \[62, 16, 5\] there, \[62, 16, 7\] in this model"):
        load_weights(AttenGait(ModelConfig(num_classes=7)), saved)


def test_shallow_weights_do_not_fit_the_deep_network(saved: Path) -> None:
    with pytest.raises(
        AttenGaitError, match=r"backbone\.convolutions\.3\.weight is \[16, 8, 3, 3\] there, \[8, 8, 3, 3\]"
    ):
        load_weights(AttenGait(ModelConfig(num_classes=5, blocks_per_stage=4)), saved)


def test_missing_and_surplus_tensors_are_named(saved: Path) -> None:
    with pytest.raises(AttenGaitError, match=r"this model has no tensor classifier\.bias \[62, 5\]"):
        load_weights(AttenGait(ModelConfig()), saved)
    without = saved / "without.safetensors"
    save_weights(AttenGait(ModelConfig()), without)
    with pytest.raises(AttenGaitError, match=r"lacks the tensor classifier\.weight \[62, 16, 9\]"):
        load_weights(AttenGait(ModelConfig(num_classes=9)), without)


def test_refused_weights_leave_the_network_as_it_was(saved: Path) -> None:
    model = AttenGait(ModelConfig(num_classes=7))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(AttenGaitError):
        load_weights(model, saved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_keras_tensor_of_another_shape_is_named(data: Path, tmp_path: Path) -> None:
    path = editable_copy(data, tmp_path)
    with h5py.File(path, "r+") as file:
        name = "attention_conv_2/attention_conv_2/attention_kernel:0"
        del file[name]
        file[name] = np.ones(100, np.float32)
    assert "backbone.attentions.2.weight is [100] there, [121] in this model" in refusal(path)


def editable_copy(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "weights.hdf5"
    shutil.copyfile(data / "tiny_weights.hdf5", path)
    return path


def strange(saved: Path, **changes: object) -> Path:
    """The file, of which somebody changed the description, as of version 0.1.0."""
    path = saved / "model.safetensors"
    description = {"version": 1, "config": {**ModelConfig(num_classes=5).to_dict(), **changes}}
    state = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(state, {"attengait-model": json.dumps(description)}))
    return path


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"num_classes": 10**8}, "num_classes is 100000000, but must be at most 10,000,000"),
        ({"num_classes": 10**6}, "the tensor classifier.weight is [62, 16, 5] there, [62, 16, 1000000] in this model"),
        ({"blocks_per_stage": 10**9}, "blocks_per_stage is 1000000000, but must be at most 100"),
        ({"blocks_per_stage": 100}, "its 100 blocks per stage need 301 convolutions"),
        ({"widths": [65536, 65536, 65536]}, "in this model"),
        ({"widths": None}, "widths is None, but must be three whole numbers"),
        ({"input_channels": "abc"}, "input_channels is 'abc', but must be a list of names"),
        ({"attention_dropout": True}, "attention_dropout is True"),
        ({"attention_softmax": 1}, "attention_softmax is 1, but must be true or false"),
    ],
)
def test_sizes_are_compared_with_the_file_before_anything_is_made(
    saved: Path, changes: dict[str, object], part: str
) -> None:
    path = strange(saved, **changes)
    said = refusal(saved)
    assert str(path) in said
    assert part in said


def test_a_header_that_lies_about_its_size_is_refused(saved: Path) -> None:
    path = saved / "model.safetensors"
    data = path.read_bytes()
    for size in (2**60, 0, len(data)):
        path.write_bytes(size.to_bytes(8, "little") + data[8:])
        said = f"{path} is not a whole .safetensors or .hdf5 weights file: its header does not fit into its"
        assert refusal(saved).startswith(said)


def test_weights_that_are_no_finite_numbers_are_refused(saved: Path) -> None:
    path = strange(saved)
    state = safetensors.torch.load_file(path)
    description = json.dumps({"version": 1, "config": ModelConfig(num_classes=5).to_dict()})
    for value, part in (
        (torch.full((62, 5), float("nan")), "has values that are not finite"),
        (torch.full((62, 5), 1e300, dtype=torch.float64), "has values that are not finite"),
        (torch.ones(62, 5, dtype=torch.int32), "is of type int32, not of floating point"),
    ):
        path.write_bytes(safetensors.torch.save({**state, "classifier.bias": value}, {"attengait-model": description}))
        said = refusal(saved)
        assert str(path) in said
        assert f"the tensor classifier.bias {part}" in said


def test_weights_without_checksums_load_and_say_so_once(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = strange(saved)
    for _ in range(2):
        load_model(path)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{path} carries no checksums")


def test_a_named_pipe_is_no_weights_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.safetensors")
    assert refusal(tmp_path / "w.safetensors").endswith("it is a named pipe, not a file")
