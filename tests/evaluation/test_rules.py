"""Each protocol against OpenGait's figures for the same embeddings, and what does not fit one."""

import json
from pathlib import Path

import numpy as np
import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation import Embeddings, EvaluationOptions, EvaluationResult, evaluate_embeddings, rules

PERCENT_ROUNDED = 0.011
"""OpenGait rounds cells to 0.01 % before it averages."""
DISTANCES = {"euc": "part-l2", "cos": "part-cosine"}


@pytest.fixture(scope="module")
def reference(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "evaluation_protocols.npz") as file:
        return dict(file)


def of(reference: dict[str, np.ndarray], name: str) -> Embeddings:
    return Embeddings(
        features=reference[f"{name}_features"],
        subjects=reference[f"{name}_subjects"],
        sequences=reference[f"{name}_walks"],
        views=reference[f"{name}_views"],
        feature_order="parts-first",
    )


def partition(folder: Path, reference: dict[str, np.ndarray]) -> EvaluationOptions:
    path = folder / "Gait3D.json"
    subjects = sorted(set(reference["gait3d_subjects"].tolist()))
    sets = {"TRAIN_SET": ["9999"], "TEST_SET": subjects, "PROBE_SET": reference["gait3d_probes"].tolist()}
    path.write_text(json.dumps(sets))
    return EvaluationOptions(partition=path)


@pytest.mark.parametrize("metric", DISTANCES)
def test_casia_b_and_oumvlp_equal_opengait(reference: dict[str, np.ndarray], metric: str) -> None:
    name = DISTANCES[metric]
    for data, protocol, conditions in (
        ("casiab_crossview", "casia-b-cross-view", ("nm", "bg", "cl")),
        ("oumvlp_crossview", "oumvlp-cross-view", ("nm",)),
    ):
        embeddings = of(reference, data if data in ("casiab_crossview",) else "oumvlp")
        result = evaluate_embeddings(embeddings, protocol=protocol, distance=name)
        for condition in conditions:
            for ours, theirs in (("rank1", "Rank@1"), ("mAP", "mAP")):
                expected = float(reference[f"{data}_{metric}_{condition.upper()}-{theirs}"])
                assert 100 * (result.conditions[condition][ours] or 0) == pytest.approx(expected, abs=PERCENT_ROUNDED)
    result = evaluate_embeddings(of(reference, "oumvlp"), protocol="oumvlp", distance=name)
    expected = float(reference[f"oumvlp_{metric}_rank1_mean"])
    assert 100 * (result.mean or 0) == pytest.approx(expected, abs=PERCENT_ROUNDED)
    assert list(result.rank1["nm"]) == ["000", "030", "060", "090", "180", "210", "240", "270"]


def test_sustech1k_equals_opengait_at_each_rank_and_its_headline_is_overall(reference: dict[str, np.ndarray]) -> None:
    result = evaluate_embeddings(of(reference, "sustech1k"), protocol="sustech1k", distance="part-l2")
    assert len(result.conditions) == 9
    for condition, figures in result.conditions.items():
        name = {"umbrella": "Umberalla"}.get(condition, condition.capitalize())
        for rank in range(1, 6):
            expected = float(reference[f"sustech1k_euc_{name}_rank{rank}"])
            assert 100 * (figures[f"rank{rank}"] or 0) == pytest.approx(expected, abs=PERCENT_ROUNDED)
    assert result.metrics == result.conditions["overall"]
    assert result.mean == result.conditions["overall"]["rank1"]


def test_grew_equals_opengait(reference: dict[str, np.ndarray]) -> None:
    result = evaluate_embeddings(of(reference, "grew"), protocol="grew", distance="part-l2")
    for rank in (1, 5, 10, 20):
        expected = float(reference[f"grew_euc_rank{rank}"])
        assert 100 * (result.metrics[f"rank{rank}"] or 0) == pytest.approx(expected, abs=PERCENT_ROUNDED)


