"""Ties: every figure is the mean over all orders of the tied items, found here by trying all orders."""

from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.evaluation import DISTANCES, distance
from attengait.evaluation.retrieval import RetrievalMetrics, retrieval_metrics

PROPERTY = settings(derandomize=True, deadline=None, max_examples=60)
DISTANCES_OF_FEW = st.lists(st.integers(0, 2), min_size=1, max_size=6)


def figures_of_one_order(is_match: list[bool]) -> list[float]:
    """Rank-1, 5, 10, average precision and inverse negative penalty of one sorted gallery."""
    places = [place for place, match in enumerate(is_match, start=1) if match]
    precisions = [(k + 1) / place for k, place in enumerate(places)]
    firsts = [float(places[0] <= k) for k in (1, 5, 10)]
    return [*firsts, sum(precisions) / len(places), len(places) / places[-1]]


def mean_over_orders(distances: list[int], is_match: list[bool]) -> list[float]:
    orders = [
        order
        for order in permutations(range(len(distances)))
        if all(distances[a] <= distances[b] for a, b in pairwise(order))
    ]
    figures = [figures_of_one_order([is_match[i] for i in order]) for order in orders]
    return [sum(column) / len(orders) for column in zip(*figures, strict=True)]


def as_list(metrics: RetrievalMetrics | None) -> list[float]:
    assert metrics is not None
    return [
        metrics.rank1,
        metrics.rank5,
        metrics.rank10,
        metrics.mean_average_precision,
        metrics.mean_inverse_negative_penalty,
    ]


@PROPERTY
@given(data=st.data(), distances=DISTANCES_OF_FEW)
def test_every_figure_is_its_mean_over_all_orders_of_the_tied_items(data: st.DataObject, distances: list[int]):
    is_match = data.draw(st.lists(st.booleans(), min_size=len(distances), max_size=len(distances)))
    subjects = np.array(["a" if match else "b" for match in is_match])
    metrics = retrieval_metrics(np.array([distances], float), np.array(["a"]), subjects)
    if not any(is_match):
        assert metrics is None
        return
    expected = mean_over_orders(distances, is_match)
    np.testing.assert_allclose(as_list(metrics), expected, rtol=1e-12)
    assert metrics is not None
    mixed = [len({match for d, match in zip(distances, is_match, strict=True) if d == one}) for one in distances]
    assert metrics.is_tied.tolist() == [2 in mixed]


def test_ties_of_seven_of_which_three_match_give_the_figures_worked_out_by_hand():
    subjects = np.array(list("aaabbbb"))
    metrics = retrieval_metrics(np.ones((1, 7)), np.array(["a"]), subjects)
    expected = mean_over_orders([1] * 7, [True] * 3 + [False] * 4)
    np.testing.assert_allclose(as_list(metrics), expected, rtol=1e-12)
    assert expected[:2] == [pytest.approx(3 / 7), 1.0]


@PROPERTY
@given(data=st.data(), num_probes=st.integers(1, 4), num_items=st.integers(1, 8))
def test_the_order_of_probes_and_gallery_changes_nothing(data: st.DataObject, num_probes: int, num_items: int):
    def some(values: Any, count: int) -> Any:
        return data.draw(st.lists(values, min_size=count, max_size=count))

    table = np.array(some(st.lists(st.integers(0, 2), min_size=num_items, max_size=num_items), num_probes), float)
    probes, items = (np.array(some(st.sampled_from("abc"), count)) for count in (num_probes, num_items))
    left_out = np.array(some(st.lists(st.booleans(), min_size=num_items, max_size=num_items), num_probes))
    rows = np.array(data.draw(st.permutations(range(num_probes))))
    columns = np.array(data.draw(st.permutations(range(num_items))))
    metrics = retrieval_metrics(table, probes, items, left_out=left_out)
    others = retrieval_metrics(
        table[rows][:, columns], probes[rows], items[columns], left_out=left_out[rows][:, columns]
    )
    if metrics is None or others is None:
        assert metrics is others
    else:
        np.testing.assert_allclose(as_list(metrics), as_list(others), rtol=1e-12)
        assert metrics.is_tied[rows].tolist() == others.is_tied.tolist()


def test_large_groups_of_ties_stay_between_0_and_1():
    subjects = np.array(["a"] * 300 + ["b"] * 3000)
    figures = as_list(retrieval_metrics(np.zeros((2, 3300)), np.array(["a", "b"]), subjects))
    assert figures[0] == pytest.approx((300 + 3000) / 2 / 3300)
    assert all(0 < figure <= 1 for figure in figures)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("num_items", [3, 64, 1030])
def test_distances_are_the_same_to_the_last_bit_whatever_the_order_and_the_block(name: str, num_items: int):
    random = np.random.default_rng(num_items)
    probes = random.normal(size=(5, 3, 4)).astype(np.float32)
    gallery = random.normal(size=(num_items, 3, 4)).astype(np.float32)
    gallery[::2] = gallery[0]  # the same embedding, in every block
    gallery[2, 0, 0] = probes[1, 0, 0] = -0.0
    gallery[0, 0, 0] = gallery[4::2, 0, 0] = 0.0
    table = distance(probes, gallery, name)
    assert (table[:, ::2] == table[:, :1]).all()
    rows, columns = random.permutation(5), random.permutation(num_items)
    np.testing.assert_array_equal(distance(probes[rows], gallery[columns], name), table[rows][:, columns])


@pytest.mark.parametrize("name", DISTANCES)
def test_equal_distances_to_different_items_are_equal_where_the_features_are_small_whole_numbers(name: str):
    corners = np.eye(9, dtype=np.float32).reshape(9, 1, 9)
    table = distance(corners[:2], corners[2:], name)
    assert len(np.unique(table)) == 1
