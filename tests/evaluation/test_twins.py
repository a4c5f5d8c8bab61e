"""Each protocol against a slow twin: loops over pairs, written from the protocols' descriptions.

The twins use neither the rules nor the distances of the package. A row is a sequence: subject, walk and view. A figure
is None where there is nothing to measure, and means are over those that are there.
"""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attengait.evaluation import Embeddings, EvaluationOptions, EvaluationResult, evaluate_embeddings, rules

Figures = dict[str, float | None]
Row = tuple[str, str, str]
Chosen = Callable[[str], bool]
"""Whether a walk is one of the gallery, or of the probes."""

RANKS = (1, 2, 3, 4, 5, 10, 20)
NAMES = (*(f"rank{k}" for k in RANKS), "mAP", "mINP")


def among(*walks: str) -> Chosen:
    return lambda walk: walk in walks


def naming(*words: str) -> Chosen:
    return lambda walk: any(word in walk for word in words)


def of_casia_e(condition: str) -> Chosen:
    return among(*(f"{h}-{s}-{condition}-{n}" for h in "HL" for s in ("scene2", "scene3", "scene3_s") for n in (1, 2)))


CASIA_B = among("nm-01", "nm-02", "nm-03", "nm-04")
CASIA_E = among("H-scene1-nm-1", "H-scene1-nm-2", "L-scene1-nm-1", "L-scene1-nm-2")
ALL_CLOTHES = among("nm-02", "bg-02", "cl-02")
CONDITIONS: dict[str, dict[str, tuple[Chosen, Chosen]]] = {
    "casia-b": {c: (CASIA_B, among(*walks)) for c, walks in (
        ("nm", ("nm-05", "nm-06")), ("bg", ("bg-01", "bg-02")), ("cl", ("cl-01", "cl-02")),
    )},
    "oumvlp": {"nm": (among("01"), among("00"))},
    "casia-e": {condition: (CASIA_E, of_casia_e(condition)) for condition in ("nm", "bg", "cl")},
    "sustech1k": {
        condition: (naming("00-nm"), naming(*words.split()))
        for condition, words in (
            *(("normal", "01-nm"), ("bag", "bg"), ("clothing", "cl"), ("carrying", "cr"), ("umbrella", "ub")),
            *(("uniform", "uf"), ("occlusion", "oc"), ("night", "nt"), ("overall", "01 02 03 04")),
        )
    },
    "casia-b-cross-view": {condition: (ALL_CLOTHES, among(f"{condition}-01")) for condition in ("nm", "bg", "cl")},
    "oumvlp-cross-view": {"nm": (among("01"), among("00"))},
    "grew": {"validation": (among("01"), among("02"))},
    "ccpg": {
        "cl": (among("U1_D1", "U2_D2", "U3_D3"), among("U0_D0_BG", "U0_D0")),
        "up": (among("U0_D3"), among("U3_D3")),
        "dn": (among("U1_D1"), among("U1_D0")),
        "bg": (among("U0_D0"), among("U0_D0_BG")),
    },
}  # fmt: skip
"""Of each condition: the gallery, and the probes."""

WALKS = {
    "casia-b": (*(f"nm-0{n}" for n in range(1, 7)), "bg-01", "bg-02", "cl-01", "cl-02"),
    "oumvlp": ("00", "01", "02"),
    "casia-e": [f"{h}-{s}-{c}-{n}" for h in "HL" for s in ("scene1", "scene2", "scene3_s") for c in ("nm", "cl")
                for n in (1, 3)] + ["L-scene3-bg-2"],
    "sustech1k": ("00-nm", "01-nm", "01-ub", "02-nt-bg", "02-cl", "03-uf", "03-cr", "04-oc", "05-cr"),
    "casia-b-cross-view": ("nm-01", "nm-02", "bg-01", "bg-02", "cl-01", "cl-02", "nm-03"),
    "oumvlp-cross-view": ("00", "01", "02"),
    "grew": ("01", "02", "03"),
    "ccpg": ("U0_D0_BG", "U0_D0", "U1_D1", "U2_D2", "U3_D3", "U0_D3", "U1_D0"),
}  # fmt: skip
"""Some of which the protocol does not use."""
VIEWS = {
    "oumvlp": tuple(f"{view:03d}" for view in (*range(0, 91, 15), *range(180, 271, 15))),
    "casia-e": ("000", "090", "270"),
    "sustech1k": ("000", "090-near", "180"),
    "grew": ("000",),
    "ccpg": ("01_0", "01_1", "02_0", "10"),
}


