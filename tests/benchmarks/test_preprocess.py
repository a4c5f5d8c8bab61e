"""The preprocessing's benchmark: a report of the promised form; one sentence for folders with nothing in them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import videos

from attengait.benchmarks.preprocess import STAGES, benchmark_preprocess, format_table
from attengait.errors import AttenGaitError, ParameterError

NUM_FRAMES = 9


@pytest.fixture(scope="module")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One walk of a bright block over noise, laid out like CASIA-B."""
    root = tmp_path_factory.mktemp("walkers")
    noise = np.random.default_rng(0).integers(0, 100, (48, 64), np.uint8)
    for number in range(1, NUM_FRAMES + 1):
        silhouette = np.zeros_like(noise)
        silhouette[10:40, 4 * number : 4 * number + 12] = 255
        for side, picture in (("frames", np.maximum(noise, silhouette)), ("silhouettes", silhouette)):
            folder = root / side / "001" / "nm-01" / "090"
            folder.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / f"001-nm-01-090-{number:03d}.png"), picture)
    return root


def test_a_report_has_each_backend_number_of_workers_and_stage(walkers: Path) -> None:
    threads = cv2.getNumThreads()
    sides = walkers / "frames", walkers / "silhouettes"
    report = benchmark_preprocess(*sides, flows=["opencv"], workers=(1, 2), repeats=1)
    assert json.loads(json.dumps(report)) == report
    (part,) = report["sizes"]
    assert [row["name"] for row in part["results"]] == ["opencv, 1 worker", "opencv, 2 workers"]
    assert [row["name"] for row in part["stages"]["opencv"]] == list(STAGES)
    for row in part["results"]:
        assert 0 < row["min"] <= row["frames_per_s"] <= row["max"]
    assert all(row["min"] <= row["ms_per_frame"] <= row["max"] for row in part["stages"]["opencv"])
    assert report["published"]["frames_per_s"] == 31
    assert cv2.getNumThreads() == threads
    table = format_table(report)
    assert all(text in table for text in ("opencv, 2 workers", "decode", "published: 31 frames/s", "another machine"))


def test_other_sizes_are_measured_on_resized_copies(walkers: Path) -> None:
    sides = walkers / "frames", walkers / "silhouettes"
    report = benchmark_preprocess(*sides, flows=["opencv"], sizes=[(128, 96), (64, 64)], repeats=1, stage_frames=2)
    assert [part["size"] for part in report["sizes"]] == ["128x96", "64x64"]
    assert [part["sequences"] for part in report["sizes"]] == [1, 1]
    assert all(part["results"][0]["frames_per_s"] > 0 for part in report["sizes"])


def test_videos_of_the_same_frames_are_measured_beside_the_pictures(walkers: Path) -> None:
    sides = walkers / "frames", walkers / "silhouettes"
    report = benchmark_preprocess(*sides, flows=["opencv"], video=True, repeats=1)
    assert [part["source"] for part in report["sizes"]] == ["pictures", "video"]
    assert [part["sequences"] for part in report["sizes"]] == [1, 1]
    assert all(part["results"][0]["frames_per_s"] > 0 for part in report["sizes"])
    assert "\nvideo as they are, 1 sequences" in format_table(report)


def test_reading_alone_is_measured_from_pictures_and_videos_by_threads_and_processes(walkers: Path) -> None:
    sides = walkers / "frames", walkers / "silhouettes"
    report = benchmark_preprocess(*sides, flows=["opencv"], video=True, readers=(1, 2), repeats=1)
    assert [part["source"] for part in report["sizes"]] == ["pictures", "video"]
    for part in report["sizes"]:
        names = ["1 thread", "1 process", "2 threads", "2 processes"]
        assert [row["name"] for row in part["reading"]] == names
        assert all(0 < row["min"] <= row["frames_per_s"] <= row["max"] for row in part["reading"])
    assert format_table(report).count("reading and decoding alone, as for a GPU:") == 2
    assert json.loads(json.dumps(report)) == report


def test_frames_that_are_videos_or_no_size_of_one_are_no_frames_for_videos(walkers: Path, tmp_path: Path) -> None:
    silhouettes = walkers / "silhouettes"
    videos.encode(tmp_path / "001-nm-01-090.avi", videos.moving_frames(NUM_FRAMES, (48, 64)), "FFV1")
    with pytest.raises(ParameterError, match="video is True, but must be left out"):
        benchmark_preprocess(tmp_path, silhouettes, flows=["opencv"], video=True)
    with pytest.raises(AttenGaitError, match="001/nm-01/090 has frames of 63 x 48 pixels: a video needs even sizes"):
        benchmark_preprocess(walkers / "frames", silhouettes, flows=["opencv"], sizes=[(63, 48)], video=True)


def test_folders_without_two_frames_in_a_row_are_one_sentence(walkers: Path, tmp_path: Path) -> None:
    name = "001/nm-01/090/001-nm-01-090-003.png"
    for side in ("frames", "silhouettes"):
        (tmp_path / side / name).parent.mkdir(parents=True)
        (tmp_path / side / name).write_bytes((walkers / side / name).read_bytes())
    with pytest.raises(AttenGaitError, match="no two frames in a row"):
        benchmark_preprocess(tmp_path / "frames", tmp_path / "silhouettes", flows=["opencv"])
    with pytest.raises(AttenGaitError, match="does not exist"):
        benchmark_preprocess(tmp_path / "nowhere", tmp_path / "silhouettes")


def test_parameters_out_of_range_are_refused(walkers: Path) -> None:
    with pytest.raises(ParameterError, match=r"workers is \[0\]"):
        benchmark_preprocess(walkers / "frames", walkers / "silhouettes", workers=[0])
    with pytest.raises(ParameterError, match=r"readers is \[2, 0\]"):
        benchmark_preprocess(walkers / "frames", walkers / "silhouettes", readers=[2, 0])
    with pytest.raises(ParameterError, match="repeats is 0"):
        benchmark_preprocess(walkers / "frames", walkers / "silhouettes", repeats=0)
    with pytest.raises(ParameterError, match="flow is 'raft', but must be one of"):
        benchmark_preprocess(walkers / "frames", walkers / "silhouettes", flows=["raft"])
