"""Synthetic walkers as videos: the same frames as the pictures, to the last bit; failures are one sentence."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from attengait.errors import AttenGaitError
from attengait.synth import SynthConfig, write_walkers
from attengait.synth.sequence import render_sequence
from attengait.synth.video import write_video


def config(*, frames: int = 3, workers: int = 1) -> SynthConfig:
    return SynthConfig(subjects=1, walks=("nm-01",), views=(0, 90), frames=frames, seed=5, video=True, workers=workers)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_videos_are_named_as_in_casia_b_and_hold_the_frames_that_were_drawn(tmp_path: Path) -> None:
    summary = write_walkers(tmp_path, config())
    assert (summary.frames, summary.silhouettes, summary.num_frames) == (tmp_path / "video", tmp_path / "silh", 6)
    silhouettes = {f"silh/001/nm-01/{v}/001-nm-01-{v}-00{n}.png" for v in ("000", "090") for n in (1, 2, 3)}
    videos = {"video/001-nm-01-000.avi", "video/001-nm-01-090.avi"}
    assert files(tmp_path).keys() == {"synth.json"} | videos | silhouettes
    video = cv2.VideoCapture(str(tmp_path / "video/001-nm-01-090.avi"))
    assert video.get(cv2.CAP_PROP_FPS) == 25
    drawn = list(render_sequence(5, 1, "nm-01", 90, 3))
    for frame, _ in drawn:
        np.testing.assert_array_equal(video.read()[1], frame)
    assert not video.grab()
    last = cv2.imread(str(tmp_path / "silh/001/nm-01/090/001-nm-01-090-003.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(last, drawn[2][1])


def test_the_same_call_ends_in_the_same_files_whatever_was_there_and_whoever_works(tmp_path: Path) -> None:
    write_walkers(tmp_path / "a", config())
    (tmp_path / "a/video/001-nm-01-000.avi").write_bytes(b"half")
    write_walkers(tmp_path / "a", config())
    write_walkers(tmp_path / "b", config(workers=2))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "video").write_text("")
    with pytest.raises(AttenGaitError, match=r"cannot write to .*video"):
        write_walkers(tmp_path, config())
    write_walkers(tmp_path / "other", config())
    (tmp_path / "other/video/001-nm-01-000.avi").unlink()
    (tmp_path / "other/video/001-nm-01-000.avi").mkdir()
    with pytest.raises(AttenGaitError, match=r"cannot write .*001-nm-01-000\.avi: Is a directory"):
        write_walkers(tmp_path / "other", config())


@pytest.mark.parametrize("limit_bytes", [2_000, 200_000])
def test_a_video_that_does_not_fit_the_disk_is_one_clear_error(tmp_path: Path, limit_bytes: int) -> None:
    """A limit on the size of files stands for the end of the disk."""
    program = f"""
import resource, sys
from pathlib import Path
import numpy as np
from attengait.errors import AttenGaitError
from attengait.synth.video import write_video
frames = [np.random.default_rng(i).integers(0, 256, (120, 160, 3), np.uint8) for i in range(8)]
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))
try:
    write_video(Path({str(tmp_path / "a.avi")!r}), frames)
except AttenGaitError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {tmp_path / 'a.avi'}: the disk may be full\n"
    assert done.stderr == ""


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    write_video(tmp_path / "a.avi", [frame])
    np.testing.assert_array_equal(cv2.VideoCapture(str(tmp_path / "a.avi")).read()[1], frame)