@pytest.mark.parametrize("metric", DISTANCES)
@pytest.mark.parametrize("protocol", ["gait3d", "retrieval"])
def test_gait3d_equals_opengait(reference: dict[str, np.ndarray], tmp_path: Path, metric: str, protocol: str) -> None:
    options = partition(tmp_path, reference)
    embeddings = of(reference, "gait3d")
    result = evaluate_embeddings(embeddings, protocol=protocol, distance=DISTANCES[metric], options=options)
    for ours, theirs in (("rank1", "Rank-1"), ("rank5", "Rank-5"), ("rank10", "Rank-10"), ("mAP", "mAP")):
        expected = float(reference[f"gait3d_{metric}_{theirs}"])
        assert 100 * (result.metrics[ours] or 0) == pytest.approx(expected, abs=1e-4)
    assert 100 * (result.metrics["mINP"] or 0) == pytest.approx(float(reference[f"gait3d_{metric}_mINP"]), abs=1e-4)


def test_ccpg_equals_opengait_in_both_of_its_protocols(reference: dict[str, np.ndarray]) -> None:
    result = evaluate_embeddings(of(reference, "ccpg"), protocol="ccpg", distance="part-l2")
    excluded, included = "exclude_identical_view_cases", "include_identical_view_cases"
    for ours, theirs in (
        ("rank1", f"rank_1_{excluded}_for_person_re_identification"),
        ("mAP", f"map_{excluded}_for_person_re_identification"),
        ("mINP", f"minp_{excluded}_for_person_re_identification"),
        ("rank1_all_views", f"rank_1_{included}"),
        ("rank1_other_views", f"rank_1_{excluded}"),
    ):
        figures = [100 * (result.conditions[condition][ours] or 0) for condition in ("cl", "up", "dn", "bg")]
        np.testing.assert_allclose(figures, reference[f"ccpg_{theirs}"], rtol=0, atol=PERCENT_ROUNDED)


def made(walks: tuple[str, ...], views: tuple[str, ...], keep: float, seed: int = 0) -> Embeddings:
    """Sequences of six subjects, of which only some exist."""
    random = np.random.default_rng(seed)
    names = [(s, w, v) for s in "abcdef" for w in walks for v in views if random.random() < keep]
    subjects, sequences, view_names = (np.array(column) for column in zip(*names, strict=True))
    identity = {s: random.normal(size=(2, 3)) for s in "abcdef"}
    features = np.stack([identity[s] + 1.5 * random.normal(size=(2, 3)) for s in subjects]).astype(np.float32)
    return Embeddings(features=features, subjects=subjects, sequences=sequences, views=view_names)


def test_custom_filters_the_columns_of_the_data_set() -> None:
    embeddings = made(("w1", "w2"), ("000",), 1.0)
    camera = np.where(embeddings.sequences == "w1", 1, 2)
    both = Embeddings(
        features=embeddings.features,
        subjects=embeddings.subjects,
        sequences=embeddings.sequences,
        views=embeddings.views,
        extra={"camera": camera},
    )
    options = EvaluationOptions(gallery=["camera=1"], probes=["camera=2"])
    walks = EvaluationOptions(gallery=["walk=w1"], probes=["walk=w2"])
    result = evaluate_embeddings(both, protocol="custom", options=options)
    assert result == evaluate_embeddings(embeddings, protocol="custom", options=walks)
    wrong = EvaluationOptions(gallery=["clothes=1"], probes=["camera=2"])
    with pytest.raises(ParameterError, match="gallery is 'clothes', but must be a filter on one of subject, walk, v"):
        evaluate_embeddings(both, protocol="custom", options=wrong)


# What does not fit is refused.


