"""OpenGait's cross-view gallery and retrieval metrics, against its own figures and a plain loop."""

from pathlib import Path

import numpy as np
import pytest

from attengait.errors import AttenGaitError
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
    assert result.missing[0] == "no gallery of walk cl-02"
    assert {"no bg probe at view 018", "no cl probe at all (cl-01)"} <= set(result.missing)


def walks_of(names: list[tuple[str, str, str]], seed: int = 0) -> Embeddings:
    """Random embeddings of these subjects, walks and views, those of a subject alike."""
    random = np.random.default_rng(seed)
    identity = {subject: random.normal(size=(4, 8)) for subject, _, _ in names}
    features = np.stack([identity[subject] + random.normal(size=(4, 8)) for subject, _, _ in names])
    subjects, sequences, views = (np.array(column) for column in zip(*names, strict=True))
    return Embeddings(features=features.astype(np.float32), subjects=subjects, sequences=sequences, views=views)


def opengait_cell(embeddings: Embeddings, walk: str, view: str, name: str) -> tuple[float, float]:
    """Rank-1 and mAP in OpenGait's manner: one probe after another, its own walks at the same view thrown out."""
    everyone = range(len(embeddings))
    gallery = [i for i in everyone if embeddings.sequences[i] in ("nm-02", "bg-02", "cl-02")]
    firsts, precisions = [], []
    for probe in everyone:
        if (embeddings.sequences[probe], embeddings.views[probe]) != (walk, view):
            continue
        same = [embeddings.subjects[i] == embeddings.subjects[probe] for i in gallery]
        kept = [i for i, is_same in zip(gallery, same, strict=True) if not (is_same and embeddings.views[i] == view)]
        row = distance(embeddings.features[probe : probe + 1], embeddings.features[kept], name)[0]
        matches = [embeddings.subjects[kept[i]] == embeddings.subjects[probe] for i in np.argsort(row)]
        firsts.append(float(matches[0]))
        places = [place for place, match in enumerate(matches, start=1) if match]
        if places:  # else left out of mAP only
            precisions.append(sum((k + 1) / place for k, place in enumerate(places)) / len(places))
    return sum(firsts) / len(firsts), sum(precisions) / len(precisions)


@pytest.mark.parametrize("name", ["part-l2", "l2"])
def test_a_probe_without_a_match_counts_as_wrong_for_rank_1_and_is_left_out_of_map(name: str):
    walks = ("nm-01", "nm-02", "bg-01", "bg-02", "cl-01", "cl-02")
    everything = [(f"{s:03d}", walk, view) for s in range(20) for walk in walks for view in ("000", "090", "180")]
    embeddings = walks_of([row for row in everything if row[0] != "019" or not row[1].endswith("02")])
    result = evaluate_embeddings(embeddings, protocol="casia-b-cross-view", distance=name)
    assert result.mean_average_precision is not None
    for condition in CONDITIONS:
        for view in ("000", "090", "180"):
            rank1, precision = opengait_cell(embeddings, f"{condition}-01", view, name)
            assert result.rank1[condition][view] == pytest.approx(rank1, abs=1e-12)
            assert result.mean_average_precision[condition][view] == pytest.approx(precision, abs=1e-12)
            assert round(20 * rank1, 9) == round(20 * rank1)  # of all 20 subjects, not of the 19 with a match
    written = result.to_dict()
    assert written["counts"]["unmatched_probes"] == 9
    assert written["missing"] == ["no gallery of subject 019"]
    assert written["remarks"] == [
        f"3 {condition} probes have no gallery item of their subject at another view, so they count as wrong for "
        f"rank-1 and are left out of mAP: 019/{condition}-01/000, 019/{condition}-01/090, 019/{condition}-01/180"
        for condition in CONDITIONS
    ]
    assert all(remark in str(result) for remark in written["remarks"])


def test_a_cell_of_which_no_probe_has_a_match_is_0_for_rank_1_and_has_no_map():
    names = [(s, walk, view) for s in ("001", "002") for walk in ("nm-01", "nm-02") for view in ("000", "090")]
    # At view 090 there are probes only, whose gallery is at 000; those at 000 have no gallery at 090.
    embeddings = walks_of([row for row in names if row[1:] != ("nm-02", "090")])
    result = evaluate_embeddings(embeddings, protocol="casia-b-cross-view")
    assert result.mean_average_precision is not None
    assert (result.rank1["nm"]["000"], result.mean_average_precision["nm"]["000"]) == (0.0, None)
    assert result.mean_average_precision["nm"]["090"] is not None
    assert result.num_unmatched == 2


def test_one_view_alone_is_refused(embeddings: Embeddings):
    one_view = embeddings.select((embeddings.views == "090") & np.isin(embeddings.sequences, ["nm-01", "nm-02"]))
    with pytest.raises(
        AttenGaitError, match=r"fits no sequence of the embeddings: .* at other views, but .* views 090; "
    ):
        evaluate_embeddings(one_view, protocol="casia-b-cross-view")
