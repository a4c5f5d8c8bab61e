"""Intervals and the comparison of two models: against loops over resamples, and what is matched with what."""

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import attengait
from attengait.cli.main import app
from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation import Embeddings, EvaluationOptions, blocks, evaluate_embeddings, save_embeddings
from attengait.evaluation.comparison import compare_embeddings

VIEWS = ("000", "090", "180")
NAMES = [(f"{s:03d}", walk, view) for s in range(12) for walk in ("00", "01") for view in VIEWS]


def made(noise: float, seed: int = 0, shift: int = 0) -> Embeddings:
    """Twelve subjects; the noise makes them harder to tell apart."""
    subjects, sequences, views = (np.array(column) for column in zip(*NAMES, strict=True))
    identity = {name: np.random.default_rng(int(name)).normal(size=(3, 4)) for name in np.unique(subjects).tolist()}
    random = np.random.default_rng(seed + 1000)
    features = np.stack([identity[name] + noise * random.normal(size=(3, 4)) + shift for name in subjects.tolist()])
    return Embeddings(features=features.astype(np.float32), subjects=subjects, sequences=sequences, views=views)


def rank1_of_subjects(embeddings: Embeddings, subjects: list[str]) -> float:
    """The mean of means when the probes of these subjects count, each as often as it is named."""
    of_views = []
    for view in VIEWS:
        cells = []
        for other in VIEWS:
            right = []
            for subject in subjects if view != other else ():
                probe = np.flatnonzero(
                    (embeddings.subjects == subject) & (embeddings.views == view) & (embeddings.sequences == "00")
                )[0]
                gallery = np.flatnonzero((embeddings.views == other) & (embeddings.sequences == "01"))
                gaps = np.square(embeddings.features[gallery] - embeddings.features[probe]).sum(axis=(1, 2))
                right.append(float(embeddings.subjects[gallery[gaps.argmin()]] == subject))
            if right:
                cells.append(sum(right) / len(right))
        of_views.append(sum(cells) / len(cells))
    return sum(of_views) / len(of_views)


def test_an_interval_is_that_of_resampled_subjects() -> None:
    embeddings = made(1.2)
    options = EvaluationOptions(bootstrap=150, seed=3)
    result = evaluate_embeddings(embeddings, protocol="oumvlp", options=options)
    random = np.random.default_rng([3, 0])
    people = np.unique(embeddings.subjects)
    drawn = np.concatenate([random.integers(0, 12, (size, 12)) for size in (100, 50)])
    samples = [rank1_of_subjects(embeddings, people[row].tolist()) for row in drawn]
    assert result.intervals is not None
    expected = np.quantile(samples, [0.025, 0.975])
    np.testing.assert_allclose(result.intervals["metrics"]["rank1"], expected, rtol=1e-12)
    np.testing.assert_allclose(result.intervals["conditions"]["nm"]["rank1"], expected, rtol=1e-12)
    assert expected[0] < (result.mean or 0) < expected[1]
    assert result.intervals["subjects"] == 12
    assert "95 % intervals over 12 subjects, 150 resamples: rank-1" in str(result)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["intervals"]["seed"] == 3
    again = evaluate_embeddings(embeddings, protocol="oumvlp", options=options)
    other = evaluate_embeddings(embeddings, protocol="oumvlp", options=EvaluationOptions(bootstrap=150, seed=4))
    assert again == result
    assert other.intervals is not None
    assert other.intervals["metrics"] != result.intervals["metrics"]
    # No order of the rows changes it.
    order = np.random.default_rng(0).permutation(len(embeddings))
    shuffled = evaluate_embeddings(embeddings.select(order), protocol="oumvlp", options=options)
    assert shuffled.intervals is not None
    np.testing.assert_allclose(shuffled.intervals["metrics"]["mAP"], result.intervals["metrics"]["mAP"], rtol=1e-12)