def test_a_protocol_on_another_data_set_is_refused_with_what_is_missing(
    reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    sets = {"casia-b": "casiab_crossview", "oumvlp": "oumvlp", "sustech1k": "sustech1k", "grew": "grew", "ccpg": "ccpg"}
    fits = {"casiab_crossview": {"casia-b", "casia-b-cross-view"}, "oumvlp": {"oumvlp", "oumvlp-cross-view"}}
    fits |= {name: {name} for name in ("sustech1k", "grew", "ccpg")}
    for data in sets.values():
        for protocol, rule in rules().items():
            if rule.probes_are == "walks" and protocol not in fits[data]:
                with pytest.raises(AttenGaitError, match=f"^protocol {protocol} fits no sequence of the embeddings: "):
                    evaluate_embeddings(of(reference, data), protocol=protocol)
    options = partition(tmp_path, reference)
    with pytest.raises(AttenGaitError, match="has none of the 20 subjects in TEST_SET"):
        evaluate_embeddings(of(reference, "oumvlp"), protocol="gait3d", options=options)
    renamed = of(reference, "gait3d")
    renamed = Embeddings(
        features=renamed.features,
        subjects=renamed.subjects,
        sequences=np.char.add(renamed.sequences, "x"),
        views=renamed.views,
        feature_order="parts-first",
    )
    with pytest.raises(AttenGaitError, match=r"none of the 20 sequences in PROBE_SET of .* is there \(such as 0000-"):
        evaluate_embeddings(renamed, protocol="gait3d", options=options)


def test_protocols_that_need_a_partition_say_so() -> None:
    embeddings = made(("w1", "w2"), ("000",), 1.0)
    with pytest.raises(ParameterError, match="partition is missing, but must be a JSON file with PROBE_SET for the"):
        evaluate_embeddings(embeddings, protocol="gait3d")
    with pytest.raises(ParameterError, match="or write the file of the challenge with --submission"):
        evaluate_embeddings(embeddings, protocol="hid")
    with pytest.raises(ParameterError, match=r"gallery is \(\), but must be one or more filters for the protocol cust"):
        evaluate_embeddings(embeddings, protocol="custom")


def test_a_partition_chooses_the_subjects_and_names_those_that_are_absent(tmp_path: Path) -> None:
    embeddings = made(("00", "01"), ("000", "090"), 1.0)
    (tmp_path / "p.json").write_text(json.dumps({"TRAIN_SET": ["a", "b"], "TEST_SET": ["c", "d", "z"]}))
    options = EvaluationOptions(partition=tmp_path / "p.json")
    result = evaluate_embeddings(embeddings, protocol="oumvlp", options=options)
    assert result == evaluate_embeddings_with_missing(embeddings, "1 subjects of TEST_SET are missing: z")
    assert result.num_subjects == 2


def evaluate_embeddings_with_missing(embeddings: Embeddings, missing: str) -> EvaluationResult:
    from dataclasses import replace

    some = evaluate_embeddings(embeddings.select(np.isin(embeddings.subjects, ["c", "d"])), protocol="oumvlp")
    return replace(some, missing=(missing, *some.missing))


def test_probes_of_the_partition_that_are_absent_are_counted(reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    options = partition(tmp_path, reference)
    embeddings = of(reference, "gait3d")
    names = ["-".join(name) for name in embeddings.names(np.arange(len(embeddings)))]
    fewer = embeddings.select(np.array(names) != reference["gait3d_probes"][3])
    result = evaluate_embeddings(fewer, protocol="gait3d", options=options)
    assert result.num_missing == 1
    assert result.missing == ("1 of 20 probes of PROBE_SET are missing: 0003-camid0_videoid2-seq0",)


@pytest.mark.parametrize("field", ["gallery", "probes"])
def test_options_that_a_protocol_does_not_take_are_refused(field: str) -> None:
    embeddings = made(("00", "01"), ("000", "090"), 1.0)
    with pytest.raises(ParameterError, match=f"{field} is .*, but must be left out for the protocol oumvlp, which has"):
        evaluate_embeddings(embeddings, protocol="oumvlp", options=EvaluationOptions(**{field: ["walk=01"]}))
    with pytest.raises(ParameterError, match="leave_out is 'same-view', but must be left out for the protocol oumvlp"):
        evaluate_embeddings(embeddings, protocol="oumvlp", options=EvaluationOptions(leave_out="same-view"))
    with pytest.raises(ParameterError, match="rerank is True, but must be left out for the protocol oumvlp, which c"):
        evaluate_embeddings(embeddings, protocol="oumvlp", options=EvaluationOptions(rerank=True))


def test_unmatched_probes_are_named_with_how_they_count(reference: dict[str, np.ndarray]) -> None:
    grew = of(reference, "grew")
    lacking = grew.select(~((grew.subjects == "3") & (grew.sequences == "01")))
    result = evaluate_embeddings(lacking, protocol="grew")
    assert result.num_unmatched == 1
    assert result.remarks == (
        "1 validation probes have no gallery item of their subject, so they count as wrong for rank-1 and are left out "
        "of mAP: 3/02/000",
    )
    ccpg = of(reference, "ccpg")
    lacking = ccpg.select(~((ccpg.subjects == "003") & (ccpg.sequences == "U0_D3")))
    remarks = evaluate_embeddings(lacking, protocol="ccpg").remarks
    assert remarks[0].startswith("6 up probes have no gallery item of their subject at another view, so they are left")


def test_a_probe_that_one_condition_cannot_match_is_counted_although_another_can(
    reference: dict[str, np.ndarray],
) -> None:
    ccpg = of(reference, "ccpg")
    lacking = ccpg.select(~((ccpg.subjects == "003") & (ccpg.sequences == "U0_D0")))
    result = evaluate_embeddings(lacking, protocol="ccpg")
    probes = [f"003/U0_D0_BG/{view}" for view in sorted(ccpg.views[ccpg.subjects == "003"])]
    number = int(((lacking.subjects == "003") & (lacking.sequences == "U0_D0_BG")).sum())
    assert result.num_unmatched == number > 0
    left_out, wrong = result.remarks
    assert left_out.startswith(
        f"{number} bg probes have no gallery item of their subject at another view, so they are left out: {probes[0]}, "
    )
    assert wrong.startswith(
        f"{number} bg probes whose subject has no gallery item at any of the views count as wrong there in rank-1 of "
        f"view pairs: {probes[0]}, "
    )
    at_one_view = (ccpg.subjects == "003") & (ccpg.sequences == "U0_D3") & np.char.startswith(ccpg.views, "01")
    (partly,) = evaluate_embeddings(ccpg.select(~at_one_view), protocol="ccpg").remarks
    assert " up probes whose subject has no gallery item at some of the views count as wrong there in rank-1" in partly


def test_every_rule_has_a_source_and_shows_figures_that_it_has() -> None:
    for name, rule in rules().items():
        assert rule.about, name
        assert rule.source, name
        assert 1 in rule.ranks
        known = {f"rank{k}" for k in rule.ranks} | {"mAP", "mINP", "rank1_all_views", "rank1_other_views"}
        assert set(rule.columns) <= known


def test_the_page_about_evaluation_has_a_row_for_each_protocol() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for name, rule in rules().items():
        row = next(line for line in rows if line.startswith(f"| `{name}`"))
        if rule.probes_are == "walks" and name not in ("casia-b", "casia-e"):  # whose walks are written in short
            assert all(f"`{walk.strip('*')}`" in row for walk in rule.all_gallery_walks)


def test_a_condition_of_ccpg_without_a_gallery_is_a_dash_and_is_named(reference: dict[str, np.ndarray]) -> None:
    ccpg = of(reference, "ccpg")
    whole = evaluate_embeddings(ccpg, protocol="ccpg")
    lacking = evaluate_embeddings(ccpg.select(ccpg.sequences != "U0_D3"), protocol="ccpg")
    assert set(lacking.conditions["up"].values()) == {None}
    assert lacking.conditions["dn"] == whole.conditions["dn"]
    assert "no up gallery at all (U0_D3)" in lacking.missing
