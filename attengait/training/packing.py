"""The state of a run in few values: one text that says where everything is, and the bytes of all tensors.

A pickle of some hundred tensors takes longer to read than the tensors themselves. As it is packed here, a checkpoint's
pickle holds a text and a few pieces of bytes, and reading costs little more than the bytes.
"""

import json
import math
from typing import Any

import torch
from torch import Tensor

from attengait.model.checksums import in_memory_order, memory_order

_PIECE_BYTES = 8 << 20
"""A piece is closed once it is as large. Memory of moderate size is used again by the C library; larger memory comes
from the system each time, which costs as much as reading the file."""
_ALIGNMENT = 64
"""Bytes. Each tensor begins at a multiple, so that it can be used where it lies."""
_TYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
}


def pack(state: Any) -> dict[str, Any]:
    """Return {"packed": text, "pieces": list of uint8 [bytes]} of a tree of dictionaries, lists, tuples, tensors and
    plain values. A tensor is kept as it lies in memory, without gaps.

    Raises KeyError for a tensor of another type than those of a network and its optimiser.
    """
    pieces = _Pieces()
    text = json.dumps(_described(state, pieces))
    return {"packed": text, "pieces": [torch.cat(piece) for piece in pieces.parts]}


def unpack(packed: dict[str, Any]) -> Any:
    """Return what was packed. The tensors are views of the pieces.

    Raises ValueError, TypeError, LookupError, RuntimeError or RecursionError for what `pack` does not return.
    """
    return _built(json.loads(packed["packed"]), packed["pieces"])


class _Pieces:
    """The bytes of the tensors, piece by piece."""

    def __init__(self) -> None:
        self.parts: list[list[Tensor]] = []
        self.end = _PIECE_BYTES

    def add(self, values: Tensor) -> tuple[int, int]:
        """Return the piece into which uint8 `values` [bytes] are put, and their first byte there."""
        if self.end >= _PIECE_BYTES:
            self.parts.append([])
            self.end = 0
        start = self.end
        gap = -values.numel() % _ALIGNMENT
        self.parts[-1] += [values, values.new_zeros(gap)]
        self.end += values.numel() + gap
        return len(self.parts) - 1, start


def _described(value: Any, pieces: _Pieces) -> Any:
    """A value as JSON has it, where each dictionary, tuple and tensor is an object with one key."""
    if isinstance(value, Tensor):
        name = str(value.dtype).removeprefix("torch.")
        _TYPES[name]
        place = pieces.add(in_memory_order(value).view(torch.uint8))
        return {"tensor": [name, list(value.shape), memory_order(value), *place]}
    if isinstance(value, dict):
        return {"dictionary": [[key, _described(each, pieces)] for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        entries = [_described(each, pieces) for each in value]
        return entries if isinstance(value, list) else {"tuple": entries}
    return value


def _built(described: Any, pieces: list[Tensor]) -> Any:
    if isinstance(described, list):
        return [_built(each, pieces) for each in described]
    if not isinstance(described, dict):
        return described
    ((kind, entries),) = described.items()
    if kind == "dictionary":
        return {key: _built(each, pieces) for key, each in entries}
    if kind == "tuple":
        return tuple([_built(each, pieces) for each in entries])
    if kind == "tensor":
        return _tensor(*entries, pieces=pieces)
    raise ValueError(f"it holds a {kind}")


def _tensor(name: str, shape: list[int], order: list[int], piece: int, start: int, *, pieces: list[Tensor]) -> Tensor:
    """One tensor. The values of its dimensions follow each other in memory in the order `order`."""
    if any(type(number) is not int or number < 0 for number in (*shape, piece, start)):
        raise ValueError("a tensor of impossible sizes")
    if sorted(order) != list(range(len(shape))):
        raise ValueError("a tensor of an impossible order")
    dtype = _TYPES[name]
    values = pieces[piece][start : start + dtype.itemsize * math.prod(shape)]
    places = sorted(range(len(order)), key=order.__getitem__)
    return values.view(dtype).view([shape[dimension] for dimension in order]).permute(places)
