"""Checksums of tensors, and what counts as finite."""

import pytest
import torch

from attengait.model.checksums import check_tensors, checksum, checksums, first_not_finite

SQUARE = torch.arange(9.0).reshape(3, 3)


def test_a_checksum_says_name_type_shape_layout_and_values() -> None:
    others = [SQUARE.t(), SQUARE.reshape(9), SQUARE.view(torch.int32), SQUARE + 1]
    assert len({checksum("a", SQUARE), checksum("b", SQUARE), *(checksum("a", other) for other in others)}) == 6
    assert checksum("a", SQUARE) == checksum("a", SQUARE.clone())


def test_what_a_stride_says_of_one_row_does_not_count() -> None:
    row = torch.arange(3.0).as_strided((1, 3), (77, 1))
    assert checksum("a", row) == checksum("a", torch.arange(3.0).reshape(1, 3))
    assert checksum("a", torch.zeros(0)) == checksum("a", torch.zeros(0))


def test_tensors_that_are_missing_or_more_are_refused() -> None:
    check_tensors({"a": SQUARE}, checksums({"a": SQUARE}))
    for expected in ({}, {"a": 1, "b": 2}, None):
        with pytest.raises(ValueError, match="its checksums are not those of its tensors"):
            check_tensors({"a": SQUARE}, expected)
    with pytest.raises(ValueError, match="the tensor a has another checksum"):
        check_tensors({"a": SQUARE}, {"a": 1})


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_is_found(kind: torch.dtype, value: float) -> None:
    values = torch.ones(1000, dtype=kind)
    tensors = {"a": torch.zeros(3, dtype=kind), "b": values, "c": values.clone()}
    assert first_not_finite(tensors) is None
    values[517] = value
    assert first_not_finite(tensors) == "b"


def test_finite_values_with_an_infinite_sum_are_finite() -> None:
    assert first_not_finite({"a": torch.full((3,), 3e38)}) is None
    assert first_not_finite({"a": torch.full((1,), 1e300, dtype=torch.float64)}) == "a"  # in float32 it is infinite
    assert first_not_finite({"a": torch.zeros(0)}) is first_not_finite({}) is None
