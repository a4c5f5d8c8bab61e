"""Weights in files: our own safetensors (state + configuration), and the published Keras files.

A weights file holds the plain `state_dict` and, in its metadata, the configuration as JSON, so that a file says by
itself which network it fits. What does not fit is refused with the tensor and both shapes named; nothing is skipped.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from attengait.errors import AttenGaitError, ParameterError
from attengait.files import write_atomically
from attengait.model.config import ModelConfig
from attengait.model.keras import HDF5_MAGIC, read_keras_weights
from attengait.model.net import AttenGait

WEIGHTS_NAME = "model.safetensors"
"""The newest weights in a run folder."""
FORMAT = "attengait-model"


def load_model(path: str | Path) -> AttenGait:
    """The network in a run folder, a .safetensors file or a Keras .hdf5 file, in evaluation mode on the CPU.

    Raises:
        AttenGaitError: nothing there, not weights of this network, damaged, or tensors that do not fit.
    """
    config, state = read_weights(path)
    model = AttenGait(config)
    _fit(model, state, Path(path))
    return model.eval()


def load_weights(model: AttenGait, path: str | Path) -> None:
    """Put the weights of a file (any that `load_model` takes) into a network that exists.

    Raises:
        AttenGaitError: as `load_model`, and where the file's tensors differ from the network's in name or shape.
    """
    _fit(model, read_weights(path)[1], Path(path))


def save_weights(model: AttenGait, path: Path) -> None:
    """Write the network's state and configuration as safetensors; a reader sees the old file or the new one."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"format": FORMAT, "version": "1", "config": json.dumps(model.config.to_dict())}
    write_atomically(path, safetensors.torch.save(state, metadata))


def read_weights(path: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration and the state in a run folder or weights file, not yet compared with each other."""
    path = Path(path)
    if path.is_dir():
        path = path / WEIGHTS_NAME
        if not path.exists():
            raise AttenGaitError(f"{path.parent} is not a run folder with saved weights: it holds no {WEIGHTS_NAME}")
    try:
        with path.open("rb") as file:
            magic = file.read(len(HDF5_MAGIC))
    except FileNotFoundError:
        raise AttenGaitError(f"no weights at {path}") from None
    except OSError as error:
        raise AttenGaitError(f"cannot read {path}: {error.strerror}") from error
    return read_keras_weights(path) if magic == HDF5_MAGIC else _read_safetensors(path)


def _read_safetensors(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise AttenGaitError(f"{path} is not a whole .safetensors or .hdf5 weights file: {error}") from error
    if metadata.get("format") != FORMAT or metadata.get("version") != "1":
        found = f"format {metadata.get('format')!r}, version {metadata.get('version')!r}"
        raise AttenGaitError(f"{path} is not a weights file of AttenGait, version 1 (its metadata says {found})")
    try:
        return ModelConfig.from_dict(json.loads(metadata["config"])), state
    except (KeyError, TypeError, json.JSONDecodeError, ParameterError) as error:
        raise AttenGaitError(f"{path} holds an unreadable model configuration: {error}") from error


def _fit(model: AttenGait, state: Mapping[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise AttenGaitError(f"{path} lacks the tensor {name} {list(tensor.shape)} of this model")
        if state[name].shape != tensor.shape:
            shapes = f"{list(state[name].shape)} there, {list(tensor.shape)} in this model"
            raise AttenGaitError(f"{path} does not fit: the tensor {name} is {shapes}")
    if surplus := sorted(state.keys() - own.keys()):
        shape = list(state[surplus[0]].shape)
        raise AttenGaitError(f"{path} does not fit: this model has no tensor {surplus[0]} {shape}")
    model.load_state_dict(state)
