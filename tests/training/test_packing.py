"""What is packed comes back: values, kinds, types, shapes and the order in memory."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attengait.training.packing import pack, unpack

KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    order = draw(st.permutations(range(len(shape))))
    values = torch.arange(torch.Size(shape).numel()).reshape(shape).to(draw(st.sampled_from(KINDS)))
    return values.permute(order)


keys = st.text(max_size=8) | st.integers(-(2**40), 2**40)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | tensors()
states = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4) | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=12,
)


def is_same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other) and _strides(one) == _strides(other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


def _strides(tensor: Tensor) -> list[int]:
    """Where a dimension has length 1, or the tensor no values, a stride says nothing."""
    return [step for length, step in zip(tensor.shape, tensor.stride(), strict=True) if length > 1 and tensor.numel()]


@given(states)
@settings(deadline=None)
def test_what_is_packed_comes_back(state: Any) -> None:
    assert is_same(unpack(pack(state)), state)


def test_large_tensors_lie_in_several_pieces_and_the_state_takes_no_more_than_them() -> None:
    state = {index: torch.full((1_500_000,), float(index)) for index in range(5)}
    packed = pack(state)
    assert [len(piece) for piece in packed["pieces"]] == [12_000_000, 12_000_000, 6_000_000]
    assert is_same(unpack(packed), state)


def test_a_tensor_of_an_unknown_type_is_not_packed() -> None:
    with pytest.raises(KeyError, match="complex64"):
        pack([torch.zeros(2, dtype=torch.complex64)])


PIECES = [torch.arange(64, dtype=torch.uint8)]


@pytest.mark.parametrize(
    "tensor",
    [
        ["float32", [17], [0], 0, 0],
        ["float32", [16], [0], 0, 32],
        ["float32", [2, 8], [0, 0], 0, 0],
        ["float32", [2, 8], [0], 0, 0],
        ["float32", [-2, -8], [0, 1], 0, 0],
        ["float32", [2.0, 8], [0, 1], 0, 0],
        ["float32", [True, 8], [0, 1], 0, 0],
        ["float32", [2**62, 2**62], [0, 1], 0, 0],
        ["float32", [16], [0], -1, 0],
        ["float32", [16], [0], 1, 0],
        ["float32", [2], [0], 0, -8],
        ["float32", [2], [0], 0, 2],
        ["object", [2], [0], 0, 0],
        ["float32", [2], [0], 0],
    ],
)
def test_a_tensor_outside_its_piece_is_refused(tensor: list[Any]) -> None:
    with pytest.raises((ValueError, TypeError, LookupError, RuntimeError)):
        unpack({"packed": json.dumps({"tensor": tensor}), "pieces": PIECES})


@pytest.mark.parametrize(
    "text", ["", "[", "{}", '{"a": 1, "b": 2}', '{"module": []}', '{"dictionary": [1]}', "[" * 10**5]
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError, LookupError, RecursionError)):
        unpack({"packed": text, "pieces": PIECES})
