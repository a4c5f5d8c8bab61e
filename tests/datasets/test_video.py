"""Every coded frame of a video comes out once, in order, and exactly; a damaged video ends at its damage, quietly."""

import errno
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from attengait.datasets import video as video_module
from attengait.datasets.inputs import InputError
from attengait.datasets.pictures import read_one_by_one
from attengait.datasets.source import Fault
from attengait.datasets.video import BrokenVideoError, Video, decoder_version, read_video
from attengait.store.skipped import Reason

held, videos = import_module("held"), import_module("videos")

NUM_FRAMES = 20
FRAMES = [
    # With noise, so that every frame takes its share of the file.
    cv2.add(frame, np.random.default_rng(i).integers(0, 40, frame.shape, np.uint8))
    for i, frame in enumerate(videos.moving_frames(NUM_FRAMES, (96, 128)))
]
ALL = frozenset(range(1, NUM_FRAMES + 1))


def read(path: Path, wanted: frozenset[int] = ALL) -> dict[int, np.ndarray | None]:
    return {number: gray for number, gray, _ in read_video(str(path), wanted)}


def plainly_read(path: Path) -> list[np.ndarray]:
    """The same as read_video without its care: OpenCV's loop."""
    video, grays = cv2.VideoCapture(str(path)), []
    while True:
        is_read, frame = video.read()
        if not is_read:
            return grays
        grays.append(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))


def read_until_broken(path: Path) -> tuple[list[np.ndarray | None], str]:
    grays: list[np.ndarray | None] = []
    try:
        for number, gray, _ in read_video(str(path), ALL):
            assert number == len(grays) + 1
            grays.append(gray)
    except BrokenVideoError as error:
        return grays, str(error)
    pytest.fail("the video is not broken")


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize("frames_per_second", [25, 29.97, 7.5])
def test_lossless_frames_come_back_numbered_from_one(tmp_path: Path, name: str, frames_per_second: float) -> None:
    path = videos.encode(tmp_path / name, FRAMES, "FFV1", frames_per_second=frames_per_second)
    found = read(path)
    assert list(found) == sorted(ALL)
    for gray, expected in zip(found.values(), videos.grays(FRAMES), strict=True):
        np.testing.assert_array_equal(gray, expected)


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "XVID"), ("a.avi", "MJPG"), ("a.mp4", "mp4v")])
def test_frames_of_lossy_videos_equal_opencv_s_own_loop(tmp_path: Path, name: str, codec: str) -> None:
    path = videos.encode(tmp_path / name, FRAMES, codec)
    plain = plainly_read(path)
    assert len(plain) == NUM_FRAMES
    for gray, expected in zip(read(path).values(), plain, strict=True):
        np.testing.assert_array_equal(gray, expected)


def test_a_variable_frame_rate_neither_drops_nor_doubles_frames(tmp_path: Path) -> None:
    path = videos.encode(tmp_path / "a.mp4", FRAMES, "FFV1")
    videos.vary_frame_rate(path)
    video, times = cv2.VideoCapture(str(path)), []
    while video.grab():
        times.append(video.get(cv2.CAP_PROP_POS_MSEC))
    assert len(set(np.diff(times).round())) == 2, "the rate does not vary"
    for gray, expected in zip(read(path).values(), videos.grays(FRAMES), strict=True):
        np.testing.assert_array_equal(gray, expected)


def test_only_wanted_frames_are_converted_and_all_are_counted(tmp_path: Path) -> None:
    path = videos.encode(tmp_path / "a.avi", FRAMES, "XVID")
    whole, some = read(path), read(path, frozenset({3, 7}))
    assert list(some) == sorted(ALL)
    for number, gray in some.items():
        if number in (3, 7):
            np.testing.assert_array_equal(gray, whole[number])
        else:
            assert gray is None
    assert read(path, frozenset()) == dict.fromkeys(sorted(ALL))
    assert read(path, frozenset({0})) == dict.fromkeys(sorted(ALL))


