"""Reading the weights that the paper's Keras code saved (HDF5).

The file holds one group per layer. Suffix numbers (`attention_conv_12`) depend on what else the process had built, so
layers are matched by kind and order of creation. Widths, depth, D and classes follow from the shapes.

Keras stores convolutions [kh, kw, in, out] and the pyramids' depthwise kernels [b, 16, 1, C] and [b, b, 16, 1, C].
"""

import importlib.util
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attengait.errors import AttenGaitError, how_to_install
from attengait.model.config import ModelConfig
from attengait.system.hdf5 import MAX_BYTES, check_numbers, datasets, member, open_hdf5
from attengait.system.printable import printable

if TYPE_CHECKING:
    import h5py

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

_Array = npt.NDArray[np.float32]
_Layer = dict[str, list[_Array]]
"""One layer's arrays by the last part of their name (kernel, bias, gamma, ...), kernels in order of size."""


def read_keras_weights(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration and the state of the network in a Keras HDF5 file.

    Raises:
        AttenGaitError: h5py is not installed, the file is damaged, or it does not hold an AttenGait network.
    """
    if importlib.util.find_spec("h5py") is None:
        raise AttenGaitError(f"reading Keras weights needs h5py: {how_to_install()}")
    with open_hdf5(path) as file:
        weights = member(file, "model_weights")
        kinds = _layers(file if weights is None else weights)
    try:
        return _config(kinds), _state(kinds)
    except (LookupError, ValueError) as error:
        raise AttenGaitError(
            f"{path} does not hold the Keras weights of an AttenGait network: {printable(error)}"
        ) from error


def _layers(root: "h5py.Group") -> dict[str, list[_Layer]]:
    """Layers that hold weights, by kind, in order of creation."""
    layers: dict[str, _Layer] = {}
    num_bytes = 0
    for path, dataset in datasets(root):
        name, _, rest = path.partition("/")
        if not rest or dataset.shape is None or dataset.dtype.kind != "f":  # a dataset at the top is no layer
            continue
        check_numbers(dataset)
        num_bytes += math.prod(dataset.shape) * np.dtype(np.float32).itemsize
        if num_bytes > MAX_BYTES:
            raise AttenGaitError(f"{printable(dataset.file.filename)} holds more than {MAX_BYTES:,} bytes of weights")
        kept = layers.setdefault(name, {}).setdefault(rest.rpartition("/")[2].split(":")[0], [])
        kept.append(np.asarray(dataset, np.float32))
    numbered: dict[str, list[tuple[int, _Layer]]] = {}
    for name, layer in layers.items():
        for arrays in layer.values():
            arrays.sort(key=np.size)
        kind, number = _kind_and_number(name)
        numbered.setdefault(kind, []).append((number, layer))
    return {kind: [layer for _, layer in sorted(found, key=_first)] for kind, found in numbered.items()}


def _kind_and_number(name: str) -> tuple[str, int]:
    """`attention_conv_12` -> ("attention_conv", 12); without a suffix it is the first."""
    match = re.fullmatch(r"(.+?)(?:_(\d{1,9}))?", name, re.ASCII | re.DOTALL)
    assert match is not None
    return match[1], int(match[2] or 0)


def _first(pair: tuple[int, _Layer]) -> int:
    return pair[0]


def _config(kinds: dict[str, list[_Layer]]) -> ModelConfig:
    convolutions = [_only(layer, "kernel") for layer in _kind(kinds, "time_distributed")]
    blocks, rest = divmod(len(convolutions) - 1, 3)
    if blocks < 1 or rest:
        raise ValueError(f"it has {len(convolutions)} convolutions, not 1 + 3 x blocks per stage")
    linear = [_only(layer, "matmul_kernel") for layer in _kind(kinds, "mat_mul", 2)]
    dense, classifiers = kinds.get("dense", []), "separate"
    if len(dense) == 1:  # the published options shared_weights_crossentropy, and no split_crossentropy
        is_shared = _only(dense[0], "kernel").shape[0] == linear[1].shape[-1]
        classifiers = "shared" if is_shared else "joint"
    return ModelConfig(
        channels=convolutions[0].shape[2],
        widths=(
            convolutions[blocks].shape[-1],
            convolutions[2 * blocks].shape[-1],
            convolutions[3 * blocks].shape[-1],
        ),
        part_width=linear[0].shape[-1],
        embedding_size=linear[1].shape[-1],
        blocks_per_stage=blocks,
        num_classes=_only(dense[0], "bias").size if dense else 0,
        classifiers=classifiers,
    )


def _state(kinds: dict[str, list[_Layer]]) -> dict[str, Tensor]:
    state: dict[str, _Array] = {}
    for index, layer in enumerate(_kind(kinds, "time_distributed")):
        state[f"backbone.convolutions.{index}.weight"] = _only(layer, "kernel").transpose(3, 2, 0, 1)
    for index, layer in enumerate(_kind(kinds, "attention_conv")):
        state |= _attention(f"backbone.attentions.{index}", layer, "attention_kernel")
    for kind, pyramid in (("hpp", "spatial"), ("temporal_hpp", "temporal")):
        for index, kernel in enumerate(_kind(kinds, kind, 1)[0]["kernel"]):
            state[f"{pyramid}.kernels.{index}"] = kernel.squeeze(-2)
    names = ("spatial_attention", "temporal_attention", "part_attention", "embedding_attention")
    for name, layer in zip(names, _kind(kinds, "attention_hpp", 4), strict=True):
        state |= _attention(name, layer, "attention_sum_kernel")
    for name, layer in zip(("part_linear", "embedding_linear"), _kind(kinds, "mat_mul", 2), strict=True):
        state[f"{name}.weight"] = _only(layer, "matmul_kernel")
    if classifiers := kinds.get("dense"):
        state["classifier.weight"] = np.stack([_only(layer, "kernel") for layer in classifiers])
        state["classifier.bias"] = np.stack([_only(layer, "bias") for layer in classifiers])
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state.items()}


def _attention(name: str, layer: _Layer, weight: str) -> dict[str, _Array]:
    return {
        f"{name}.weight": _only(layer, weight),
        f"{name}.gain": _only(layer, "gamma"),
        f"{name}.bias": _only(layer, "beta"),
    }


def _kind(kinds: dict[str, list[_Layer]], kind: str, count: int | None = None) -> list[_Layer]:
    layers = kinds.get(kind, [])
    if not layers or (count is not None and len(layers) != count):
        raise ValueError(f"it has {len(layers)} layers of kind {kind!r}, not {count or 'some'}")
    return layers


def _only(layer: _Layer, name: str) -> _Array:
    arrays = layer.get(name, [])
    if len(arrays) != 1:
        raise ValueError(f"a layer has {len(arrays)} arrays named {name!r}, not one")
    return arrays[0]
