"""The benchmark of training: every part of a step is seen, and what is counted and measured is what is said."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_graphs import recorded  # noqa: F401

from attengait.benchmarks.step_times import PARTS, StepTimes
from attengait.benchmarks.train import benchmark_train, format_table, matrix_rate, step_flop
from attengait.errors import ParameterError
from attengait.model.config import ModelConfig

make_store = import_module("small_stores").make_store
Heard = import_module("heard").Heard

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "size": "tiny",
    "subjects_per_batch": 2,
    "clips_per_subject": 2,
    "clip_frames": 16,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attengait.benchmarks.train.MATRIX_SIDE", {"cpu": 128, "cuda": 128})
    monkeypatch.setattr("attengait.benchmarks.train.MATRIX_SECONDS", 0.001)


def check_rows(report: dict[str, Any], names: list[str]) -> None:
    assert json.loads(json.dumps(report)) == report
    assert [row["name"] for row in report["results"]] == names
    for row in report["results"]:
        assert 0 < row["min"] <= row["clips_per_s"] <= row["max"]
        assert tuple(row["ms"]) == PARTS
        assert min(row["ms"].values()) >= 0
        # Medians of the parts need not add up to the median of the whole, but nearly do.
        assert 0.5 < sum(row["ms"].values()) / row["ms_per_step"] < 1.5
        assert row["of_matrix_rate"] == pytest.approx(row["tflop_per_s"] / row["matrix_tflop_per_s"])
        assert row["peak_memory_gib"] > 0
        assert row["name"] in format_table(report)


def test_synthetic_clips_have_a_row_for_each_precision_and_a_profile_of_each(tmp_path: Path) -> None:
    heard = Heard()
    report = benchmark_train(
        settings=SETTINGS,
        precisions=["fp32", "bf16"],
        num_steps=1,
        repeats=2,
        profile=tmp_path / "profile.txt",
        progress=heard,
    )
    check_rows(report, ["fp32", "bf16"])
    assert report["training"]["store"] is None
    assert report["device"] == "cpu"
    profile = (tmp_path / "profile.txt").read_text()
    assert profile.count("aten::convolution_backward") == 2
    assert heard.counts[-1] == (8, 9)  # 3 to warm up, 2 measured, 1 that ends them, 3 profiled


def test_a_store_has_a_row_for_each_cache_and_other_settings_count(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", frame_shape=(64, 64, 2))
    settings = SETTINGS | {"train_subjects": ("001-003",)}
    report = benchmark_train(store.path, settings=settings, caches=["none", "host"], num_steps=1, repeats=1)
    precision = report["results"][0]["precision"]
    check_rows(report, [f"{precision}, cache none", f"{precision}, cache host"])
    network = ModelConfig.of_size("tiny", channels=2, num_classes=3)
    assert report["results"][0]["flop_per_step"] == step_flop(network, 4, 16)
    assert str(store.path) in format_table(report)


def test_with_and_without_cuda_graphs_is_measured_and_their_losses_compared(recorded: Any) -> None:  # noqa: F811
    report = benchmark_train(settings=SETTINGS, precisions=["fp32"], cuda_graphs=[True, False], num_steps=1, repeats=2)
    assert json.loads(json.dumps(report)) == report
    with_graphs, without = report["results"]
    assert [row["name"] for row in report["results"]] == ["fp32, cuda_graphs true", "fp32, cuda_graphs false"]
    assert with_graphs["cuda_graphs"] == {"graphs": 1, "bytes": 1000, "why_not": None}
    assert without["cuda_graphs"] == {"graphs": 0, "bytes": 0, "why_not": "cuda_graphs is false"}
    assert with_graphs["ms"] == {}  # the parts of a step are not seen
    assert tuple(without["ms"]) == PARTS
    assert recorded[0].replays == 5  # of 6 steps
    table = format_table(report)
    assert "fp32, cuda_graphs true: 1 CUDA graphs\n" in table
    assert "fp32, cuda_graphs false: no CUDA graphs (cuda_graphs is false)\n" in table
    pair = "fp32, cuda_graphs true and fp32, cuda_graphs false: the losses"
    assert f"{pair} are equal to the bit in 2 logged steps" in table
    with_graphs["losses"]["6"] += 1e-6
    assert f"{pair} differ from step 6 on" in format_table(report)


def test_nothing_is_left_of_the_runs_that_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    random_state = torch.get_rng_state()
    benchmark_train(settings=SETTINGS, precisions=["fp32"], num_steps=1, repeats=1)
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_operations_of_a_step_are_three_times_those_of_its_products_but_for_the_first() -> None:
    width, frames = 32, 16
    network = ModelConfig.of_size("small", channels=3, num_classes=7)
    maps = [(64, 3, width, 5)] + [(64, width, width, 3)] * 2 + [(32, width, 2 * width, 3), (32, 64, 64, 3)]
    maps += [(16, 64, 128, 3), (16, 128, 128, 3)]
    products = [2 * side**2 * inputs * outputs * kernel**2 for side, inputs, outputs, kernel in maps]
    convolutions = frames * (3 * sum(products) - products[0])  # no gradient of the frames is computed
    counted = step_flop(network, 1, frames)
    assert convolutions < counted < 1.01 * convolutions  # the rest is the pyramids and the head
    assert step_flop(network, 10, frames) == 10 * counted


def test_more_classes_are_more_operations_and_fewer_features_than_a_vector_are_not() -> None:
    few, many = (step_flop(ModelConfig.of_size("tiny", num_classes=number), 1, 16) for number in (10, 110))
    assert many - few == 3 * 2 * 100 * 16 * 62  # a product of 62 parts with D = 16, forward, and two backward


def test_a_step_in_which_a_part_is_not_seen_counts_as_a_whole_only() -> None:
    times = StepTimes(CPU)
    for parts in (PARTS, PARTS[:4], PARTS):
        times.begin_step()
        for part in parts[1:]:
            times.begin(part)
    times.begin_step()
    whole, parts_ms = times.milliseconds()
    assert len(whole) == 3
    assert {len(values) for values in parts_ms.values()} == {2}
    assert sum(values[0] for values in parts_ms.values()) == pytest.approx(whole[0])


def test_the_matrix_rate_is_a_rate() -> None:
    assert matrix_rate(CPU, "fp32", 2) > 0
    assert matrix_rate(CPU, "bf16", 2) > 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_steps": 0}, "steps is 0, but must be at least 1"),
        ({"repeats": 0}, "repeats is 0, but must be at least 1"),
        ({"precisions": ["fp32", "fp32"]}, "precision is 'fp32,fp32', but must be different values"),
        ({"precisions": ["fp8"]}, "precision is 'fp8', but must be one of"),
        ({"cuda_graphs": [True, True]}, "cuda_graphs is 'true,true', but must be true, false or both with a comma"),
        ({"caches": ["gpu"]}, "cache is 'gpu', but must be left out for synthetic clips"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        benchmark_train(settings=SETTINGS, **changes)


@pytest.mark.gpu
def test_on_a_gpu_the_parts_are_timed_on_the_device(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", frame_shape=(64, 64, 3))
    settings = SETTINGS | {"device": "cuda", "cuda_graphs": False}
    precisions, caches = ["bf16", "fp16"], ["none", "gpu"]
    report = benchmark_train(
        store.path, settings=settings, precisions=precisions, caches=caches, num_steps=2, repeats=2
    )
    assert [row["name"] for row in report["results"]] == [f"{p}, cache {c}" for p in precisions for c in caches]
    for row in report["results"]:
        assert sum(row["ms"].values()) == pytest.approx(row["ms_per_step"], rel=0.5)
        assert row["peak_memory_gib"] > 0
    assert report["device"] == torch.cuda.get_device_name()


@pytest.mark.gpu
def test_on_a_gpu_steps_by_cuda_graphs_are_timed_and_their_memory_counted() -> None:
    settings = SETTINGS | {"device": "cuda", "deterministic": True}
    report = benchmark_train(settings=settings, precisions=["bf16"], cuda_graphs=[True, False], num_steps=2, repeats=2)
    with_graphs, without = report["results"]
    assert (with_graphs["cuda_graphs"]["graphs"], with_graphs["cuda_graphs"]["why_not"]) == (1, None)
    assert with_graphs["losses"] == without["losses"]
    assert 0.5 < with_graphs["peak_memory_gib"] / without["peak_memory_gib"] < 2
    assert with_graphs["ms_per_step"] > 0