def test_a_better_model_is_found_better_and_the_same_is_not() -> None:
    good, bad = made(0.6), made(3.0, seed=1)
    found = compare_embeddings(bad, good, protocol="oumvlp")
    rank1 = found.figures[0]
    assert rank1.figure == "rank1"
    assert rank1.first == evaluate_embeddings(bad, protocol="oumvlp").mean
    assert rank1.second == evaluate_embeddings(good, protocol="oumvlp").mean
    assert rank1.difference is not None
    assert rank1.interval[0] is not None
    assert rank1.difference > rank1.interval[0] > 0
    assert rank1.p_value is not None
    assert rank1.p_value < 0.01
    same = compare_embeddings(good, good, protocol="oumvlp")
    assert [(each.difference, each.interval, each.p_value) for each in same.figures] == [(0, (0, 0), 1)] * 6


def test_the_p_value_is_the_share_of_exchanges_of_whole_subjects() -> None:
    one, other = made(1.6), made(1.3, seed=7)
    options = EvaluationOptions(bootstrap=60, seed=5)
    found = compare_embeddings(one, other, protocol="oumvlp", options=options).figures[0]
    assert found.difference is not None
    people = np.unique(one.subjects)
    by_subject = np.array([[rank1_of_subjects(e, [name]) for name in people.tolist()] for e in (one, other)])
    stays = np.random.default_rng([5, 1]).integers(0, 2, (60, 12)).astype(bool)
    as_large = 0
    for row in stays:
        gaps = np.where(row, by_subject[1] - by_subject[0], by_subject[0] - by_subject[1])
        as_large += abs(gaps.mean()) >= abs(found.difference) - 1e-12
    assert found.p_value == pytest.approx((as_large + 1) / 61)


