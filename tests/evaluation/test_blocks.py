"""Distances block by block: the size of blocks, the number of probes and the device change nothing."""

import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest
import torch
from heard import Heard

from attengait.evaluation import (
    DISTANCES,
    Embeddings,
    EvaluationOptions,
    blocks,
    distance,
    evaluate_embeddings,
    ranking,
)
from attengait.evaluation.blocks import DistanceRows, same_embeddings
from attengait.evaluation.ranking import People, Ranked, rank
from attengait.evaluation.retrieval import figures_of, retrieval_metrics

RANKS = (1, 5, 10)


class Case:
    """Embeddings with some the same, in two overlapping sets."""

    def __init__(self, num: int = 300) -> None:
        random = np.random.default_rng(0)
        self.features = random.normal(size=(num, 3, 4)).astype(np.float32)
        self.features[50:80] = self.features[0]
        self.features[100] = self.features[200]
        self.subjects, self.views = random.integers(0, 20, num), random.integers(0, 3, num)
        self.probes, self.gallery = np.arange(120), np.arange(60, num)

    def ranked(self, name: str, device: torch.device | None = None) -> Ranked:
        rows = DistanceRows(
            self.features, same_embeddings(self.features), self.probes, self.gallery, name, device=device
        )
        people = People(
            probes=self.subjects[self.probes],
            gallery=self.subjects[self.gallery],
            probe_rows=self.probes,
            gallery_rows=self.gallery,
            probe_views=self.views[self.probes],
            gallery_views=self.views[self.gallery],
        )
        return rank(rows, people, RANKS)

    @property
    def left_out(self) -> np.ndarray:
        own_view = self.views[self.probes][:, None] == self.views[self.gallery]
        is_itself = self.probes[:, None] == self.gallery
        return (self.subjects[self.probes][:, None] == self.subjects[self.gallery]) & (own_view | is_itself)


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(blocks, "PROBE_TILE", 16)
    monkeypatch.setattr(blocks, "GALLERY_TILE", 64)
    return Case()


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("device", [None, "cpu"], ids=["numpy", "torch"])
@pytest.mark.parametrize("most_matches", [100, 2])
def test_ranking_in_blocks_equals_ranking_the_whole_table(
    case: Case, name: str, device: str | None, most_matches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 0)
    monkeypatch.setattr(ranking, "_SORT_FROM_MATCHES", most_matches)
    ranked = case.ranked(name, None if device is None else torch.device(device))
    whole = retrieval_metrics(
        distance(case.features[case.probes], case.features[case.gallery], name),
        case.subjects[case.probes].astype(str),
        case.subjects[case.gallery].astype(str),
        left_out=case.left_out,
    )
    assert whole is not None
    means = ranked.figures[ranked.is_matched].mean(axis=0)
    expected = [whole.rank1, whole.rank5, whole.rank10]
    expected += [whole.mean_average_precision, whole.mean_inverse_negative_penalty]
    np.testing.assert_allclose(means, expected, rtol=1e-12)
    assert (ranked.is_tied == whole.is_tied).all()
    assert whole.is_tied.any()


