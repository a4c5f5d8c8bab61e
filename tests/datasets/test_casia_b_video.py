"""CASIA-B's videos are found wherever they lie, beside pictures too, and none is opened to find them."""

import os
import pickle
from importlib import import_module
from pathlib import Path

import cv2
import pytest

from attengait.datasets import Scan, SourceSequence, Video
from attengait.errors import AttenGaitError

casia = import_module("casia")


def make_pictures(root: Path, name: str, numbers: range) -> None:
    """Write the files (not pictures) of a sequence such as 001/nm-01/090."""
    (root / name).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (root / name / f"{name.replace('/', '-')}-{number:03d}.png").write_bytes(b"x" * number)


def make_video(path: Path, size_bytes: int = 100) -> Path:
    """Write a file (not a video)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size_bytes)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("001/nm-01/090", "002/bg-01/018"):
        make_pictures(tmp_path / "silh", name, range(1, 8))
    (tmp_path / "frames").mkdir()
    return tmp_path


def found(root: Path) -> dict[str, str]:
    """Where the frames of each sequence are."""
    sequences = scan_of(root).sequences
    return {sequence.name: sequence.frames.where.removeprefix(f"{root}/frames/") for sequence in sequences}


def scan_of(root: Path) -> Scan:
    return casia.find(root / "frames", root / "silh")


def problems(root: Path) -> list[tuple[str, str]]:
    return [(str(problem.reason), problem.where.removeprefix(f"{root}/")) for problem in scan_of(root).skipped]


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv", "mov", "AVI"])
@pytest.mark.parametrize(
    "folder",
    [
        "",
        "DatasetB-1/video",
        "DatasetB-1/video/more/and more",
        "001",
        "001/nm-01",
        "001/nm-01/090",
        "001/001/nm-01/090",
    ],
)
def test_videos_are_found_wherever_they_lie(root: Path, folder: str, suffix: str) -> None:
    path = make_video(root / "frames" / folder / f"001-nm-01-090.{suffix}")
    make_video(root / "frames" / "DatasetB-2/video/002-bg-01-018.avi")
    first, second = scan_of(root).sequences
    assert first.frames == Video(path=str(path))
    assert (first.frames.kind, first.frames.files) == ("video", [str(path)])
    assert (first.name, second.name) == ("001/nm-01/090", "002/bg-01/018")
    assert problems(root) == []


def test_no_video_is_opened_to_be_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(root / "frames/001-nm-01-090.avi")
    monkeypatch.setattr(cv2, "VideoCapture", None)
    monkeypatch.setattr("builtins.open", None)
    assert found(root) == {"001/nm-01/090": "001-nm-01-090.avi"}


def test_silhouettes_bound_the_images_of_a_video(root: Path) -> None:
    make_pictures(root / "silh", "001/nm-01/090", range(1, 10))
    make_video(root / "frames/001-nm-01-090.avi")
    assert casia.max_images(scan_of(root).sequences[0]) == 8


def test_the_background_and_hidden_files_are_passed_over_silently(root: Path) -> None:
    make_video(root / "frames/001-nm-01-090.avi")
    for name in ("001-bkgrd-090.avi", "._001-nm-01-090.avi", ".hidden/001-nm-01-090.avi"):
        make_video(root / "frames" / name)
    assert found(root) == {"001/nm-01/090": "001-nm-01-090.avi"}
    assert problems(root) == [("no frames", "002/bg-01/018")]


def test_videos_of_other_names_are_named_once_a_folder(root: Path) -> None:
    make_video(root / "frames/001-nm-01-090.avi")
    make_video(root / "frames/002-bg-01-018.avi")
    for name in ("a.avi", "01-nm-01-090.avi", "001-nm-01-090-001.avi", "b/c.mp4", "001-nm-01-090 (1).avi"):
        make_video(root / "frames" / name)
    (root / "frames" / "folder-001-nm-01-090.avi").mkdir()
    assert problems(root) == [
        ("foreign folder", "frames/folder-001-nm-01-090.avi"),
        ("foreign videos", "frames"),
        ("foreign videos", "frames/b"),
    ]
    assert scan_of(root).skipped[1].detail.startswith("4 videos are not files named subject-walk-view.avi")


def test_files_beside_videos_are_counted_by_folder(root: Path) -> None:
    for name in ("001-nm-01-090.avi", "video/002-bg-01-018.avi", "video/003-nm-01-090.wmv", "video/readme.txt"):
        make_video(root / "frames" / name)
    make_video(root / "frames/video/silh/001-nm-01-090-001.png")
    make_video(root / "frames/video/002.tar.gz")
    assert problems(root) == [
        ("foreign folder", "frames/video/silh"),
        ("foreign file", "frames/video"),
    ]
    assert scan_of(root).skipped[1].detail.startswith("3 files are no videos named subject-walk-view.avi")


def test_a_folder_without_videos_is_still_a_foreign_one(root: Path) -> None:
    make_video(root / "frames/001-nm-01-090.avi")
    make_video(root / "frames/002-bg-01-018.avi")
    make_video(root / "frames/notes/deep/readme.txt")
    assert problems(root) == [("foreign folder", "frames/notes")]


def test_pictures_and_videos_mix_and_a_sequence_found_twice_is_used_once(root: Path) -> None:
    make_pictures(root / "frames", "001/nm-01/090", range(1, 8))
    for folder in ("DatasetB-1", "DatasetB-2"):
        make_video(root / "frames" / folder / "002-bg-01-018.avi")
    make_video(root / "frames" / "001-nm-01-090.avi")
    assert found(root) == {"001/nm-01/090": "001/nm-01/090", "002/bg-01/018": "DatasetB-1/002-bg-01-018.avi"}
    assert problems(root) == [
        ("sequence twice", "frames/001-nm-01-090.avi"),
        ("sequence twice", "frames/DatasetB-2/002-bg-01-018.avi"),
    ]
    assert scan_of(root).skipped[0].detail == f"{root}/frames/001/nm-01/090 is used"


def test_folders_that_link_to_each_other_end(root: Path) -> None:
    path = make_video(root / "frames/videos/001-nm-01-090.avi")
    (path.parent / "loop").symlink_to(root / "frames")
    assert found(root) == {"001/nm-01/090": "videos/001-nm-01-090.avi"}


def test_a_linked_folder_of_videos_is_found(root: Path) -> None:
    make_video(root / "elsewhere/001-nm-01-090.avi")
    (root / "frames/DatasetB-1").symlink_to(root / "elsewhere")
    assert found(root) == {"001/nm-01/090": "DatasetB-1/001-nm-01-090.avi"}


def test_a_dangling_link_is_no_video(root: Path) -> None:
    make_video(root / "frames/001-nm-01-090.avi")
    (root / "frames/002-bg-01-018.avi").symlink_to("gone.avi")
    assert list(found(root)) == ["001/nm-01/090"]


def test_videos_among_the_silhouettes_are_no_frames(root: Path) -> None:
    make_video(root / "frames/001-nm-01-090.avi")
    make_video(root / "silh/002-bg-01-018.avi")
    assert list(found(root)) == ["001/nm-01/090"]


def test_an_empty_folder_and_one_of_other_videos_say_what_is_expected(root: Path) -> None:
    says = (
        r"holds no sequence laid out as .*png, and no video named subject-walk-view\.avi, such as 001-nm-01-090\.avi$"
    )
    with pytest.raises(AttenGaitError, match=says):
        scan_of(root)
    make_video(root / "frames/walk.avi")
    with pytest.raises(AttenGaitError, match=says):
        scan_of(root)
    with pytest.raises(AttenGaitError, match=r"walk\.avi is a file: a folder"):
        casia.find(root / "frames/walk.avi", root / "silh")


def test_digests_follow_a_video_s_name_and_size_and_the_scan_digest_its_time_too(root: Path) -> None:
    path = make_video(root / "frames/001-nm-01-090.avi", 100)
    os.utime(path, ns=(1, 1))
    before = scan_of(root)
    os.utime(path, ns=(2, 2))
    touched = scan_of(root)
    assert touched.content_digest == before.content_digest
    assert touched.scan_digest != before.scan_digest
    make_video(path, 101)
    assert scan_of(root).content_digest != before.content_digest
    path.unlink()
    make_video(root / "frames/DatasetB-1/001-nm-01-090.avi", 100)
    assert scan_of(root).content_digest == before.content_digest
    (root / "frames/DatasetB-1/001-nm-01-090.avi").rename(root / "frames/001-nm-01-090.mp4")
    assert scan_of(root).content_digest != before.content_digest


def test_a_sequence_of_a_video_travels_to_another_process(root: Path) -> None:
    make_video(root / "frames/001-nm-01-090.avi")
    sequence: SourceSequence = scan_of(root).sequences[0]
    assert pickle.loads(pickle.dumps(sequence)) == sequence
