"""The CASIA-B protocol against the published programs' tables, against a plain loop, and with data missing."""

import json
from pathlib import Path

import numpy as np
import pytest

from attengait.errors import ParameterError
from attengait.evaluation import (
    Embeddings,
    EvaluationResult,
    check_names,
    distance,
    evaluate_embeddings,
    load_embeddings,
)

CONDITIONS = ("nm", "bg", "cl")
VIEWS = ("000", "018", "036")


@pytest.fixture(scope="module")
def embeddings(data: Path) -> Embeddings:
    return load_embeddings(data / "evaluation_casiab.npz")


@pytest.fixture(scope="module")
def reference(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "evaluation_casiab.npz") as file:
        return dict(file)


def cells(result: EvaluationResult) -> list[list[float | None]]:
    return [list(result.rank1[condition].values()) for condition in CONDITIONS]


def random_walks(seed: int = 0, keep: float = 0.7) -> Embeddings:
    """Walks of 6 subjects at 3 views, of which only some exist."""
    random = np.random.default_rng(seed)
    walks = [f"{c}-{n:02d}" for c, count in (("nm", 6), ("bg", 2), ("cl", 2)) for n in range(1, count + 1)]
    names = [(s, v, w) for s in "abcdef" for v in VIEWS for w in walks if random.random() < keep]
    subjects, views, sequences = (np.array(column) for column in zip(*names, strict=True))
    identity = {s: random.normal(size=(2, 3)) for s in "abcdef"}
    features = np.stack([identity[s] + random.normal(size=(2, 3)) for s in subjects]).astype(np.float32)
    return Embeddings(features=features, subjects=subjects, views=views, sequences=sequences)


def without(embeddings: Embeddings, view: str, *walks: str) -> Embeddings:
    return embeddings.select(~((embeddings.views == view) & np.isin(embeddings.sequences, walks)))


def slow_cell(embeddings: Embeddings, walks: tuple[str, ...], view: str, name: str) -> float | None:
    """One cell, pair by pair, as the protocol is written down."""
    everyone = range(len(embeddings))
    probes = [i for i in everyone if embeddings.sequences[i] in walks and embeddings.views[i] == view]
    accuracies = []
    for other in VIEWS:
        gallery = [
            i
            for i in everyone
            if embeddings.sequences[i] in ("nm-01", "nm-02", "nm-03", "nm-04") and embeddings.views[i] == other != view
        ]
        if not probes or not gallery:
            continue
        right = 0
        for probe in probes:
            one = embeddings.features[probe : probe + 1]
            nearest = min(gallery, key=lambda i: distance(one, embeddings.features[i : i + 1], name)[0, 0])
            right += embeddings.subjects[nearest] == embeddings.subjects[probe]
        accuracies.append(right / len(probes))
    return sum(accuracies) / len(accuracies) if accuracies else None


@pytest.mark.parametrize(("name", "table"), [("l2", "rank1_l2"), ("l1", "rank1_l1_as_shipped")])
def test_every_cell_equals_that_of_the_original_program(
    embeddings: Embeddings, reference: dict[str, np.ndarray], name: str, table: str
):
    result = evaluate_embeddings(embeddings, protocol="casia-b", distance=name)
    assert [list(views) for views in result.rank1.values()] == [[f"{v:03d}" for v in reference["view_names"]]] * 3
    np.testing.assert_allclose(np.array(cells(result), float), reference[table], rtol=0, atol=1e-6)
    assert (result.num_tied, result.num_repeated, result.num_unused) == (0, 0, 0)
    assert result.num_missing == 12 * 10 * 11 - 1289


@pytest.mark.parametrize(("name", "opengait"), [("part-l2", "euc"), ("part-cosine", "cos")])
def test_the_conditions_means_equal_those_of_opengait(
    embeddings: Embeddings, reference: dict[str, np.ndarray], name: str, opengait: str
):
    written = evaluate_embeddings(embeddings, distance=name).to_dict()
    means = [100 * written["rank1"][condition]["mean"] for condition in CONDITIONS]
    # OpenGait rounds each accuracy to 0.01 %.
    np.testing.assert_allclose(means, reference[f"opengait_rank1_{opengait}_percent"], rtol=0, atol=0.01)