def test_the_command_compares_files_and_refuses_those_that_do_not_match(tmp_path: Path) -> None:
    good, bad = made(0.6), made(3.0, seed=1)
    save_embeddings(tmp_path / "a.npz", bad)
    save_embeddings(tmp_path / "b.npz", good.select(np.arange(len(good))[::-1]))
    words = ["compare", str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--protocol", "oumvlp"]
    done = CliRunner().invoke(app, [*words, "--json", str(tmp_path / "c.json"), "--bootstrap", "100"])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["resamples"] == 100
    assert written["figures"]["rank1"]["difference"] > 0
    assert "12 subjects with compared probes, 36 probes, 36 gallery items" in " ".join(done.output.split())
    lacking = good.select(~((good.subjects == "003") & (good.sequences == "00")))
    save_embeddings(tmp_path / "b.npz", lacking)
    refused = CliRunner().invoke(app, words)
    assert str(refused.exception) == (
        "the second embeddings lack 3 sequences of the other, such as 003/00/000; --only-common leaves out what one of "
        "them lacks (in Python: only_common=True)"
    )
    done = CliRunner().invoke(app, [*words, "--only-common"])
    assert done.exit_code == 0
    assert "3 sequences that the second embeddings lack are left out: 003/00/000" in " ".join(done.output.split())


def with_walks(embeddings: Embeddings, walks: dict[str, str]) -> Embeddings:
    """With other names of the walks."""
    return replace(embeddings, sequences=np.array([walks[walk] for walk in embeddings.sequences.tolist()]))


@pytest.mark.parametrize("few", [1, 12])
def test_where_resamples_lack_a_condition_or_a_view_the_headline_has_no_interval(few: int) -> None:
    gallery, coats = (with_walks(made(1.0), {"00": probe, "01": "nm-01"}) for probe in ("nm-05", "cl-01"))
    coats = coats.select((coats.sequences == "cl-01") & (coats.subjects < f"{few:03d}"))
    both = Embeddings(
        **{
            name: np.concatenate([getattr(gallery, name), getattr(coats, name)])
            for name in ("features", "subjects", "sequences", "views")
        }
    )
    sentence = (
        "no interval for {}: some resamples have none of the few subjects with probes of one condition or view there"
    )
    result = evaluate_embeddings(both, options=EvaluationOptions(bootstrap=200))
    assert result.intervals is not None
    conditions = result.intervals["conditions"]
    assert None not in conditions["nm"]["rank1"]
    there = few == 12
    assert (None in conditions["cl"]["rank1"]) != there
    assert (None in result.intervals["metrics"]["rank1"]) != there
    assert (sentence.format("cl, mean over conditions") in result.remarks) != there
    assert ("200 resamples: rank-1 –" in str(result)) != there
    found = attengait.compare(both, both, options=EvaluationOptions(bootstrap=200))
    assert (found.figures[0].interval == (None, None)) != there
    assert (sentence.format("rank1, rank5, rank10, rank20, mAP, mINP") in found.remarks) != there
    # The same of a view, of which the figures of a condition are a mean.
    one_view = made(1.0)
    one_view = one_view.select((one_view.subjects < f"{few:03d}") | (one_view.views != "180"))
    of_view = evaluate_embeddings(one_view, protocol="oumvlp", options=EvaluationOptions(bootstrap=200))
    assert of_view.intervals is not None
    assert (of_view.intervals["metrics"]["rank1"] == [None, None]) != there
    assert (sentence.format("nm, mean over conditions") in of_view.remarks) != there


def test_one_subject_has_no_interval_and_those_without_a_compared_probe_are_not_resampled() -> None:
    one = made(1.0).select(np.arange(6))
    result = evaluate_embeddings(one, protocol="oumvlp", options=EvaluationOptions(bootstrap=50))
    sentence = "no intervals: there must be 2 subjects with a probe that was compared, but there is 1"
    assert result.intervals is not None
    assert result.intervals["metrics"] == {name: [None, None] for name in result.metrics}
    assert result.remarks == (sentence,)
    found = attengait.compare(one, one, protocol="oumvlp", options=EvaluationOptions(bootstrap=50))
    assert {each.interval for each in found.figures} == {(None, None)}
    assert found.remarks == (sentence,)
    # In retrieval, probes without a match are left out: 3 subjects have a single sequence.
    some = made(1.0)
    some = some.select((some.subjects > "002") | ((some.sequences == "00") & (some.views == "000")))
    retrieval = evaluate_embeddings(some, protocol="retrieval", options=EvaluationOptions(bootstrap=50))
    assert retrieval.intervals is not None
    assert (retrieval.num_subjects, retrieval.intervals["subjects"]) == (12, 9)
    alone = some.select((some.sequences == "00") & (some.views == "000"))
    nothing = evaluate_embeddings(alone, protocol="retrieval", options=EvaluationOptions(bootstrap=50))
    assert nothing.intervals is not None
    assert nothing.intervals["metrics"]["rank1"] == [None, None]
    assert nothing.remarks[-1] == sentence.replace("is 1", "is 0")
    compared = attengait.compare(alone, alone, protocol="retrieval", options=EvaluationOptions(bootstrap=50))
    assert (compared.num_subjects, compared.figures[0].p_value) == (0, None)


def test_what_makes_no_sense_for_two_models_is_refused() -> None:
    embeddings = made(1.0)
    with pytest.raises(ParameterError, match="verification is True, but must be left out where two models are c"):
        attengait.compare(embeddings, embeddings, options=EvaluationOptions(verification=True, bootstrap=5))
    with pytest.raises(ParameterError, match="bootstrap is 0, but must be at least 1 where two models are compared"):
        attengait.compare(embeddings, embeddings, options=EvaluationOptions())
    twice = embeddings.select(np.array([0, *range(len(embeddings))]))
    with pytest.raises(AttenGaitError, match="the first embeddings have 1 rows of sequences that are there already"):
        attengait.compare(twice, embeddings, protocol="oumvlp")
    with pytest.raises(ParameterError, match="store is None, but must be given with a model"):
        attengait.compare("run", embeddings)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"bootstrap": -1}, "bootstrap is -1, but must be a number of resamples"),
        ({"seed": 1.5}, "seed is 1.5, but must be a whole number from 0 on"),
        ({"seed": 3}, "seed is 3, but must be left out where bootstrap is 0"),
        ({"leave_out": "x"}, "leave_out is 'x', but must be one of nothing, same-view"),
        ({"fuse_weight": 0.5}, "fuse_weight is 0.5, but must be left out where nothing is fused"),
        ({"fuse": made(1.0), "fuse_weight": 1.0}, "fuse_weight is 1.0, but must be between 0 and 1"),
        ({"gallery": "walk=x"}, "gallery is 'walk=x', but must be a list of filters"),
    ],
)
def test_options_outside_what_is_accepted_are_refused(values: dict[str, object], what: str) -> None:
    with pytest.raises(ParameterError, match=what):
        EvaluationOptions(**values)  # type: ignore[arg-type]