def between_all(features: NDArray[np.float32], distance: str) -> NDArray[np.float64]:
    """[n, n] distances between embeddings [n, parts, D], one row at a time."""
    everyone, rows = features.astype(float), []
    for one in everyone:
        if distance == "l2":
            rows.append(np.sqrt(((everyone - one) ** 2).sum(axis=(1, 2))))
        elif distance == "l1":
            rows.append(abs(everyone - one).sum(axis=(1, 2)))
        elif distance == "part-l2":
            rows.append(np.sqrt(((everyone - one) ** 2).sum(axis=2)).mean(axis=1))
        else:
            lengths = np.sqrt((everyone**2).sum(axis=2) * (one**2).sum(axis=1))
            rows.append((1 - (everyone * one).sum(axis=2) / lengths).mean(axis=1))
    return np.array(rows)


def of_probe(row: NDArray[np.float64], items: list[int], matches: list[int], *, unmatched: float | None) -> Figures:
    """Of one probe: `row` [n] are its distances, `items` what it is compared with, `matches` those of its subject."""
    if not items:
        return dict.fromkeys(NAMES)
    order = sorted(items, key=lambda item: row[item])
    places = [place for place, item in enumerate(order, start=1) if item in matches]
    if not places:
        return dict.fromkeys(NAMES[:-2], unmatched) | dict.fromkeys(NAMES[-2:])
    precisions = [(k + 1) / place for k, place in enumerate(places)]
    figures: Figures = {f"rank{k}": float(places[0] <= k) for k in RANKS}
    return figures | {"mAP": sum(precisions) / len(places), "mINP": len(places) / places[-1]}


def mean_of(each: list[Figures]) -> Figures:
    present = {name: [figures[name] for figures in each if figures[name] is not None] for name in NAMES}
    return {name: sum(some) / len(some) if some else None for name, some in present.items()}  # type: ignore[arg-type]


def compared(
    rows: list[Row],
    table: NDArray[np.float64],
    probe: int,
    gallery: list[int],
    *,
    own: int | None = None,
    unmatched: float | None = 0.0,
) -> Figures:
    """`own` 2: without the subject's items at the same view; 1: without those of the same walk."""
    subject = rows[probe][0]
    left_out = [] if own is None else [i for i in gallery if rows[i][0] == subject and rows[i][own] == rows[probe][own]]
    items = [item for item in gallery if item != probe and item not in left_out]
    return of_probe(table[probe], items, [i for i in items if rows[i][0] == subject], unmatched=unmatched)


def view_by_view(
    rows: list[Row], table: NDArray[np.float64], gallery: Chosen, probes: Chosen, *, identical_too: bool = False
) -> dict[str, Figures]:
    """By probe view: the mean over the gallery views of the mean over the probes."""
    views, found = sorted({view for _, _, view in rows}), {}
    for view in views:
        of_galleries = []
        for other in views:
            items = [i for i, row in enumerate(rows) if gallery(row[1]) and row[2] == other]
            if items and (other != view or identical_too):
                each = [i for i, row in enumerate(rows) if probes(row[1]) and row[2] == view]
                of_galleries.append(mean_of([compared(rows, table, probe, items) for probe in each]))
        found[view] = mean_of(of_galleries)
    return found