@pytest.mark.parametrize("name", ["l2", "part-cosine"])
@pytest.mark.parametrize("keep", [0.9, 0.15])
def test_every_cell_equals_the_loop_over_pairs_with_walks_missing(name: str, keep: float):
    embeddings = random_walks(keep=keep)
    result = evaluate_embeddings(embeddings, distance=name)
    for condition, walks in (("nm", ("nm-05", "nm-06")), ("bg", ("bg-01", "bg-02")), ("cl", ("cl-01", "cl-02"))):
        for view in VIEWS:
            assert result.rank1[condition][view] == pytest.approx(slow_cell(embeddings, walks, view, name), abs=1e-12)


def test_a_cell_without_probes_is_none_is_named_and_stays_out_of_the_means():
    result = evaluate_embeddings(without(random_walks(keep=1), "018", "bg-01", "bg-02"))
    assert result.rank1["bg"]["018"] is None
    assert result.missing == ("no bg probe at view 018",)
    assert result.num_missing == 6 * 2
    present = [result.rank1["bg"][view] for view in ("000", "036")]
    assert None not in present
    assert result.to_dict()["rank1"]["bg"]["mean"] == pytest.approx(np.mean(np.array(present, float)))


def test_a_condition_without_probes_is_none_and_stays_out_of_the_headline():
    embeddings = random_walks(keep=1)
    result = evaluate_embeddings(embeddings.select(~np.isin(embeddings.sequences, ["cl-01", "cl-02"])))
    written = result.to_dict()
    assert written["rank1"]["cl"] == {"views": dict.fromkeys(VIEWS), "mean": None}
    assert written["mean"] == pytest.approx((written["rank1"]["nm"]["mean"] + written["rank1"]["bg"]["mean"]) / 2)
    assert result.missing == ("no cl probe at all (cl-01, cl-02)",)


def test_a_gallery_view_that_is_missing_is_named_and_left_out_of_the_cells_of_the_others():
    embeddings = random_walks(keep=1)
    gallery = ("nm-01", "nm-02", "nm-03", "nm-04")
    result = evaluate_embeddings(without(embeddings, "036", *gallery))
    assert result.missing == ("no gallery at view 036",)
    only_two_views = evaluate_embeddings(embeddings.select(embeddings.views != "036"))
    assert result.rank1["nm"]["000"] == only_two_views.rank1["nm"]["000"]


def test_with_a_gallery_at_one_view_only_that_views_probes_are_missing():
    embeddings = random_walks()
    gallery = ("nm-01", "nm-02", "nm-03", "nm-04")
    result = evaluate_embeddings(without(without(embeddings, "018", *gallery), "036", *gallery))
    assert result.rank1["nm"]["000"] is None
    assert result.rank1["nm"]["018"] is not None
    assert "no gallery at another view for probes of view 000" in result.missing


def test_a_probe_whose_subject_has_no_gallery_item_at_a_view_counts_as_wrong_there():
    features = np.eye(4, dtype=np.float32).reshape(4, 1, 4)
    embeddings = Embeddings(
        features=features[[0, 1, 0]],
        subjects=np.array(["a", "b", "a"]),
        views=np.array(["000", "000", "090"]),
        sequences=np.array(["nm-05", "nm-05", "nm-01"]),
    )
    result = evaluate_embeddings(embeddings)
    assert result.rank1["nm"]["000"] == 0.5
    assert result.num_unmatched == 1
    assert result.remarks == (
        "1 probes whose subject has no gallery item at any of the other views count as wrong there: b/nm-05/000",
    )