def test_fused_distances_are_the_weighted_sum_of_standardised_ones() -> None:
    one, other = made(1.6), made(1.3, seed=7, shift=5)
    order = np.random.default_rng(1).permutation(len(other))
    options = EvaluationOptions(fuse=other.select(order), fuse_weight=0.3)
    result = evaluate_embeddings(
        one,
        protocol="custom",
        options=EvaluationOptions(gallery=["walk=01"], probes=["walk=00"], fuse=options.fuse, fuse_weight=0.3),
    )
    gallery, probes = one.sequences == "01", one.sequences == "00"
    right = []
    for probe in np.flatnonzero(probes):
        total = np.zeros(gallery.sum())
        for embeddings, weight in ((one, 0.7), (other, 0.3)):
            gaps = np.sqrt(np.square(embeddings.features[gallery] - embeddings.features[probe]).sum(axis=(1, 2)))
            total += weight * (gaps - gaps.mean()) / gaps.std()
        right.append(one.subjects[gallery][total.argmin()] == one.subjects[probe])
    assert result.metrics["rank1"] == pytest.approx(np.mean(right), abs=1e-12)
    assert result.distance == "l2, fused with weight 0.3"
    views = evaluate_embeddings(one, protocol="oumvlp", options=options)
    assert views.mean != evaluate_embeddings(one, protocol="oumvlp").mean
    itself = evaluate_embeddings(one, protocol="oumvlp", options=EvaluationOptions(fuse=one))
    assert itself.mean == evaluate_embeddings(one, protocol="oumvlp").mean


def test_fusion_refuses_what_has_no_partner_or_counts_it() -> None:
    one = made(1.6)
    other = one.select(one.subjects != "003")
    with pytest.raises(AttenGaitError, match="the second embeddings lack 6 sequences of the other, such as 003/00/000"):
        evaluate_embeddings(one, protocol="oumvlp", options=EvaluationOptions(fuse=other))
    options = EvaluationOptions(fuse=other, only_common=True)
    result = evaluate_embeddings(one, protocol="oumvlp", options=options)
    assert result.num_subjects == 11
    assert result.remarks[0].startswith("6 sequences that the second embeddings lack are left out: 003/00/000, ")
    with pytest.raises(ParameterError, match="only_common is True, but must be left out where there is one set of"):
        evaluate_embeddings(one, protocol="oumvlp", options=EvaluationOptions(only_common=True))


def test_fused_distances_are_not_re_ranked() -> None:
    one, other = made(1.6), made(1.3, seed=7)
    filters = {"gallery": ["walk=01"], "probes": ["walk=00"]}
    with pytest.raises(ParameterError, match="rerank is True, but must be False where two models are fused"):
        evaluate_embeddings(one, protocol="custom", options=EvaluationOptions(fuse=other, rerank=True, **filters))


def test_fused_rows_have_blocks_of_one_size_where_the_first_takes_memory_from_the_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, options = made(1.6), EvaluationOptions(fuse=made(1.3, seed=7))
    whole = evaluate_embeddings(one, protocol="oumvlp", options=options)
    monkeypatch.setattr(blocks, "PROBE_TILE", 2)
    free = count(1000, -100)
    monkeypatch.setattr(blocks.DistanceRows, "_block_bytes", lambda self: next(free) % 1100)
    assert evaluate_embeddings(one, protocol="oumvlp", options=options).rank1 == whole.rank1