def in_one_gallery(
    rows: list[Row], table: NDArray[np.float64], gallery: Chosen, probes: Chosen, *, own: int | None, wrong: bool = True
) -> list[Figures]:
    """Of each probe."""
    items = [i for i, row in enumerate(rows) if gallery(row[1])]
    each = [i for i, row in enumerate(rows) if probes(row[1])]
    return [compared(rows, table, probe, items, own=own, unmatched=0.0 if wrong else None) for probe in each]


def made(walks: Any, views: Any, *, subjects: int = 6, keep: float, seed: int = 0) -> tuple[Embeddings, list[Row]]:
    """Embeddings of sequences of which only some exist, those of a subject a little alike, and their names."""
    random = np.random.default_rng(seed)
    rows = [row for row in product([f"{s:03d}" for s in range(subjects)], walks, views) if random.random() < keep]
    centre = {subject: random.normal(size=(2, 3)) for subject, _, _ in rows}
    features = np.stack([centre[row[0]] + 1.5 * random.normal(size=(2, 3)) for row in rows]).astype(np.float32)
    names = [np.array(column) for column in zip(*rows, strict=True)]
    embeddings = Embeddings(
        features=features, subjects=names[0], sequences=names[1], views=names[2], feature_order="parts-first"
    )
    return embeddings, rows


def assert_equal(found: Any, expected: Figures, names: tuple[str, ...] | None = None) -> None:
    """Of those figures that the result has."""
    names = names or tuple(name for name in NAMES if name in found)
    assert {"rank1", "mAP", "mINP"} <= set(names) or names == ("rank1", "rank5")
    assert {name: found[name] for name in names} == pytest.approx({name: expected[name] for name in names}, abs=1e-12)


@pytest.mark.parametrize("keep", [1.0, 0.5])
@pytest.mark.parametrize("protocol", ["casia-b", "oumvlp", "casia-e", "sustech1k"])
@pytest.mark.parametrize("distance", ["l2", "part-cosine"])
def test_protocols_of_views_equal_their_twin(protocol: str, keep: float, distance: str) -> None:
    embeddings, rows = made(WALKS[protocol], VIEWS.get(protocol, ("000", "018", "180")), subjects=4, keep=keep)
    written = evaluate_embeddings(embeddings, protocol=protocol, distance=distance).to_dict()
    table = between_all(embeddings.features, distance)
    if protocol == "casia-e":
        kept = [i for i, row in enumerate(rows) if row[2] != "270"]
        rows, table = [rows[i] for i in kept], table[np.ix_(kept, kept)]
    assert list(written["conditions"]) == list(CONDITIONS[protocol])
    of_conditions = []
    for condition, (gallery, probes) in CONDITIONS[protocol].items():
        by_view = view_by_view(rows, table, gallery, probes)
        of_conditions.append(mean_of(list(by_view.values())))
        assert_equal(written["conditions"][condition], of_conditions[-1])
        assert written["conditions"][condition]["views"].keys() == by_view.keys()
        for view, figures in by_view.items():
            assert_equal(written["conditions"][condition]["views"][view], figures)
    assert all(figures["rank1"] is not None for figures in of_conditions)
    assert_equal(written["metrics"], of_conditions[-1] if protocol == "sustech1k" else mean_of(of_conditions))


