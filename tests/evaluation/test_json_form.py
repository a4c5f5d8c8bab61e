"""The JSON of each protocol, as a user reads it: the same keys in all, fractions of 1, nothing that has no meaning."""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attengait.evaluation import Embeddings, evaluate_embeddings, rules, save_embeddings

attengait = import_module("command").attengait

FIGURES = {"rank1", "rank5", "rank10", "rank20", "mAP", "mINP"}
COUNTS = {
    *("probes", "gallery", "subjects", "tied_probes"),
    *("gallery_subjects", "unmatched_probes", "missing_sequences", "repeated_rows", "unused_sequences"),
}
ADDED = {
    "sustech1k": {"rank2", "rank3", "rank4"},
    "ccpg": {"rank1_all_views", "rank1_other_views"},
}
OF_VIEWS = {"casia-b", "casia-b-cross-view", "casia-e", "oumvlp", "oumvlp-cross-view"}
PARTITIONED = {"gait3d", "retrieval", "hid"}
VIEWS = ("01_0", "02_0")


def made(walks: tuple[str, ...], views: tuple[str, ...] = VIEWS) -> Embeddings:
    rows = [(f"{s:03d}", walk, view) for s in range(8) for walk in walks for view in views]
    subjects, sequences, names = (np.array(column) for column in zip(*rows, strict=True))
    features = np.random.default_rng(0).normal(size=(len(rows), 2, 3)).astype(np.float32)
    return Embeddings(features=features, subjects=subjects, sequences=sequences, views=names)


def numbers(tree: Any) -> Iterator[float]:
    """Every figure: it must be there, and between 0 and 1."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from numbers(value)
    else:
        yield tree


@pytest.mark.parametrize("protocol", rules())
def test_each_protocol_writes_the_same_form(protocol: str, tmp_path: Path) -> None:
    rule = rules()[protocol]
    walks = tuple(dict.fromkeys(walk.replace("*", "-") for walk in rule.all_walks)) or ("w1", "w2")
    embeddings = made(walks)
    save_embeddings(tmp_path / "e.npz", embeddings)
    words = ["evaluate", "--embeddings", tmp_path / "e.npz", "--protocol", protocol, "--json", tmp_path / "t.json"]
    if protocol in PARTITIONED:
        subjects = sorted(set(embeddings.subjects.tolist()))
        probes = [f"{subject}-w2-01_0" for subject in subjects[2:]]
        partition = {"TRAIN_SET": subjects[:2], "TEST_SET": subjects[2:], "PROBE_SET": probes}
        (tmp_path / "p.json").write_text(json.dumps(partition))
        words += ["--partition", tmp_path / "p.json"]
    if protocol == "custom":
        words += ["--gallery", "walk=w1", "--probes", "walk=w2"]
    done = attengait(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "t.json").read_text())

    shown = {"protocol", "distance", "precision", "counts", "missing", "remarks", "metrics", "conditions", "mean"}
    shown |= {"rank1"} if OF_VIEWS & {protocol} or rule.compares == "views" else set()
    assert set(written) - {"mean_average_precision"} == shown
    assert written["protocol"] == protocol
    assert written["distance"] == ("l2, re-ranked" if protocol == "hid" else "l2")
    assert set(written["counts"]) == COUNTS
    assert set(written["metrics"]) == FIGURES | ADDED.get(protocol, set())
    assert written["mean"] == written["metrics"]["rank1"]
    assert list(written["conditions"]) == list(rule.probes or ["probes"])
    for figures in written["conditions"].values():
        views = figures.pop("views", {})
        assert set(figures) == FIGURES | ADDED.get(protocol, set())
        of_view = ADDED["ccpg"] if protocol == "ccpg" else set(figures)
        assert all(set(each) == of_view for each in views.values())
        assert bool(views) == (protocol in OF_VIEWS | {"ccpg", "sustech1k"})
        assert all(0 <= number <= 1 for number in numbers(views))
    for tree in (written["metrics"], written["conditions"], written.get("rank1", {}), written["mean"]):
        assert all(0 <= number <= 1 for number in numbers(tree))


def test_a_camera_of_ccpg_is_one_view_with_an_underscore_and_without() -> None:
    both = made(rules()["ccpg"].all_walks, ("10_0", "02_0"))
    mixed = Embeddings(
        features=both.features,
        subjects=both.subjects,
        sequences=both.sequences,
        views=np.where((both.views == "10_0") & (both.sequences == "U0_D3"), "10", both.views),
    )
    assert set(mixed.views) == {"10_0", "02_0", "010"}
    assert evaluate_embeddings(mixed, protocol="ccpg") == evaluate_embeddings(both, protocol="ccpg")
