"""Weights in files: our own safetensors (state + configuration), and the published Keras files.

A weights file holds the plain `state_dict`. Its metadata holds one JSON object: the configuration, a checksum of each
tensor, the digest of the run's record, and a digest of all this. If a tensor does not fit or was damaged, the file is
refused, and the error names the tensor. No tensor is skipped.

Nothing that a file says is believed before it is compared with the file: no network is made, and no tensor read, for
sizes that the file does not have.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from attengait.errors import AttenGaitError, ParameterError
from attengait.model.checksums import check_tensors, checksums, first_not_finite
from attengait.model.config import ModelConfig
from attengait.model.keras import HDF5_MAGIC, read_keras_weights
from attengait.model.net import AttenGait
from attengait.model.run_folder import RECORD_NAME, accepted_digests, check_bound, read_content, warn_unchecked
from attengait.system.documents import is_intact, parse_document, require_keys, seal, shortened
from attengait.system.files import open_regular, write_atomically
from attengait.system.machine import available_memory_bytes

WEIGHTS_NAME = "model.safetensors"
"""The newest weights in a run folder."""
METADATA_KEY = "attengait-model"
VERSION = 1
MAX_HEADER_BYTES = 16 << 20

Shapes = Mapping[str, Sequence[int]]
"""The shapes of tensors, by their names."""


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
    model = _outline(config)
    # The file's tensors become the network's. None is drawn first.
    model.load_state_dict({name: tensor.float().clone() for name, tensor in state.items()}, assign=True)
    return model.eval()


def load_weights(model: AttenGait, path: str | Path) -> None:
    """Put the weights of a file (any that `load_model` takes) into a network that exists.

    Raises:
        AttenGaitError: as `load_model`, and where the file's tensors differ from the network's in name or shape.
    """
    fit_weights(model, read_weights(path)[1], weights_file(path))


def weights_file(path: str | os.PathLike[str]) -> Path:
    """The file that is read for a path: that in a run folder, or the path itself."""
    path = Path(path)
    return path / WEIGHTS_NAME if path.is_dir() else path


def save_weights(model: AttenGait, path: Path, *, record_sha256: str | None = None) -> None:
    """Write the network's state and configuration as safetensors; a reader sees the old file or the new one.

    `record_sha256` is the digest of the run's record that the weights belong to.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content: dict[str, Any] = {"version": VERSION, "config": model.config.to_dict(), "crc32c": checksums(state)}
    if record_sha256 is not None:
        content["record_sha256"] = record_sha256
    # One entry: safetensors writes several in any order, and equal networks should give equal files.
    write_atomically(path, safetensors.torch.save(state, {METADATA_KEY: json.dumps(seal(content))}))