@pytest.mark.parametrize("keep", [1.0, 0.4])
@pytest.mark.parametrize("protocol", ["casia-b-cross-view", "oumvlp-cross-view", "grew", "ccpg"])
@pytest.mark.parametrize("distance", ["part-l2", "l1"])
def test_protocols_of_one_gallery_equal_their_twin(protocol: str, keep: float, distance: str) -> None:
    views = VIEWS.get(protocol, ("000", "090", "180"))
    embeddings, rows = made(WALKS[protocol], views, subjects=30 if protocol == "grew" else 6, keep=keep)
    written = evaluate_embeddings(embeddings, protocol=protocol, distance=distance).to_dict()
    table = between_all(embeddings.features, distance)
    rows = [(subject, walk, view.split("_")[0]) for subject, walk, view in rows]
    assert list(written["conditions"]) == list(CONDITIONS[protocol])
    of_conditions = []
    unmatched: set[int] = set()
    for condition, (gallery, probes) in CONDITIONS[protocol].items():
        own = None if protocol == "grew" else 2
        each = in_one_gallery(rows, table, gallery, probes, own=own, wrong=protocol != "ccpg")
        of_probes = zip([i for i, row in enumerate(rows) if probes(row[1])], each, strict=True)
        lacking = {probe for probe, figures in of_probes if figures["mAP"] is None}
        unmatched |= lacking
        start = f"{len(lacking)} {condition} probes have no gallery item of their subject"
        assert any(remark.startswith(start) for remark in written["remarks"]) == bool(lacking)
        figures = mean_of(each)
        if protocol.endswith("cross-view"):
            at = [row[2] for row in rows if probes(row[1])]
            by_view = {v: mean_of([f for f, place in zip(each, at, strict=True) if place == v]) for v in set(at)}
            figures = mean_of(list(by_view.values()))
            for view in by_view:
                assert_equal(written["conditions"][condition]["views"][view], by_view[view])
        of_conditions.append(figures)
        assert_equal(written["conditions"][condition], figures)
    assert any(figures["rank1"] is not None for figures in of_conditions)
    assert_equal(written["metrics"], mean_of(of_conditions))
    assert written["counts"]["unmatched_probes"] == len(unmatched)
    assert bool(unmatched) == (keep < 1)


@pytest.mark.parametrize("keep", [1.0, 0.4])
def test_view_pairs_of_ccpg_equal_their_twin_with_identical_views_and_without(keep: float) -> None:
    embeddings, rows = made(WALKS["ccpg"], VIEWS["ccpg"], keep=keep)
    conditions = evaluate_embeddings(embeddings, protocol="ccpg", distance="part-l2").conditions
    table = between_all(embeddings.features, "part-l2")
    rows = [(subject, walk, view.split("_")[0]) for subject, walk, view in rows]
    for condition, (gallery, probes) in CONDITIONS["ccpg"].items():
        for name, identical_too in (("rank1_all_views", True), ("rank1_other_views", False)):
            by_view = view_by_view(rows, table, gallery, probes, identical_too=identical_too)
            expected = mean_of(list(by_view.values()))["rank1"]
            assert expected is not None
            assert conditions[condition][name] == pytest.approx(expected, abs=1e-12)


def reranked(table: NDArray[np.float64], num_probes: int) -> NDArray[np.float64]:
    """[probes, gallery] from distances [n, n], the probes first: Zhong et al. with k1 6, k2 6 and lambda 0.3."""
    table = (table / table.max(axis=0)).T
    order, weights = np.argsort(table, axis=1), np.zeros_like(table)

    def reciprocal(item: int, count: int) -> set[int]:
        return {other for other in order[item, : count + 1].tolist() if item in order[other, : count + 1]}

    for item in range(len(table)):
        near = reciprocal(item, 6)
        others = [reciprocal(other, 3) for other in near]
        near = near.union(*(theirs for theirs in others if len(theirs & near) > 2 / 3 * len(theirs)))
        weights[item, list(near)] = np.exp(-table[item, list(near)])
        weights[item] /= weights[item].sum()
    weights = np.array([weights[order[item, :6]].mean(axis=0) for item in range(len(table))])
    common = [[np.minimum(one, other).sum() for other in weights[num_probes:]] for one in weights[:num_probes]]
    jaccard = 1 - np.array(common) / (2 - np.array(common))
    return np.array(0.7 * jaccard + 0.3 * table[:num_probes, num_probes:])


