"""OpenGait's cross-view gallery and retrieval metrics, against its own figures and a plain loop."""

from pathlib import Path

import numpy as np
import pytest

from attengait.evaluation import Embeddings, distance, evaluate_embeddings, load_embeddings
from attengait.evaluation.retrieval import RetrievalMetrics, retrieval_metrics

CONDITIONS = ("nm", "bg", "cl")


@pytest.fixture(scope="module")
def embeddings(data: Path) -> Embeddings:
    return load_embeddings(data / "evaluation_casiab.npz")


@pytest.fixture(scope="module")
def reference(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "evaluation_casiab.npz") as file:
        return dict(file)


def slow_metrics(
    distances: np.ndarray, probe_subjects: np.ndarray, gallery_subjects: np.ndarray, left_out: np.ndarray
) -> list[float]:
    """Rank-1, 5, 10, mAP, mINP, one probe and one gallery item at a time."""
    rows = []
    for i, subject in enumerate(probe_subjects):
        kept = [j for j in np.argsort(distances[i]) if not left_out[i, j]]
        places = [place for place, j in enumerate(kept, start=1) if gallery_subjects[j] == subject]
        if places:
            precisions = [(k + 1) / place for k, place in enumerate(places)]
            firsts = [float(places[0] <= k) for k in (1, 5, 10)]
            rows.append([*firsts, sum(precisions) / len(places), len(places) / places[-1]])
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def as_list(metrics: RetrievalMetrics | None) -> list[float]:
    assert metrics is not None
    return [
        metrics.rank1,
        metrics.rank5,
        metrics.rank10,
        metrics.mean_average_precision,
        metrics.mean_inverse_negative_penalty,
    ]


@pytest.mark.parametrize(("name", "opengait"), [("part-l2", "euc"), ("part-cosine", "cos")])
def test_the_cross_view_gallery_equals_opengait(
    embeddings: Embeddings, reference: dict[str, np.ndarray], name: str, opengait: str
):
    written = evaluate_embeddings(embeddings, protocol="casia-b-cross-view", distance=name).to_dict()
    ours = [
        [100 * written[figure][condition]["mean"] for figure in ("rank1", "mean_average_precision")]
        for condition in CONDITIONS
    ]
    # OpenGait rounds each view's figure to 0.01 %.
    np.testing.assert_allclose(ours, reference[f"opengait_crossview_rank1_map_{opengait}_percent"], rtol=0, atol=0.01)


def test_retrieval_metrics_equal_opengait(embeddings: Embeddings, reference: dict[str, np.ndarray]):
    probes = embeddings.select(np.char.startswith(embeddings.sequences, "cl"))
    gallery = embeddings.select(np.char.startswith(embeddings.sequences, "nm"))
    table = distance(probes.features, gallery.features, "part-l2")
    metrics = retrieval_metrics(table, probes.subjects, gallery.subjects)
    np.testing.assert_allclose(as_list(metrics), reference["retrieval_rank1_5_10_map_minp"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_retrieval_metrics_equal_the_loop_over_items(seed: int):
    random = np.random.default_rng(seed)
    table = random.random((20, 30))
    probe_subjects = random.choice(list("abcdefgh"), 20)
    gallery_subjects = random.choice(list("abcdefgh")[seed:], 30)
    left_out = random.random((20, 30)) < 0.4
    metrics = retrieval_metrics(table, probe_subjects, gallery_subjects, left_out=left_out)
    slow = slow_metrics(table, probe_subjects, gallery_subjects, left_out)
    np.testing.assert_allclose(as_list(metrics), slow, rtol=1e-12)


def test_without_any_match_there_is_nothing_to_measure():
    assert retrieval_metrics(np.ones((2, 3)), np.array(["a", "b"]), np.array(["c", "c", "d"])) is None
    assert retrieval_metrics(np.ones((2, 0)), np.array(["a", "b"]), np.array([], dtype="U1")) is None
    assert retrieval_metrics(np.ones((0, 2)), np.array([], dtype="U1"), np.array(["a", "b"])) is None


def test_what_is_missing_is_none_and_named(embeddings: Embeddings):
    gap = (embeddings.views == "018") & (embeddings.sequences == "bg-01")
    no_coats = np.char.startswith(embeddings.sequences, "cl")
    result = evaluate_embeddings(embeddings.select(~gap & ~no_coats), protocol="casia-b-cross-view")
    assert result.rank1["bg"]["018"] is None
    assert result.mean_average_precision is not None
    assert set(result.mean_average_precision["cl"].values()) == {None}
    assert result.missing == ("no bg probe at view 018", "no cl probe at all (cl-01)")


def test_probes_without_an_item_at_another_view_are_named(embeddings: Embeddings):
    one_view = embeddings.select((embeddings.views == "090") & np.isin(embeddings.sequences, ["nm-01", "nm-02"]))
    result = evaluate_embeddings(one_view, protocol="casia-b-cross-view")
    assert result.rank1["nm"]["090"] is None
    assert result.missing[0].endswith("nm probes of view 090 have no gallery item at another view")
