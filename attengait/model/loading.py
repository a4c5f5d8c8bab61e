"""Weights in files: our own safetensors (state + configuration), and the published Keras files.

A weights file holds the plain `state_dict` and, in its metadata, the configuration as JSON, so a file says which
network it belongs to. If a tensor does not fit, the file is refused, and the error names the tensor and both shapes.
No tensor is skipped.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from attengait.errors import AttenGaitError, ParameterError
from attengait.model.config import ModelConfig
from attengait.model.keras import HDF5_MAGIC, read_keras_weights
from attengait.model.net import AttenGait
from attengait.system.files import write_atomically

WEIGHTS_NAME = "model.safetensors"
"""The newest weights in a run folder."""
METADATA_KEY = "attengait-model"
VERSION = 1


def load_model(path: str | os.PathLike[str]) -> AttenGait:
    """The network in a run folder, a .safetensors file or a Keras .hdf5 file, in evaluation mode on the CPU.

    Raises:
        ParameterError: something that is no path.
        AttenGaitError: nothing there, not weights of this network, damaged, or tensors that do not fit.

    >>> model = attengait.load_model("run")
    >>> model.config.channels
    3
    """
    config, state = read_weights(path)
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced
        model = AttenGait(config)
    fit_weights(model, state, Path(path))
    return model.eval()


def load_weights(model: AttenGait, path: str | Path) -> None:
    """Put the weights of a file (any that `load_model` takes) into a network that exists.

    Raises:
        AttenGaitError: as `load_model`, and where the file's tensors differ from the network's in name or shape.
    """
    fit_weights(model, read_weights(path)[1], Path(path))


def save_weights(model: AttenGait, path: Path) -> None:
    """Write the network's state and configuration as safetensors; a reader sees the old file or the new one."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    # One entry: safetensors writes several in any order, and equal networks should give equal files.
    description = json.dumps({"version": VERSION, "config": model.config.to_dict()})
    write_atomically(path, safetensors.torch.save(state, {METADATA_KEY: description}))


def read_weights(path: str | os.PathLike[str]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration and the state in a run folder or weights file. They are not compared with each other here."""
    try:
        path = Path(path)
    except TypeError:
        kind = type(path).__name__
        raise ParameterError(f"model is of type {kind}, but must be a path, or what attengait.train returned") from None
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
    if METADATA_KEY not in metadata:
        raise AttenGaitError(f"{path} is not a weights file of AttenGait: its metadata has no {METADATA_KEY}")
    try:
        description = json.loads(metadata[METADATA_KEY])
        if description["version"] != VERSION:
            found = description["version"]
            raise AttenGaitError(f"{path} is a weights file of version {found!r}, but this program reads {VERSION}")
        return ModelConfig.from_dict(description["config"]), state
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, ParameterError) as error:
        raise AttenGaitError(f"{path} holds an unreadable model configuration: {error}") from error


def fit_weights(model: AttenGait, state: Mapping[str, Tensor], path: Path) -> None:
    """Put a state read from `path` into a network; raises AttenGaitError naming the first tensor that does not fit."""
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
