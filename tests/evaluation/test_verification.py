"""ROC, equal error rate and TAR at FAR against sorting all pairs; and re-ranking against the published program."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attengait.evaluation import Embeddings, EvaluationOptions, distance, evaluate_embeddings
from attengait.evaluation.blocks import Block, DistanceRows, same_embeddings
from attengait.evaluation.ranking import Items
from attengait.evaluation.rerank import RerankedRows
from attengait.evaluation.verification import Scores

NAMES = [(f"{s:02d}", walk, view) for s in range(60) for walk in ("01", "02") for view in ("000", "090")]


def made(noise: float = 1.0) -> Embeddings:
    subjects, sequences, views = (np.array(column) for column in zip(*NAMES, strict=True))
    random = np.random.default_rng(0)
    identity = random.normal(size=(60, 3, 4))
    features = identity[subjects.astype(int)] + noise * random.normal(size=(len(NAMES), 3, 4))
    return Embeddings(features=features.astype(np.float32), subjects=subjects, sequences=sequences, views=views)


def slow_rates(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """TAR and FAR of each threshold that is a distance of a pair, and of none accepted."""
    thresholds = np.concatenate([[-np.inf], np.unique(np.concatenate([genuine, impostor]))])
    tar, far = (np.searchsorted(np.sort(some), thresholds, side="right") / len(some) for some in (genuine, impostor))
    return tar, far


@pytest.mark.parametrize("name", ["l2", "l1", "part-l2", "part-cosine"])
def test_verification_equals_sorting_all_pairs(name: str) -> None:
    embeddings = made()
    options = EvaluationOptions(verification=True)
    result = evaluate_embeddings(embeddings, protocol="grew", distance=name, options=options)
    gallery, probes = embeddings.sequences == "01", embeddings.sequences == "02"
    table = distance(embeddings.features[probes], embeddings.features[gallery], name)
    is_same = embeddings.subjects[probes][:, None] == embeddings.subjects[gallery]
    tar, far = slow_rates(table[is_same], table[~is_same])
    found = result.verification
    assert found is not None
    assert (found["genuine_pairs"], found["impostor_pairs"]) == (is_same.sum(), (~is_same).sum())
    for rate, value in found["tar_at_far"].items():
        assert value == tar[far <= float(rate)].max()  # 14,160 pairs of two people
    after = int(np.argmax(far >= 1 - tar))
    assert min(far[after - 1], 1 - tar[after]) <= found["equal_error_rate"] <= max(far[after], 1 - tar[after - 1])
    curve = found["roc"]
    for rate, value in zip(curve["far"], curve["tar"], strict=True):
        assert value == tar[far <= rate * (1 + 1e-12)].max()
    np.testing.assert_allclose(np.add(found["det"]["frr"], curve["tar"]), 1)
    assert "verification: equal error rate" in str(result)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["verification"]["roc"] == curve


def test_an_equal_error_rate_of_half_the_pairs_is_that_of_guessing_and_of_none_that_of_knowing() -> None:
    options = EvaluationOptions(verification=True)
    perfect = evaluate_embeddings(made(noise=0), protocol="grew", options=options).verification
    assert perfect is not None
    assert perfect["equal_error_rate"] == 0
    assert set(perfect["tar_at_far"].values()) == {1.0}
    same = made()
    same = Embeddings(
        features=np.ones_like(same.features), subjects=same.subjects, sequences=same.sequences, views=same.views
    )
    result = evaluate_embeddings(same, protocol="grew", options=options)
    assert result.remarks == (
        "verification: so many distances are equal, or nearly, that the equal error rate is exact to 100.0 % only",
    )
    guessing = result.verification
    assert guessing is not None
    assert guessing["equal_error_rate"] == 0.5
    assert guessing["tar_at_far"]["0.01"] == 0


def test_too_few_pairs_for_a_rate_give_none_and_views_are_put_together() -> None:
    embeddings = made().select(np.arange(80))  # 20 people
    options = EvaluationOptions(verification=True)
    found = evaluate_embeddings(embeddings, protocol="grew", options=options).verification
    assert found is not None
    rates = found["tar_at_far"]
    assert found["impostor_pairs"] == 40 * 38
    assert rates["0.0001"] is None
    assert rates["0.001"] is not None
    assert 0 <= rates["0.001"] <= rates["0.01"] <= 1
    assert rates["0.01"] > 0
    names = np.where(made().sequences == "01", "01", "00")
    both = made()
    oumvlp = Embeddings(features=both.features, subjects=both.subjects, sequences=names, views=both.views)
    found = evaluate_embeddings(oumvlp, protocol="oumvlp", options=options).verification
    assert found is not None
    assert found["genuine_pairs"] == 120  # of each of 120 probes with the gallery of the one other view
    assert found["impostor_pairs"] == 120 * 59


def test_nothing_to_verify_is_said() -> None:
    one = made().select(np.arange(4))  # one person
    result = evaluate_embeddings(one, protocol="grew", options=EvaluationOptions(verification=True))
    assert result.to_dict()["verification"]["equal_error_rate"] is None
    assert "verification: there are no pairs of one person, or none of two" in str(result)


def test_re_ranked_distances_equal_the_published_program(data: Path) -> None:
    with np.load(data / "evaluation_protocols.npz") as file:
        features, expected = file["rerank_features"], file["rerank_distances"]
        num_probes = int(file["rerank_num_probes"])
    same, rows = same_embeddings(features), np.arange(len(features))
    table = distance(features, features, "part-l2")
    reranked = RerankedRows(
        DistanceRows(features, same, rows, rows, "part-l2"),
        DistanceRows(features, same, rows[:num_probes], rows[num_probes:], "part-l2"),
        lambda first, second: table[first, second],
    )
    found = np.empty_like(expected)
    for block in reranked.blocks():
        found[block.probes] = block.table
    # The published program keeps its weights in float16.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_hid_re_ranks_and_no_rerank_does_not(data: Path, tmp_path: Path) -> None:
    with np.load(data / "evaluation_protocols.npz") as file:
        features, expected = file["rerank_features"], file["rerank_distances"]
        num_probes = int(file["rerank_num_probes"])
    num = len(features)
    subjects = np.array([f"{i % 15:03d}" for i in range(num)])
    walks = np.array([f"w{i:02d}" for i in range(num)])
    embeddings = Embeddings(
        features=features, subjects=subjects, sequences=walks, views=np.full(num, "000"), feature_order="parts-first"
    )
    probes = [f"{s}-{w}-000" for s, w in zip(subjects[:num_probes], walks[:num_probes], strict=True)]
    sets = {"TRAIN_SET": [], "TEST_SET": sorted(set(subjects.tolist())), "PROBE_SET": probes}
    (tmp_path / "p.json").write_text(json.dumps(sets))
    figures = []
    for rerank, table in (
        (None, expected),
        (False, distance(features[:num_probes], features[num_probes:], "part-l2")),
    ):
        options = EvaluationOptions(partition=tmp_path / "p.json", rerank=rerank)
        result = evaluate_embeddings(embeddings, protocol="hid", distance="part-l2", options=options)
        nearest = subjects[num_probes:][table.argmin(axis=1)]
        assert result.metrics["rank1"] == pytest.approx((nearest == subjects[:num_probes]).mean())
        assert result.distance == ("part-l2" if rerank is False else "part-l2, re-ranked")
        figures.append(result.metrics["mAP"])
    assert figures[0] != figures[1]


@pytest.mark.parametrize("levels", [2, 3, 1])
def test_re_ranked_figures_do_not_depend_on_the_order_of_rows_that_are_equal_or_equally_near(levels: int) -> None:
    subjects = np.array([f"{s:03d}" for s in range(30) for _ in range(2)])
    features = np.random.default_rng(5).integers(0, levels, (60, 1, 3)).astype(np.float32)
    embeddings = Embeddings(
        features=features,
        subjects=subjects,
        sequences=np.array(["a", "b"] * 30),
        views=np.full(60, "000"),
        feature_order="parts-first",
    )
    options = EvaluationOptions(gallery=["walk=a"], probes=["walk=b"], rerank=True)
    results = [
        evaluate_embeddings(embeddings.select(order), protocol="custom", options=options)
        for order in (np.arange(60), np.arange(60)[::-1], *(np.random.default_rng(s).permutation(60) for s in range(4)))
    ]
    assert all(result == results[0] for result in results)


def exact_rates(features: np.ndarray, name: str) -> tuple[float, np.ndarray]:
    """Equal error rate, and TAR at FAR 0.001 and 0.01, of walk 02 of `made` against walk 01, pair by pair."""
    subjects, walks, _ = (np.array(column) for column in zip(*NAMES, strict=True))
    probes, gallery = features[walks == "02"].astype(float), features[walks == "01"].astype(float)
    gaps = probes[:, None] - gallery
    table = abs(gaps).sum(axis=(2, 3)) if name == "l1" else np.sqrt((gaps**2).sum(axis=(2, 3)))
    if name == "part-cosine":
        # Half the squared distance of unit vectors: 1 - cosine, without the rounding of numbers near 1.
        units = [some / np.sqrt((some**2).sum(axis=2, keepdims=True)) for some in (probes, gallery)]
        table = ((units[0][:, None] - units[1]) ** 2).sum(axis=3).mean(axis=2) / 2
    elif name == "part-l2":
        table = np.sqrt((gaps**2).sum(axis=3)).mean(axis=2)
    is_same = subjects[walks == "02"][:, None] == subjects[walks == "01"]
    tar, far = slow_rates(table[is_same], table[~is_same])
    gap = far - (1 - tar)
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    error = far[after - 1] + share * (far[after] - far[after - 1])
    return error, np.array([tar[far <= rate].max() for rate in (0.001, 0.01)])


@pytest.mark.parametrize("name", ["l2", "l1", "part-l2", "part-cosine"])
@pytest.mark.parametrize("outlier", [1.0, 1e3, 1e6, 1e8])
@pytest.mark.parametrize("offset", [0, 1000, 1e5])
def test_verification_is_exact_whatever_the_range_of_the_distances(name: str, outlier: float, offset: float) -> None:
    embeddings = made()
    features = embeddings.features + np.float32(offset)
    features[100] *= np.float32(outlier)
    moved = replace(embeddings, features=features)
    options = EvaluationOptions(verification=True)
    result = evaluate_embeddings(moved, protocol="grew", distance=name, options=options)
    assert result.remarks == ()
    found = result.verification
    assert found is not None
    error, tar = exact_rates(features, name)
    # With an offset of 1e5, 1 - cosine is about 1e-10. Cosines near 1 are exact to 1e-16, so it is exact to 1e-6.
    assert found["equal_error_rate"] == pytest.approx(error, abs=1e-3)
    np.testing.assert_allclose([found["tar_at_far"][rate] for rate in ("0.001", "0.01")], tar, rtol=0, atol=1e-3)


@pytest.mark.parametrize("device", [None, "cpu"], ids=["numpy", "torch"])
def test_negative_distances_and_zeros_of_both_signs_are_in_order(device: str | None) -> None:
    random = np.random.default_rng(0)
    genuine = np.concatenate([random.normal(-1, 1, 300), [0.0, -0.0, 1e-300, -1e-300, 1e300, -1e300]])
    impostor = np.concatenate([random.normal(1, 2, 5000), [-0.0, 0.0]])
    scores = Scores()
    for values, is_genuine in ((genuine, True), (impostor, False)):
        table = values[None] if device is None else torch.from_numpy(values[None]).to(device)
        is_match = np.full((1, len(values)), is_genuine)
        items = Items(distances=values[None], is_match=is_match, is_left_out=np.zeros_like(is_match))
        row = np.array([0])
        scores(Block(probes=row, row=row, table=table), np.arange(len(values)), items)
    found = scores.found()
    assert found is not None
    assert (found.num_genuine, found.num_impostor) == (306, 5002)
    tar, far = slow_rates(genuine, impostor)
    # Two distances are in one bin where they are equal to four millionths of themselves.
    assert len(tar) - 5 < len(found.tar) <= len(tar)
    assert {*zip(found.tar, found.far, strict=True)} <= {*zip(tar, far, strict=True)}


@pytest.mark.parametrize(("outlier", "is_exact"), [(1.0, True), (1e3, True), (1e8, False)])
def test_fused_distances_are_verified_or_it_is_said_that_they_are_too_near(outlier: float, is_exact: bool) -> None:
    """A row that is far from all others in both models leaves the other standardised distances nearly equal."""
    one, other = made(), made(2.0)
    for embeddings in (one, other):
        embeddings.features[100] *= np.float32(outlier)
    result = evaluate_embeddings(one, protocol="grew", options=EvaluationOptions(verification=True, fuse=other))
    if not is_exact:
        assert "exact to" in result.remarks[-1]
        assert "verification: so many distances are equal, or nearly, that the equal error rate is" in str(result)
        return
    gallery, probes = one.sequences == "01", one.sequences == "02"
    total = np.zeros((probes.sum(), gallery.sum()))
    for embeddings in (one, other):
        gaps = embeddings.features[probes].astype(float)[:, None] - embeddings.features[gallery]
        table = np.sqrt((gaps**2).sum(axis=(2, 3)))
        total += (table - table.mean(axis=1, keepdims=True)) / table.std(axis=1, keepdims=True) / 2
    is_same = one.subjects[probes][:, None] == one.subjects[gallery]
    tar, far = slow_rates(total[is_same], total[~is_same])
    after = int(np.argmax(far >= 1 - tar))
    assert result.verification is not None
    assert result.remarks == ()
    assert result.verification["equal_error_rate"] == pytest.approx(far[after], abs=2 / is_same.sum())
