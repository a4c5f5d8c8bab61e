"""The benchmark of evaluation: each distance has its time, memory and rate; what it measures is a real evaluation."""

import json
from typing import Any

import pytest

from attengait.benchmarks import evaluate
from attengait.benchmarks.evaluate import benchmark_evaluate, format_table
from attengait.errors import ParameterError


def test_each_distance_has_time_memory_and_a_rate_beside_that_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_PRODUCT_SECONDS", 0.001)
    report = benchmark_evaluate(gallery=200, probes=30, distances=("l2", "part-l2"), device="cpu")
    assert json.loads(json.dumps(report)) == report
    assert [row["distance"] for row in report["results"]] == ["l2", "part-l2"]
    for row in report["results"]:
        rate = 2 * 200 * 30 * 1984 / 1e9 / row["seconds"]
        assert row["gflop_per_s"] == pytest.approx(rate, rel=0.001)
        assert row["of_matrix_rate"] == pytest.approx(
            row["gflop_per_s"] / row["matrix_gflop_per_s"], rel=0.01, abs=1e-4
        )
        assert row["peak_memory_gib"] > 0
        assert row["rank1"] > 0.5  # chance is 0.05
    assert "part-l2" in format_table(report)


def test_the_same_subject_has_the_same_point_in_the_gallery_and_among_the_probes() -> None:
    made = evaluate._made(40, 8)
    assert (made.sequences == "gallery").sum() == 40
    assert set(made.subjects[40:]) == set(made.subjects[:40]) == {"0", "1", "2", "3"}
    own = made.features[made.subjects == "2"].mean(axis=0)
    other = made.features[made.subjects == "3"].mean(axis=0)
    assert ((own - other) ** 2).mean() > 2 * (1 + 1) / 12 * 0.9


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"gallery": 9}, "gallery is 9, but must be at least 10"),
        ({"probes": 0}, "probes is 0, but must be at least 1"),
        ({"distances": ("l3",)}, "distance is 'l3', but must be one of l2"),
    ],
)
def test_what_is_out_of_range_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        benchmark_evaluate(**{"gallery": 20, "probes": 2, "device": "cpu"} | changes)
