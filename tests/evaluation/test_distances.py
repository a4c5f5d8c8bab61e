"""Distances against a loop over pairs, and what is refused."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from attengait.errors import ParameterError
from attengait.evaluation import DISTANCES, blocks, distance, distances
from attengait.evaluation.blocks import DistanceRows, same_embeddings


def slow_distance(probe: NDArray[np.float32], item: NDArray[np.float32], name: str) -> float:
    """One pair [P, D], value by value."""
    parts = [[(float(x), float(y)) for x, y in zip(a, b, strict=True)] for a, b in zip(probe, item, strict=True)]
    if name == "l2":
        return math.sqrt(sum((x - y) ** 2 for part in parts for x, y in part))
    if name == "l1":
        return sum(abs(x - y) for part in parts for x, y in part)
    if name == "part-l2":
        return sum(math.sqrt(sum((x - y) ** 2 for x, y in part)) for part in parts) / len(parts)
    cosines = [
        sum(x * y for x, y in part) / math.sqrt(sum(x * x for x, _ in part) * sum(y * y for _, y in part))
        for part in parts
    ]
    return 1 - sum(cosines) / len(parts)


def random_features(count: int, offset: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=(count, 5, 3)) + offset).astype(np.float32)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("rows_per_block", [1, 4, 1000])
def test_every_distance_equals_the_loop_over_pairs_whatever_the_blocks(
    name: str, rows_per_block: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(blocks, "PROBE_TILE", rows_per_block)
    monkeypatch.setattr(blocks, "GALLERY_TILE", rows_per_block)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 0)
    monkeypatch.setattr(distances, "_L1_ROWS", 2)
    probes, gallery = random_features(9), random_features(11, seed=1)
    slow = [[slow_distance(probe, item, name) for item in gallery] for probe in probes]
    # Both are float64; they differ in the order of summation only.
    np.testing.assert_allclose(distance(probes, gallery, name), slow, rtol=1e-12)


@pytest.mark.parametrize("name", ["l2", "part-l2"])
def test_a_common_offset_does_not_drown_the_differences(name: str):
    probes, gallery = random_features(20, offset=1e4), random_features(30, offset=1e4, seed=1)
    slow = [[slow_distance(probe, item, name) for item in gallery] for probe in probes]
    np.testing.assert_allclose(distance(probes, gallery, name), slow, rtol=1e-9)


@pytest.mark.parametrize("name", DISTANCES)
def test_an_item_is_nearest_to_itself(name: str):
    features = random_features(30)
    table = distance(features, features, name)
    np.testing.assert_allclose(np.diag(table), 0, atol=1e-6)
    assert (table.argmin(axis=1) == np.arange(30)).all()


def test_a_part_of_length_zero_has_cosine_zero_with_everything():
    silent = np.zeros((1, 5, 3), np.float32)
    np.testing.assert_array_equal(distance(silent, random_features(2), "part-cosine"), [[1, 1]])


@pytest.mark.parametrize("name", DISTANCES)
def test_no_probes_or_no_gallery_give_an_empty_table(name: str):
    assert distance(random_features(0), random_features(3), name).shape == (0, 3)
    assert distance(random_features(3), random_features(0), name).shape == (3, 0)


def test_an_unknown_distance_is_refused_with_the_nearest_and_the_known_names():
    with pytest.raises(
        ParameterError, match=r"^distance is 'part-l1', but must be one of l2, .*\(did you mean 'part-l2'\?\)$"
    ):
        distance(random_features(1), random_features(1), "part-l1")


def test_features_that_do_not_fit_together_are_refused_with_both_shapes():
    with pytest.raises(ParameterError, match=r"gallery is \[2, 5, 2\] and probes is \[2, 5, 3\], but must be "):
        distance(random_features(2), random_features(2)[:, :, :2], "l2")


@pytest.mark.parametrize("size", [2, 32, 80])
def test_parts_added_piece_by_piece_equal_whole_parts_whatever_a_piece_is(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    probes, gallery = (random.normal(size=(number, 4, size)).astype(np.float32) for number in (150, 700))
    whole = np.zeros((150, 700))
    for part in range(4):
        difference = probes[:, None, part].astype(float) - gallery[None, :, part]
        whole += np.sqrt((difference**2).sum(axis=2)) / 4
    found = distance(probes, gallery, "part-l2")
    np.testing.assert_allclose(found, whole, rtol=1e-12)
    monkeypatch.setattr(distances, "_PIECE_PROBES", 16)
    monkeypatch.setattr(distances, "_PIECE_PRODUCTS", 2**14)
    np.testing.assert_allclose(distance(probes, gallery, "part-l2"), found, rtol=1e-14)


@pytest.mark.parametrize("name", ["l2", "part-l2"])
@pytest.mark.parametrize("size", [1e6, 1e9, 1e15])
def test_one_huge_embedding_changes_no_distance_of_the_others(name: str, size: float):
    probes, gallery = random_features(20), random_features(600, seed=1)
    gallery[7] = size
    slow = [[slow_distance(probe, item, name) for item in gallery] for probe in probes]
    np.testing.assert_allclose(distance(probes, gallery, name), slow, rtol=1e-9)


def test_equal_distances_of_whole_numbers_stay_equal_beside_a_huge_embedding():
    probes = np.random.default_rng(0).integers(0, 4, (5, 2, 3)).astype(np.float32) + 1000
    gallery = np.random.default_rng(1).integers(0, 4, (50, 2, 3)).astype(np.float32) + 1000
    gallery[7] = 1e9
    slow = [[slow_distance(probe, item, "l2") for item in gallery] for probe in probes]
    np.testing.assert_array_equal(np.delete(distance(probes, gallery, "l2"), 7, 1), np.delete(slow, 7, 1))


@pytest.mark.parametrize("name", ["l2", "part-l2"])
@pytest.mark.parametrize("on", ["numpy", "torch"])
@pytest.mark.parametrize("size", [1e4, 1e9])
def test_two_groups_that_are_far_apart_have_exact_distances_in_each(name: str, on: str, size: float):
    """Whatever the centre is, one of the groups is far from it."""
    random = np.random.default_rng(0)
    features = (1e-6 * size * random.normal(size=(60, 3, 4))).astype(np.float32)
    features[::3] += np.float32(size)
    rows = np.arange(60)
    device = None if on == "numpy" else torch.device("cpu")
    found = DistanceRows(features, same_embeddings(features), rows, rows, name, device=device)
    (block,) = found.blocks()
    table = np.empty((60, 60))
    table[block.probes] = np.asarray(block.table)[block.row][:, found.column]
    slow = [[slow_distance(probe, item, name) for item in features] for probe in features]
    np.testing.assert_allclose(table, slow, rtol=1e-6)