def read_weights(path: str | os.PathLike[str]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration and the state in a run folder or weights file. They fit each other.

    Raises AttenGaitError and ParameterError as `load_model` does.
    """
    try:
        path = Path(path)
    except TypeError:
        kind = type(path).__name__
        raise ParameterError(f"model is of type {kind}, but must be a path, or what attengait.train returned") from None
    run: Path | None = None
    if path.is_dir():
        run, path = path, path / WEIGHTS_NAME
        if not path.exists():
            raise AttenGaitError(f"{run} is not a run folder with saved weights: it holds no {WEIGHTS_NAME}")
    try:
        with open_regular(path) as file:
            magic = file.read(len(HDF5_MAGIC))
            num_bytes = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise AttenGaitError(f"no weights at {path}") from None
    except OSError as error:
        raise AttenGaitError(f"cannot read {path}: {error.strerror or error}") from error
    available = available_memory_bytes()
    if available is not None and num_bytes > available:
        raise AttenGaitError(
            f"{path} has {num_bytes / 1e9:.1f} GB, more than the {available / 1e9:.1f} GB of memory that are left"
        )
    if magic == HDF5_MAGIC:
        config, state = read_keras_weights(path)
        _check_sizes(config, _shapes(state), path)
        _check_values(state, path)
        warn_unchecked(path)
        return config, state
    description, state = _read_safetensors(path, int.from_bytes(magic, "little"), num_bytes)
    _check_values(state, path)
    if run is not None and description.record_sha256 is not None and (run / RECORD_NAME).exists():
        check_bound(path, description.record_sha256, run, _accepted_digests(run))
    return description.config, state


def _accepted_digests(run: Path) -> list[str]:
    try:
        return accepted_digests(read_content(run))
    except ValueError as error:
        raise AttenGaitError(f"{run / RECORD_NAME} is damaged or of another version: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Description:
    """What the metadata of a weights file say."""

    config: ModelConfig
    crc32c: Any
    """The checksums by the names of the tensors; None in a file of version 0.1.0."""
    record_sha256: str | None


def _read_safetensors(path: Path, header_bytes: int, num_bytes: int) -> tuple[_Description, dict[str, Tensor]]:
    what = f"{path} is not a whole .safetensors or .hdf5 weights file"
    if not 0 < header_bytes <= num_bytes - 8:
        raise AttenGaitError(f"{what}: its header does not fit into its {num_bytes:,} bytes")
    if header_bytes > MAX_HEADER_BYTES:
        raise AttenGaitError(f"{what}: its header is larger than {MAX_HEADER_BYTES >> 20} MiB")
    try:
        with safetensors.safe_open(path, "pt") as file:
            description = _describe(path, file.metadata() or {})
            names = list(file.keys())
            _check_sizes(description.config, {name: file.get_slice(name).get_shape() for name in names}, path)
            state = {name: file.get_tensor(name) for name in names}
        if description.crc32c is not None:
            check_tensors(state, description.crc32c)
    except (safetensors.SafetensorError, OSError) as error:
        raise AttenGaitError(f"{what}: {error}") from error
    except ValueError as error:
        raise AttenGaitError(f"{path} is damaged: {error}") from None
    if description.crc32c is None:
        warn_unchecked(path)
    return description, state


def _describe(path: Path, metadata: Mapping[str, str]) -> _Description:
    if METADATA_KEY not in metadata:
        raise AttenGaitError(f"{path} is not a weights file of AttenGait: its metadata has no {METADATA_KEY}")
    try:
        document = parse_document(metadata[METADATA_KEY])
        version = document.get("version")
        if version != VERSION or type(version) is not int:
            found = shortened(version)
            raise AttenGaitError(f"{path} is a weights file of version {found}, but this program reads {VERSION}")
        if "crc32c" in document or "sha256" in document:
            require_keys(document, ("version", "config", "crc32c", "sha256"), ("record_sha256",))
        else:  # version 0.1.0
            require_keys(document, ("version", "config"))
        if not isinstance(document["config"], dict):
            raise ValueError(f"its config is {shortened(document['config'])}, but must be an object")
        config = ModelConfig.from_dict(document["config"])
    except ValueError as error:
        raise AttenGaitError(f"{path} holds an unreadable model configuration: {error}") from error
    if not is_intact(document):
        raise AttenGaitError(f"{path} is damaged: its metadata were changed after they were written")
    return _Description(config=config, crc32c=document.get("crc32c"), record_sha256=document.get("record_sha256"))


def _check_sizes(config: ModelConfig, shapes: Shapes, path: Path) -> None:
    """Raise AttenGaitError unless a file has just the tensors that its configuration asks for. Nothing is allocated."""
    num_convolutions = 1 + len(config.widths) * config.blocks_per_stage
    if num_convolutions > len(shapes):  # before so many layers are made
        raise AttenGaitError(
            f"{path} does not fit: its {config.blocks_per_stage:,} blocks per stage need {num_convolutions:,} "
            f"convolutions, but it holds {len(shapes):,} tensors"
        )
    _check_shapes(shapes_of(config), shapes, path)


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's tensors, without making any."""
    return _shapes(_outline(config).state_dict())


def check_memory(config: ModelConfig) -> None:
    """Raise AttenGaitError where a network is larger than the memory, before any of it is taken."""
    num_bytes = 4 * sum(math.prod(shape) for shape in shapes_of(config).values())
    available = available_memory_bytes()
    if available is not None and num_bytes > available:
        raise AttenGaitError(
            f"the network has {num_bytes / 1e9:,.1f} GB of weights, more than the {available / 1e9:,.1f} GB of memory "
            "that are left: choose a smaller size, num_classes or blocks_per_stage"
        )


def _outline(config: ModelConfig) -> AttenGait:
    """A network whose tensors have shapes, but no values."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return AttenGait(config)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _check_shapes(own: Shapes, there: Shapes, path: Path) -> None:
    for name, shape in own.items():
        if name not in there:
            raise AttenGaitError(f"{path} lacks the tensor {name} {list(shape)} of this model")
        if list(there[name]) != list(shape):
            shapes = f"{list(there[name])} there, {list(shape)} in this model"
            raise AttenGaitError(f"{path} does not fit: the tensor {name} is {shapes}")
    if surplus := sorted(there.keys() - own.keys()):
        raise AttenGaitError(f"{path} does not fit: this model has no tensor {surplus[0]} {list(there[surplus[0]])}")


def fit_weights(model: AttenGait, state: Mapping[str, Tensor], path: Path) -> None:
    """Put a state read from `path` into a network.

    Raises AttenGaitError naming the first tensor that does not fit, or holds something else than finite numbers. Then
    the network is as it was.
    """
    _check_shapes(_shapes(model.state_dict()), _shapes(state), path)
    _check_values(state, path)
    model.load_state_dict(state)


def _check_values(state: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise AttenGaitError(f"{path} does not fit: the tensor {name} is of type {kind}, not of floating point")
    if (damaged := first_not_finite(state)) is not None:
        raise AttenGaitError(f"{path} holds no usable weights: the tensor {damaged} has values that are not finite")
