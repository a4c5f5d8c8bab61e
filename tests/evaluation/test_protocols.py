"""Protocols and sequences that do not fit, rows that are repeated, and scores that no order of rows changes."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.errors import AttenGaitError
from attengait.evaluation import DISTANCES, Embeddings, check_fit, evaluate_embeddings

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)
WALKS = ("nm-01", "nm-02", "nm-05", "bg-01", "bg-02", "cl-01", "cl-02")
VIEWS = ("000", "090")
PROTOCOLS = ("casia-b", "casia-b-cross-view")
SUBJECTS = ("001", "002", "003", "004")
NAMES = [(subject, walk, view) for subject in SUBJECTS for walk in WALKS for view in VIEWS]


def embeddings_of(names: list[tuple[str, str, str]], features: Any) -> Embeddings:
    subjects, sequences, views = (np.array(column) for column in zip(*names, strict=True))
    return Embeddings(features=np.asarray(features, np.float32), subjects=subjects, sequences=sequences, views=views)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_model_that_gives_everybody_the_same_embedding_is_as_good_as_guessing(protocol: str, distance: str):
    order = np.random.default_rng(0).permutation(len(NAMES))
    everybody = embeddings_of(NAMES, np.tile(np.random.default_rng(1).normal(size=(1, 2, 3)), (len(NAMES), 1, 1)))
    for rows in (np.arange(len(NAMES)), np.arange(len(NAMES))[::-1], order):
        result = evaluate_embeddings(everybody.select(rows), protocol=protocol, distance=distance)
        # With one gallery, 3 of the 24 - 3 items match.
        right = 1 / 4 if protocol == "casia-b" else 3 / 21
        assert list(result.rank1["nm"].values()) == pytest.approx([right, right], abs=1e-15)
        assert result.num_tied == result.num_probes
        assert result.to_dict()["counts"]["tied_probes"] == result.num_probes
        assert f"{result.num_probes} probes with a match and another person at the same distance: the mean" in str(
            result
        )


@PROPERTY
@given(data=st.data(), protocol=st.sampled_from(sorted(PROTOCOLS)), distance=st.sampled_from(sorted(DISTANCES)))
def test_no_order_of_rows_changes_a_table_with_ties(data: st.DataObject, protocol: str, distance: str):
    kinds = data.draw(st.lists(st.integers(0, 3), min_size=len(NAMES), max_size=len(NAMES)))
    rows = np.array(data.draw(st.permutations(range(len(NAMES)))))
    vectors = np.random.default_rng(0).normal(size=(4, 2, 3))
    embeddings = embeddings_of(NAMES, vectors[kinds])
    first = evaluate_embeddings(embeddings, protocol=protocol, distance=distance)
    second = evaluate_embeddings(embeddings.select(rows), protocol=protocol, distance=distance)
    assert first == second


def test_a_protocol_that_fits_no_sequence_is_refused_and_those_that_fit_are_named():
    with pytest.raises(AttenGaitError) as caught:
        check_fit("casia-b", np.array(["w1", "01"] * 2), np.array(["0", "0", "270", "270"]), where="oumvlp.npz")
    assert str(caught.value) == (
        "protocol casia-b fits no sequence of oumvlp.npz: it compares probes nm-05, nm-06, bg-01, bg-02, cl-01, cl-02 "
        "with the gallery nm-01, nm-02, nm-03, nm-04 at other views, but the 4 sequences there have the walks 01, w1 "
        "and the views 000, 270; none of casia-b, casia-b-cross-view, casia-e, ccpg, grew, oumvlp, oumvlp-cross-view, "
        "sustech1k fits"
    )
    with pytest.raises(AttenGaitError, match=r"; oumvlp, oumvlp-cross-view fit$"):
        check_fit("casia-b", np.array(["00", "01"]), np.array(["000", "090"]), where="x")
    with pytest.raises(AttenGaitError, match=r"; casia-b-cross-view fits$"):
        check_fit("casia-b", np.array(["cl-01", "cl-02"]), np.array(["000", "090"]), where="x")
    with pytest.raises(AttenGaitError, match=r"but there are no sequences; none of "):
        check_fit("casia-b", np.array([], str), np.array([], str), where="x")
    with pytest.raises(AttenGaitError, match=r"and the views 000; none of "):
        check_fit("casia-b", np.array(["nm-01", "nm-05"]), np.array(["0", "000"]), where="x")
    for protocol in PROTOCOLS:
        check_fit(protocol, np.array([walk for _, walk, _ in NAMES]), np.array([v for _, _, v in NAMES]), where="x")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_repeated_rows_and_unused_walks_are_counted_and_named(protocol: str):
    features = np.random.default_rng(0).normal(size=(len(NAMES), 2, 3))
    names = [*NAMES, ("001", "nm-01", "0"), ("001", "nm-01", "00"), ("001", "xx-01", "000"), ("1", "nm-01", "090")]
    result = evaluate_embeddings(embeddings_of(names, np.concatenate([features, features[:4]])), protocol=protocol)
    written = json.loads(json.dumps(result.to_dict()))
    assert written["counts"]["repeated_rows"] == 2
    assert "2 repeated rows of sequences that are there already, each row counts: 001/nm-01/000" in written["remarks"]
    unused = next(remark for remark in written["remarks"] if "that the protocol does not use" in remark)
    assert unused.startswith(
        f"{written['counts']['unused_sequences']} sequences that the protocol does not use, of the walks "
    )
    assert unused.endswith("xx-01")
    assert "subjects whose names are the same number count as different people: 001, 1" in written["remarks"]
    assert all(remark in str(result) for remark in written["remarks"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_view_written_in_two_ways_is_one_view(protocol: str):
    features = np.random.default_rng(0).normal(size=(len(NAMES), 2, 3))
    mixed = [(s, w, "0" if v == "000" and s == "001" else v) for s, w, v in NAMES]
    expected = evaluate_embeddings(embeddings_of(NAMES, features), protocol=protocol)
    assert evaluate_embeddings(embeddings_of(mixed, features), protocol=protocol) == expected
