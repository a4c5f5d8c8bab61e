"""What DALI's decoder makes of whole and broken videos, beside what a store gets from them."""

import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from attengait.benchmarks import dali_video
from attengait.benchmarks.report import versions

HAS_DALI = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
JPEG = {"motion JPEG": "MJPG"}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], dali_video.Row]:
    """All rows of motion JPEG, which DALI's decoder for the CPU knows."""
    if not HAS_DALI:
        pytest.skip("NVIDIA DALI is not installed")
    monkeypatch.setattr(dali_video, "CODECS", JPEG)
    return {(row.video, row.decoder): row for row in dali_video.compare([], "cpu")}


def test_both_decode_a_whole_video_alike(rows: dict[tuple[str, str], dali_video.Row]) -> None:
    for decoder in ("FFmpeg", "DALI cpu"):
        row = rows["motion JPEG", decoder]
        assert (row.frames, row.wrong, row.complaint) == (dali_video.NUM_FRAMES, 0, "")
        assert row.levels <= 2  # OpenCV rounds down what DALI rounds
        assert row.frames_per_s > 0


def test_ours_hands_out_no_wrong_frame_of_a_broken_video(rows: dict[tuple[str, str], dali_video.Row]) -> None:
    broken, short = (
        rows[f"motion JPEG, {what}", "FFmpeg"] for what in ("frame 30 half lost", "the last frame missing")
    )
    assert (broken.frames, broken.wrong) == (dali_video.BROKEN_FRAME - 1, 0)
    assert broken.complaint.startswith("[mjpeg] ")
    assert (short.frames, short.wrong, short.complaint) == (dali_video.NUM_FRAMES - 1, 0, "")


@pytest.mark.skipif("'2.4.0' not in versions('nvidia-dali').values()", reason="docs/gpu.md describes DALI 2.4.0")
def test_dali_hands_out_wrong_frames_and_says_nothing_which_is_why_videos_are_not_decoded_by_nvdec(
    rows: dict[tuple[str, str], dali_video.Row],
) -> None:
    for what in ("frame 30 half lost", "the last frame missing"):
        row = rows[f"motion JPEG, {what}", "DALI cpu"]
        assert (row.frames, row.wrong, row.complaint) == (dali_video.NUM_FRAMES, 1, "")


def test_frames_of_other_places_or_none_are_wrong() -> None:
    held = [np.full((20, 30), 40 * number, np.uint8) for number in range(4)]
    assert dali_video.compare_frames([gray + np.uint8(3) for gray in held], held) == (0, 3)
    assert dali_video.compare_frames([*held, held[-1]], held) == (1, 0)
    assert dali_video.compare_frames([held[0], *held[2:]], held) == (2, 0)
    assert dali_video.compare_frames([], held) == (0, 0)
    for num_pixels, expected in ((6, (0, 160)), (7, (1, 0))):  # of 600
        other = held[1].copy()
        other.reshape(-1)[:num_pixels] = 200
        assert dali_video.compare_frames([held[0], other, *held[2:]], held) == expected


def test_what_is_printed_ends_in_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = dali_video.Row("one.avi", "FFmpeg", 7, 1, 2, "", 1234.0)
    monkeypatch.setattr(dali_video, "compare", lambda videos, device: iter([row]))
    monkeypatch.setattr(sys, "argv", ["dali_video", "--device", "gpu", "one.avi"])
    dali_video.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["one.avi", "FFmpeg", "7", "1", "2", "1,234", "nothing"]
    assert json.loads(lines[-1])["results"] == [row._asdict()]
    assert versions("nvidia-dali").items() <= json.loads(lines[-1])["versions"].items()