def test_a_video_ends_where_its_frames_do_whatever_is_wanted(tmp_path: Path) -> None:
    path = videos.encode(tmp_path / "a.avi", FRAMES, "FFV1")
    assert list(read(path, ALL | {400})) == sorted(ALL)


def test_a_wrong_count_in_the_container_does_not_matter(tmp_path: Path) -> None:
    path = videos.encode(tmp_path / "a.avi", FRAMES, "FFV1")
    data = bytearray(path.read_bytes())
    for header, offset in ((b"avih", 24), (b"strh", 40)):  # dwTotalFrames, dwLength
        place = data.index(header) + offset
        assert int.from_bytes(data[place : place + 4], "little") == NUM_FRAMES
        data[place : place + 4] = (3).to_bytes(4, "little")
    path.write_bytes(data)
    assert list(read(path)) == sorted(ALL)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
@pytest.mark.parametrize("codec", ["FFV1", "MJPG", "XVID"])
def test_of_a_truncated_video_the_whole_frames_count(
    tmp_path: Path, codec: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = videos.encode(tmp_path / "a.avi", FRAMES, codec)
    whole = read(path)
    capfd.readouterr()
    os.truncate(path, int(path.stat().st_size * share))
    grays, complaint = read_until_broken(path)
    assert 3 < len(grays) < NUM_FRAMES
    for number, gray in enumerate(grays, 1):
        np.testing.assert_array_equal(gray, whole[number])
    assert complaint.startswith("[")
    assert "0x" not in complaint.partition("]")[0]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "FFV1"), ("a.avi", "MJPG"), ("a.avi", "XVID"), ("a.mkv", "FFV1")]
)
def test_damage_ends_a_video_before_numbers_shift_or_frames_are_invented(
    tmp_path: Path, name: str, codec: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = videos.encode(tmp_path / name, FRAMES, codec)
    whole = read(path)
    capfd.readouterr()
    data = bytearray(path.read_bytes())
    middle, hole = len(data) // 2, len(data) // 5
    data[middle : middle + hole] = bytes(hole)
    path.write_bytes(data)
    careless = plainly_read(path)
    assert len(careless) < NUM_FRAMES or any((a != whole[i]).any() for i, a in enumerate(careless, 1))
    capfd.readouterr()
    grays, _ = read_until_broken(path)
    assert 3 < len(grays) < NUM_FRAMES
    for number, gray in enumerate(grays, 1):
        np.testing.assert_array_equal(gray, whole[number])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("setting", ["OPENCV_FFMPEG_LOGLEVEL=-8", "OPENCV_FFMPEG_LOGLEVEL=16", "OPENCV_FFMPEG_DEBUG=1"])
def test_settings_of_opencv_s_log_do_not_hide_damage(tmp_path: Path, setting: str) -> None:
    path = videos.encode(tmp_path / "a.avi", FRAMES, "MJPG")
    os.truncate(path, int(path.stat().st_size * 0.6))
    program = f"""
from attengait.datasets.source import Fault
from attengait.datasets.video import BrokenVideoError, read_video
try:
    list(read_video({str(path)!r}, {{{NUM_FRAMES}}}))
except BrokenVideoError as error:
    print("broken")
"""
    environment = os.environ | dict([setting.split("=")])
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("broken\n", "")


@pytest.mark.parametrize("content", [b"", b"not a video\n" * 100, b"RIFF\x00\x00\x00\x00AVI LIST", None])
def test_what_is_no_video_is_one_quiet_error(
    tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.avi"
    if content is not None:
        path.write_bytes(content)
    grays, reason = read_until_broken(path)
    assert grays == []
    assert reason
    assert capfd.readouterr() == ("", "")


def test_a_name_that_is_not_utf_8_is_an_error_and_no_crash(tmp_path: Path) -> None:
    source = videos.encode(tmp_path / "a.avi", FRAMES, "FFV1")
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    path = source.rename(folder / "a.avi")
    assert read_until_broken(path)[0] == []


def test_a_relative_path_with_a_colon_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos.encode(tmp_path / "file:x" / "a.avi", FRAMES, "FFV1")
    monkeypatch.chdir(tmp_path)
    assert list(read(Path("file:x/a.avi"))) == sorted(ALL)


def test_what_others_write_to_standard_error_meanwhile_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    def decode() -> str:
        os.write(2, b"a log line\n[h264 @ 0x55d0c0ffee00] error\n    Last message repeated 3 times\nanother\n")
        return "result"

    with open(os.memfd_create("said"), "r+b", buffering=0) as file:
        assert video_module._overhear(decode, file.fileno()) == ("result", "[h264] error")
        assert capfd.readouterr().err == "a log line\nanother\n"
        assert video_module._overhear(lambda: "quiet", file.fileno()) == ("quiet", "")


def test_a_reader_that_is_left_early_leaves_no_file_open(tmp_path: Path) -> None:
    path = videos.encode(tmp_path / "a.avi", FRAMES, "FFV1")
    reader = read_video(str(path), ALL)
    next(reader)
    assert held.open_files(path) > 0
    reader.close()
    assert held.open_files(path) == 0


def test_the_decoder_s_version_is_known() -> None:
    assert decoder_version().startswith("avcodec ")
    assert "none" not in decoder_version()


def test_a_real_video_has_its_frames_and_not_those_that_its_container_claims(shared: Path) -> None:
    path = shared / "walkers" / "plaza.avi"
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 682
    plain = plainly_read(path)
    assert len(plain) == 341
    wanted = frozenset(range(100, 1000))
    found = read(path, wanted)
    assert list(found) == list(range(1, 342))
    for number, gray in found.items():
        if number in wanted:
            np.testing.assert_array_equal(gray, plain[number - 1])


@pytest.mark.parametrize("frames_per_second", [25, 7.5])
def test_each_frame_comes_with_its_time(tmp_path: Path, frames_per_second: float) -> None:
    path = videos.encode(tmp_path / "a.avi", FRAMES, "FFV1", frames_per_second=frames_per_second)
    times = [seconds for _, _, seconds in read_video(str(path), ALL)]
    np.testing.assert_allclose(times, np.arange(NUM_FRAMES) / frames_per_second, atol=1e-3)


def test_the_environment_is_as_it_was_after_a_video_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_LOGLEVEL", "-8")
    path = videos.encode(tmp_path / "a.avi", FRAMES[:2], "FFV1")
    list(read_video(str(path), ALL))
    assert os.environ["OPENCV_FFMPEG_LOGLEVEL"] == "-8"


def test_damage_is_heard_where_no_temporary_file_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = videos.encode(tmp_path / "a.avi", FRAMES, "MJPG")
    os.truncate(path, int(path.stat().st_size * 0.6))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    assert 3 < len(read_until_broken(path)[0]) < NUM_FRAMES


def test_damage_after_the_last_wanted_frame_is_one_fault(tmp_path: Path) -> None:
    path = videos.encode(tmp_path / "a.avi", FRAMES, "FFV1")
    os.truncate(path, int(path.stat().st_size * 0.6))
    faults: list[Fault] = []
    frames = list(Video(path=str(path)).read({1, 2, 3}, faults, read_one_by_one))
    assert [frame.gray is not None for frame in frames] == [True] * 3 + [False] * (len(frames) - 3)
    assert [(fault.reason, fault.number) for fault in faults] == [(Reason.BROKEN_VIDEO, len(frames) + 1)]


def test_a_video_that_is_gone_is_an_error_of_the_run_that_names_it(tmp_path: Path) -> None:
    path = str(tmp_path / "a.avi")
    with pytest.raises(InputError, match=f"^{path} can no longer be read: No such file"):
        list(Video(path=path).read({1, 2}, [], read_one_by_one))
