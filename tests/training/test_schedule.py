"""The learning rate's shape; tests/test_model_reference.py holds it against the published values."""

import pytest

from attengait.training.schedule import learning_rate


def test_warm_up_is_linear_from_zero_and_ends_at_the_base_rate() -> None:
    assert [learning_rate(step, 1.0, 4, 20) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1.0]


def test_cosine_is_half_way_in_the_middle_and_zero_at_the_end() -> None:
    assert learning_rate(12, 2.0, 4, 20) == pytest.approx(1.0)
    assert learning_rate(20, 2.0, 4, 20) == 0


def test_no_warm_up_starts_at_the_base_rate() -> None:
    assert learning_rate(0, 0.5, 0, 10) == 0.5