def test_a_comparison_says_what_is_missing_and_what_is_unmatched() -> None:
    embeddings = made(1.0)
    some = embeddings.select(~((embeddings.subjects == "003") & (embeddings.sequences == "01")))
    remarks = attengait.compare(some, some, protocol="oumvlp", options=EvaluationOptions(bootstrap=5)).remarks
    assert "no gallery of subject 003" in remarks
    assert any(text.startswith("3 probes whose subject has no gallery item at any of the other") for text in remarks)


def test_a_comparison_says_what_an_evaluation_says_of_ties_unused_sequences_and_precision() -> None:
    one = replace(made(1.0), precision="fp32")
    one = with_walks(one, {"00": "00", "01": "01"})
    one.sequences[:1] = "02"
    same = replace(one, features=np.ones_like(one.features), precision="bf16")
    found = attengait.compare(one, same, protocol="oumvlp", options=EvaluationOptions(bootstrap=5))
    evaluated = evaluate_embeddings(same, protocol="oumvlp")
    assert evaluated.num_tied == 35
    assert found.notes[2:4] == [
        "probes with a match and another person at the same distance: 0 of A and 35 of B: the mean over all orders",
        "A was computed in fp32 and B in bf16",
    ]
    assert set(evaluated.remarks) <= set(found.remarks)
    assert "1 sequences that the protocol does not use, of the walks 02" in found.remarks
    written = found.to_dict()
    assert written["precision"] == ["fp32", "bf16"]
    of_one = evaluated.to_dict()["counts"]
    counts = {name: of_one[name] for name in ("probes", "gallery", "unmatched_probes", "missing_sequences")}
    counts |= {"subjects": 12, "tied_probes": [0, 35], "unused_sequences": 1}
    assert written["counts"] == counts
    again = attengait.compare(one, one, protocol="oumvlp", options=EvaluationOptions(bootstrap=5))
    assert not any("computed in" in note for note in again.notes)


def test_two_models_whose_columns_choose_other_probes_are_refused() -> None:
    one = replace(made(1.0), extra={"camera": np.arange(len(NAMES)) % 2})
    other = replace(one, extra={"camera": (np.arange(len(NAMES)) % 4 > 0).astype(int)})
    options = EvaluationOptions(gallery=["camera=0"], probes=["camera=1"], bootstrap=5)
    with pytest.raises(
        AttenGaitError,
        match="the columns of the two embeddings differ: 18 sequences are a probe in one and not in the other, such as "
        "000/00/180",
    ):
        attengait.compare(one, other, protocol="custom", options=options)
    options = EvaluationOptions(gallery=["camera=0"], probes=["view=000"], bootstrap=5)
    swapped = replace(one, extra={"camera": 1 - one.extra["camera"]})
    with pytest.raises(AttenGaitError, match="72 sequences are a gallery item in one and not in the other"):
        attengait.compare(one, swapped, protocol="custom", options=options)
    assert attengait.compare(one, one, protocol="custom", options=options).num_probes == 24


def test_a_comparison_that_cannot_be_made_is_refused_before_anything_is_embedded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def embed(*arguments: object, **named: object) -> Embeddings:
        raise AssertionError("embedded")

    monkeypatch.setattr("attengait.pipelines.evaluate._embeddings", embed)
    with pytest.raises(ParameterError, match="bootstrap is 0, but must be at least 1 where two models are compared"):
        attengait.compare("a", "b", "store", options=EvaluationOptions())
    monkeypatch.undo()
    other = replace(made(1.0), sequences=np.full(len(NAMES), "walk"))
    with pytest.raises(AttenGaitError, match="protocol oumvlp fits no sequence of the embeddings"):
        # The second would be refused as a model without a store: the first is checked before it.
        attengait.compare(other, "run", protocol="oumvlp")