def with_partition(
    folder: Path, protocol: str, *, keep: float
) -> tuple[EvaluationResult, NDArray[np.float64], list[Row], list[int], list[int]]:
    """The result, distances between all, and which rows are probes and gallery: two subjects are no test subjects."""
    embeddings, rows = made(("camid0_videoid0", "camid1_videoid2"), ("seq0", "seq1"), subjects=14, keep=keep)
    in_test = [i for i, row in enumerate(rows) if row[0] not in ("003", "007")]
    probes = in_test[::3]
    sets = {"TRAIN_SET": ["003", "007"], "TEST_SET": sorted({rows[i][0] for i in in_test})}
    sets["PROBE_SET"] = ["-".join(rows[i]) for i in probes]
    (folder / "p.json").write_text(json.dumps(sets))
    options = EvaluationOptions(partition=folder / "p.json")
    result = evaluate_embeddings(embeddings, protocol=protocol, distance="part-l2", options=options)
    gallery = [i for i in in_test if i not in probes]
    assert (result.num_probes, result.num_gallery) == (len(probes), len(gallery))
    return result, between_all(embeddings.features, "part-l2"), rows, probes, gallery


@pytest.mark.parametrize("keep", [1.0, 0.5])
@pytest.mark.parametrize("protocol", ["gait3d", "retrieval"])
def test_gait3d_and_retrieval_with_a_partition_equal_their_twin(tmp_path: Path, protocol: str, keep: float) -> None:
    result, table, rows, probes, gallery = with_partition(tmp_path, protocol, keep=keep)
    each = [compared(rows, table, probe, gallery, unmatched=None) for probe in probes]
    assert result.num_unmatched == sum(figures["rank1"] is None for figures in each)
    assert (result.num_unmatched > 0) == (keep < 1)
    assert_equal(result.metrics, mean_of(each))


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_hid_with_labels_equals_its_re_ranked_twin(tmp_path: Path, keep: float) -> None:
    result, table, rows, probes, gallery = with_partition(tmp_path, "hid", keep=keep)
    both = probes + gallery
    nearness = np.full_like(table, np.nan)
    nearness[np.ix_(probes, gallery)] = reranked(table[np.ix_(both, both)], len(probes))
    expected = mean_of([compared(rows, nearness, probe, gallery) for probe in probes])
    assert_equal(result.metrics, expected)
    plain = mean_of([compared(rows, table, probe, gallery) for probe in probes])
    assert plain["mAP"] != pytest.approx(expected["mAP"], abs=1e-3)  # re-ranking changes something here


@pytest.mark.parametrize(("protocol", "own"), [("retrieval", None), ("cross-walk", 1)])
def test_each_sequence_against_all_others_equals_its_twin(protocol: str, own: int | None) -> None:
    embeddings, rows = made(("w1", "w2", "w3"), ("000", "090"), keep=0.5)
    table, everyone = between_all(embeddings.features, "l2"), list(range(len(rows)))
    each = [compared(rows, table, probe, everyone, own=own, unmatched=None) for probe in everyone]
    assert_equal(evaluate_embeddings(embeddings, protocol=protocol).metrics, mean_of(each))


@pytest.mark.parametrize("leave_out", ["nothing", "same-view"])
def test_custom_equals_its_twin_and_no_sequence_is_compared_with_itself(leave_out: str) -> None:
    embeddings, rows = made(("nm-01", "nm-02", "cl-01"), ("000", "045", "090"), keep=0.8)
    options = EvaluationOptions(
        gallery=["walk=nm-*", "view!=045"], probes=["walk=nm-02,cl-01", "subject=000,001,002"], leave_out=leave_out
    )
    result = evaluate_embeddings(embeddings, protocol="custom", options=options)
    gallery = [i for i, (_, walk, view) in enumerate(rows) if walk.startswith("nm-") and view != "045"]
    probes = [i for i, (subject, walk, _) in enumerate(rows) if subject < "003" and walk in ("nm-02", "cl-01")]
    assert set(gallery) & set(probes)
    assert (result.num_gallery, result.num_probes) == (len(gallery), len(probes))
    table, own = between_all(embeddings.features, "l2"), 2 if leave_out == "same-view" else None
    assert_equal(result.metrics, mean_of([compared(rows, table, probe, gallery, own=own) for probe in probes]))


def test_every_protocol_has_a_twin_here() -> None:
    assert set(rules()) == {*CONDITIONS, "gait3d", "retrieval", "hid", "cross-walk", "custom"}