def test_a_probe_whose_subject_is_absent_at_some_of_the_gallery_views_is_named():
    embeddings = random_walks(keep=1)
    gallery = np.isin(embeddings.sequences, ["nm-01", "nm-02", "nm-03", "nm-04"])
    result = evaluate_embeddings(
        embeddings.select(~(gallery & (embeddings.subjects == "c") & (embeddings.views == "036")))
    )
    assert result.num_unmatched == 0
    # Six probe walks at each of the views 000 and 018.
    assert result.remarks == (
        "12 probes whose subject has no gallery item at some of the other views count as wrong there: "
        "c/nm-05/000, c/nm-06/000, c/bg-01/000, c/bg-02/000, c/cl-01/000, ...",
    )
    assert result.missing == ("4 gallery sequences are missing: c/nm-01/036, c/nm-02/036, c/nm-03/036, c/nm-04/036",)


def test_what_is_not_there_is_null_in_json_never_nan_or_zero():
    embeddings = random_walks(keep=1)
    few = embeddings.select(np.isin(embeddings.sequences, ["nm-01", "nm-05"]) & (embeddings.views != "018"))
    written = json.loads(json.dumps(evaluate_embeddings(few).to_dict(), allow_nan=False))
    for condition in ("bg", "cl"):
        assert written["rank1"][condition] == {"views": {"000": None, "036": None}, "mean": None}
    assert written["mean"] == written["rank1"]["nm"]["mean"]
    assert written["counts"] == {
        "subjects": 6,
        "gallery_subjects": 6,
        "probes": 12,
        "gallery": 12,
        "tied_probes": 0,
        "unmatched_probes": 0,
        "missing_sequences": 6 * 2 * 10 - 24,
        "repeated_rows": 0,
        "unused_sequences": 0,
    }
    assert written["missing"] == [
        "no gallery of 3 walks: nm-02, nm-03, nm-04",
        "no nm probe of walk nm-06",
        "no bg probe at all (bg-01, bg-02)",
        "no cl probe at all (cl-01, cl-02)",
    ]


def test_the_json_has_fractions_by_condition_and_view(embeddings: Embeddings):
    written = json.loads(json.dumps(evaluate_embeddings(embeddings).to_dict(), allow_nan=False))
    about = ["protocol", "distance", "precision"]
    assert list(written) == [*about, "metrics", "conditions", "rank1", "mean", "counts", "missing", "remarks"]
    assert list(written["rank1"]) == list(CONDITIONS)
    assert set(written["rank1"]["nm"]) == {"views", "mean"}
    assert written["rank1"]["nm"]["views"]["000"] == pytest.approx(0.96956522, abs=1e-6)
    assert written["mean"] == pytest.approx(np.mean([written["rank1"][c]["mean"] for c in CONDITIONS]))
    assert written["metrics"]["rank1"] == written["mean"]
    assert list(written["conditions"]["cl"]) == ["rank1", "rank5", "rank10", "rank20", "mAP", "mINP", "views"]
    assert written["conditions"]["cl"]["rank1"] == pytest.approx(written["rank1"]["cl"]["mean"])
    assert written["conditions"]["cl"]["views"]["090"]["rank1"] == written["rank1"]["cl"]["views"]["090"]


def test_the_text_shows_percent_means_counts_chance_and_what_is_missing(embeddings: Embeddings):
    text = str(evaluate_embeddings(without(embeddings, "018", "nm-05", "nm-06"), distance="l2"))
    assert text.startswith("casia-b: rank-1 in %, excluding identical views, distance l2\n")
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line[:3].strip()}
    assert rows["000"] == ["97.0", "84.6", "67.0"]
    assert rows["018"] == ["–", "80.0", "73.9"]
    assert text.splitlines()[2] == "probe view    nm    bg    cl"
    assert next(line for line in text.splitlines() if line.startswith("mean ")).endswith("83.3  71.1")
    assert "12 subjects, " in text
    assert "chance level 8.3" in text
    assert "no nm probe at view 018" in text


def test_unknown_names_are_refused_before_any_work():
    with pytest.raises(ParameterError) as caught:
        check_names("casia", "l2")
    assert str(caught.value).startswith("protocol is 'casia', but must be one of casia-b, casia-b-cross-view, ")
    assert str(caught.value).endswith(", custom (did you mean 'casia-e'?)")
    with pytest.raises(ParameterError, match="distance is 'cosine', but must be one of "):
        check_names("casia-b", "cosine")
