"""The benchmark of flow has a row for every backend, size and batch; the table of agreement notices disagreement."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from attengait.benchmarks import agreement
from attengait.benchmarks.agreement import PARAMETER_SETS, format_agreement, measure_agreement
from attengait.benchmarks.flow import benchmark_flow, bytes_per_pair, format_table
from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.flow.backends import FarnebackParameters, OpenCVFlow
from attengait.kernels.runtime.compile import find_compiler
from attengait.synth.motion import MOTIONS, motion_pair


def test_a_report_has_a_row_for_every_backend_size_and_batch() -> None:
    report = benchmark_flow(flows=["opencv"], sizes=[(64, 48), (80, 64)], batches=[1, 3], repeats=1)
    rows = [(row["backend"], row["size"], row["batch"]) for row in report["results"]]
    assert rows == [("opencv", size, batch) for size in ("64x48", "80x64") for batch in (1, 3)]
    assert all(row["min"] <= row["pairs_per_s"] <= row["max"] for row in report["results"])
    assert "64x48" in format_table(report)
    json.dumps(report)


def test_every_backend_is_set_against_opencv() -> None:
    if find_compiler() is None:
        pytest.skip("no C++ compiler for the flow cpu")
    report = benchmark_flow(flows=["cpu"], sizes=[(64, 64)], batches=[2], repeats=1)
    assert [row["backend"] for row in report["results"]] == ["opencv", "cpu"]
    assert "1.00, " in format_table(report)


@pytest.mark.gpu
def test_on_a_gpu_each_kernel_has_its_share() -> None:
    report = benchmark_flow(flows=["cuda"], sizes=[(320, 240)], batches=[8], repeats=1)
    (row,) = report["gpu"]["results"]
    assert set(row["shares"]) == {"shrink", "expand", "set_up", "solve"}
    assert sum(row["shares"].values()) == pytest.approx(1)
    assert 0 < row["of_copy_rate"] < 2
    format_table(report)


def test_the_bytes_of_a_pair_at_the_published_parameters_are_those_of_the_cost_model() -> None:
    # 100,800 pixels over three levels: level images 1.3 MB (of 1 byte in, 4 out), expansions 2.4, equations 20.6 and
    # solutions 8.5; a frame's expansion serves two pairs, and the start of a level reads the coarser flow only.
    assert bytes_per_pair(240, 320, FarnebackParameters()) == pytest.approx(31.6e6, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batches": [0]}, "batches is 0, but must be at least 1"),
        ({"repeats": 0}, "repeats is 0, but must be at least 1"),
        ({"sizes": [(20, 64)]}, "sizes is 20x64, but must be at least 32x32 pixels"),
        ({"flows": ["raft"]}, "flow is 'raft', but must be one of opencv"),
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        benchmark_flow(**({"flows": ["opencv"]} | changes))


class _ShiftedFlow(OpenCVFlow):
    def flows(self, grays: list[np.ndarray], pairs: list[tuple[int, int]]) -> Iterator[np.ndarray]:
        for flow in super().flows(grays, pairs):
            yield flow + np.float32(3e-4)


@pytest.mark.parametrize(("make", "agrees"), [(OpenCVFlow, True), (_ShiftedFlow, False)])
def test_agreement_tells_a_backend_that_agrees_from_one_that_does_not(
    make: Callable[[FarnebackParameters], OpenCVFlow], agrees: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "comparable_backends", lambda: {"tried": make})
    report = measure_agreement(height=64, width=64)
    assert len(report["results"]) == len(PARAMETER_SETS) * len(MOTIONS)
    assert {row["agrees"] for row in report["results"]} == {agrees}
    assert ("rows are within" in format_agreement(report)) == agrees
    assert all(row["max_px"] == pytest.approx(0 if agrees else 3e-4, rel=0.05) for row in report["results"])


def test_agreement_is_measured_on_given_video_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "comparable_backends", lambda: {"tried": OpenCVFlow})
    (tmp_path / "a").mkdir()
    with pytest.raises(AttenGaitError, match="no folder with two pictures"):
        measure_agreement(height=64, width=64, frames=tmp_path)
    for i, picture in enumerate(motion_pair("zoom", 64, 64)):
        cv2.imwrite(str(tmp_path / "a" / f"{i}.png"), picture)
    report = measure_agreement(height=64, width=64, frames=tmp_path)
    assert "real video" in {row["pairs"] for row in report["results"]}
    assert report["num_real_pairs"] == 1  # that many there are


@pytest.mark.parametrize("kind", MOTIONS)
def test_motion_is_the_same_for_the_same_seed_and_of_the_size_asked_for(kind: str) -> None:
    pair, again, other = (motion_pair(kind, 70, 90, seed=seed) for seed in (4, 4, 5))
    assert all(picture.shape == (70, 90) and picture.dtype == np.uint8 for picture in pair)
    assert all(np.array_equal(*pictures) for pictures in zip(pair, again, strict=True))
    assert not np.array_equal(pair[0], other[0])
    assert np.array_equal(*pair) == (kind == "no motion")
