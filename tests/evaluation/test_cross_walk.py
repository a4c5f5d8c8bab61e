"""The protocol cross-walk, for data sets that have none, against loops over all pairs."""

import numpy as np
import pytest

from attengait.errors import AttenGaitError
from attengait.evaluation import Embeddings, blocks, evaluate_embeddings
from attengait.evaluation.sides import has_two_walks


def made(rows: list[tuple[str, str, str]], seed: int = 0) -> Embeddings:
    subjects, walks, views = (np.array(column) for column in zip(*rows, strict=True))
    features = np.random.default_rng(seed).normal(size=(len(rows), 3, 4)).astype(np.float32)
    return Embeddings(features=features, subjects=subjects, sequences=walks, views=views, feature_order="parts-first")


ROWS = [(f"{s:03d}", f"w-{w}", f"{v:03d}") for s in range(5) for w in range(1 + s % 3) for v in (0, 90)]


def by_loops(embeddings: Embeddings) -> tuple[float, float, int]:
    """Rank-1, mean average precision and the number of probes, one probe after the other."""
    hits, precisions = [], []
    for i in range(len(embeddings)):
        names = list(zip(embeddings.subjects, embeddings.sequences, strict=True))
        gallery = [j for j in range(len(embeddings)) if names[j] != names[i]]
        difference = embeddings.features[gallery].astype(float) - embeddings.features[i]
        order = np.argsort((difference**2).sum((1, 2)))
        right = np.array([embeddings.subjects[gallery[k]] == embeddings.subjects[i] for k in order])
        if right.any():
            hits.append(float(right[0]))
            places = np.flatnonzero(right) + 1
            precisions.append(np.mean(np.arange(1, len(places) + 1) / places))
    return float(np.mean(hits)), float(np.mean(precisions)), len(hits)


@pytest.mark.parametrize("block_bytes", [0, 2**30])
def test_it_equals_loops_over_all_pairs(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(blocks, "PROBE_TILE", 4)
    embeddings = made(ROWS)
    found = evaluate_embeddings(embeddings, protocol="cross-walk")
    rank1, precision, num_probes = by_loops(embeddings)
    assert 0 < rank1 < 1
    assert found.mean == pytest.approx(rank1, abs=1e-12)
    assert found.metrics["mAP"] == pytest.approx(precision, abs=1e-12)
    assert found.num_probes - found.num_unmatched == num_probes < len(ROWS)  # those of one walk are no probes
    assert "probes have no gallery item of their subject in another walk, so they are left out" in str(found)


def test_the_same_walk_at_another_view_does_not_count_as_found() -> None:
    embeddings = made([("a", "1", "000"), ("a", "1", "090"), ("a", "2", "000"), ("b", "1", "000"), ("b", "2", "000")])
    embeddings.features[:] = np.array([0, 0, 10, 1, 11])[:, None, None]  # each is nearest to the other subject
    assert evaluate_embeddings(embeddings, protocol="cross-walk").mean == 0


def test_where_nobody_walks_twice_there_is_nothing_to_find() -> None:
    embeddings = made([("a", "1", "000"), ("a", "1", "090"), ("b", "1", "000")])
    assert not has_two_walks(embeddings.subjects, embeddings.sequences)
    assert has_two_walks(np.array(["a", "a"]), np.array(["1", "2"]))
    with pytest.raises(AttenGaitError, match="protocol cross-walk needs a subject with two walks, but the embeddings"):
        evaluate_embeddings(embeddings, protocol="cross-walk")