@pytest.mark.parametrize("name", DISTANCES)
def test_the_size_of_the_blocks_changes_no_bit(case: Case, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for num_bytes in (0, 50_000, 2**30):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", num_bytes)
        found.append(case.ranked(name))
    for other in found[1:]:
        for key, values in asdict(found[0]).items():
            np.testing.assert_array_equal(asdict(other)[key], values)


def test_threads_count_as_one_does(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = case.ranked("l2")
    monkeypatch.setattr(ranking, "_THREADS_FROM_ITEMS", 0)
    np.testing.assert_array_equal(case.ranked("l2").figures, alone.figures)


def test_options_of_all_kinds_give_the_same_in_small_blocks(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    num = len(case.features)
    embeddings = Embeddings(
        features=case.features,
        subjects=case.subjects.astype(str),
        views=case.views.astype(str),
        sequences=np.array([f"w{i % 7}" for i in range(num)]),
        feature_order="parts-first",
    )
    named = EvaluationOptions(gallery=["walk=w0,w1,w2,w3"], probes=["walk=w4,w5,w6"], verification=True, bootstrap=20)
    for rerank in (False, True):
        options = EvaluationOptions(
            gallery=named.gallery, probes=named.probes, verification=True, bootstrap=20, rerank=rerank
        )
        whole = evaluate_embeddings(embeddings, protocol="custom", options=options)
        monkeypatch.setattr(blocks, "BLOCK_BYTES", 0)
        assert evaluate_embeddings(embeddings, protocol="custom", options=options) == whole
        monkeypatch.undo()
        monkeypatch.setattr(blocks, "PROBE_TILE", 16)
        monkeypatch.setattr(blocks, "GALLERY_TILE", 64)


def test_a_gallery_is_never_held_twice_nor_all_distances_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2**20)
    random = np.random.default_rng(0)
    features = random.normal(size=(10_000, 8, 16)).astype(np.float32)  # 5 MB
    subjects = np.arange(10_000) % 1000
    probes, gallery = np.arange(2000), np.arange(2000, 10_000)  # 128 MB of distances
    same = same_embeddings(features)
    tracemalloc.start()
    rows = DistanceRows(features, same, probes, gallery, "l2")
    people = People(probes=subjects[probes], gallery=subjects[gallery], probe_rows=probes, gallery_rows=gallery)
    ranked = rank(rows, people, RANKS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ranked.is_matched.all()
    # The distances of one tile of 512 probes are 33 MB. Tiles of probes and of the gallery in float64 are 0.5 and 2 MB,
    # and the distances between the two 8 MB.
    assert peak < 60e6


def test_a_probe_that_only_has_itself_is_alone_and_counts_nowhere() -> None:
    features = np.eye(3, dtype=np.float32).reshape(3, 1, 3)
    rows = DistanceRows(features, same_embeddings(features), np.array([0]), np.array([0]), "l2")
    one = np.array([0])
    ranked = rank(rows, People(probes=one, gallery=one, probe_rows=one, gallery_rows=one), RANKS)
    assert ranked.is_alone.all()
    assert np.isnan(ranked.figures).all()


def test_no_matches_at_all_give_rank_0_and_nothing_else() -> None:
    figures, is_tied = figures_of(np.zeros((2, 1), int), np.ones((2, 1), int), np.zeros((2, 1), bool), RANKS)
    assert (figures[:, :3] == 0).all()
    assert np.isnan(figures[:, 3:]).all()
    assert not is_tied.any()


@pytest.mark.gpu
@pytest.mark.parametrize("name", DISTANCES)
def test_a_gpu_ranks_as_the_processor_does(name: str) -> None:
    case = Case(num=3000)
    there, here = case.ranked(name, torch.device("cuda")), case.ranked(name)
    np.testing.assert_allclose(there.figures, here.figures, atol=1e-12)


def test_with_two_subjects_the_items_of_each_are_not_held_for_all_probes_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = np.random.default_rng(0).normal(size=(1200, 1, 4)).astype(np.float32)
    subjects, each = np.arange(1200) % 2, np.arange(1200)
    people = People(probes=subjects, gallery=subjects, probe_rows=each, gallery_rows=each)

    def ranked() -> tuple[ranking.Ranked, int]:
        tracemalloc.start()
        found = rank(DistanceRows(features, same_embeddings(features), each, each, "l2"), people, RANKS)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found, peak

    whole, _ = ranked()
    monkeypatch.setattr(ranking, "_ITEMS", 20_000)
    parts, peak = ranked()
    np.testing.assert_array_equal(parts.figures, whole.figures)
    assert peak < 2.5 * 1200 * 1200 * 8  # of which the distances are one


def test_more_matches_of_another_probe_change_no_bit() -> None:
    random = np.random.default_rng(0)
    before = np.sort(random.choice(500, (200, 11)), axis=1)
    before += np.arange(11)  # no ties
    size, is_there = np.ones_like(before), np.ones(before.shape, bool)
    alone, _ = figures_of(before, size, is_there, RANKS)
    longer, _ = figures_of(*(np.pad(array, ((0, 0), (0, 30))) for array in (before, size, is_there)), RANKS)
    np.testing.assert_array_equal(longer, alone)


def test_progress_knows_all_probes_from_the_first_block_on(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 0)
    embeddings = Embeddings(
        features=case.features,
        subjects=case.subjects.astype(np.str_),
        views=case.views.astype(np.str_),
        sequences=np.where(np.arange(len(case.subjects)) < 120, "probe", "gallery"),
        feature_order="parts-first",
    )
    options = EvaluationOptions(gallery=["walk=gallery"], probes=["walk=probe"])
    heard = Heard()
    evaluate_embeddings(embeddings, protocol="custom", options=options, progress=heard)
    assert len(heard.counts) > 1
    assert {total for _, total in heard.counts} == {120}
    assert heard.counts[-1] == (120, 120)
