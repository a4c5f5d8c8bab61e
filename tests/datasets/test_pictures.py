"""Pictures are read as OpenCV reads them when whole, and not at all when not."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from attengait.datasets.inputs import InputError
from attengait.datasets.pictures import (
    Pictures,
    read_colour,
    read_complete,
    read_gray,
    read_one_by_one,
    why_unreadable,
)
from attengait.datasets.source import Fault, frame_number
from attengait.store.skipped import Reason


def encoded(suffix: str, shape: tuple[int, ...] = (48, 64, 3)) -> bytes:
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return cv2.imencode(suffix, picture)[1].tobytes()


def written(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "picture"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
@pytest.mark.parametrize("shape", [(48, 64, 3), (48, 64)])
def test_a_whole_picture_is_that_of_imread(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    path = written(tmp_path, encoded(suffix, shape))
    picture = read_gray(path)
    assert picture is not None
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, cv2.imread(path, cv2.IMREAD_GRAYSCALE))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
@pytest.mark.parametrize("kept", [0, 1, 8, 30, 0.3, 0.9, -12, -5, -1])
def test_a_truncated_picture_is_none_without_a_word(
    tmp_path: Path, suffix: str, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded(suffix)
    assert read_gray(written(tmp_path, data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])) is None
    assert capfd.readouterr() == ("", "")


def test_a_png_with_one_flipped_bit_anywhere_is_none_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded(".png")
    for position in [*range(8, 60), *range(60, len(data), 97), len(data) - 1]:
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        assert read_gray(written(tmp_path, bytes(damaged))) is None, position
    assert capfd.readouterr() == ("", "")


def test_a_whole_jpeg_with_a_thumbnail_is_read_and_a_truncated_one_is_none(tmp_path: Path) -> None:
    thumbnail = encoded(".jpg", (8, 8, 3))
    data = encoded(".jpg")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data = data[:2] + segment + data[2:]
    assert read_gray(written(tmp_path, data)) is not None
    assert read_gray(written(tmp_path, data[: len(data) * 2 // 3])) is None


def test_bytes_after_the_end_do_no_harm(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg"):
        assert read_gray(written(tmp_path, encoded(suffix) + b"\0\0camera notes")) is not None


def test_what_is_no_picture_is_none_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chunk = b"IHDR" + (2**31 - 1).to_bytes(4, "big") * 2 + b"\x08\0\0\0\0"
    end = b"IEND"
    huge = b"\x89PNG\r\n\x1a\n" + b"".join(
        (len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in (chunk, end)
    )
    for data in (b"", b"hello" * 100, b"BM" + bytes(60), huge):
        assert read_gray(written(tmp_path, data)) is None
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_gone_or_cannot_be_read_is_an_error_of_the_run_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.png", tmp_path):
        for read in (read_gray, read_colour):
            with pytest.raises(InputError, match=f"^{path} can no longer be read: "):
                read(str(path))


@pytest.mark.parametrize(
    "options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 5]], ids=["plain", "prog", "rst"]
)
def test_damage_inside_the_scan_of_a_jpeg_is_heard_without_a_word(
    tmp_path: Path, options: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8), (0, 0), 1)
    data = cv2.imencode(".jpg", picture, options)[1].tobytes()
    assert read_gray(written(tmp_path, data)) is not None
    for share in (0.3, 0.5, 0.8):
        damaged = bytearray(data)
        place = int(share * len(data))
        damaged[place : place + 100] = bytes(100)
        path = written(tmp_path, bytes(damaged))
        assert read_gray(path) is None
        assert read_colour(path) is None
        assert why_unreadable(path).startswith(("Corrupt JPEG data: ", "Inconsistent progression"))
    assert capfd.readouterr() == ("", "")


def test_zeros_with_which_a_camera_fills_up_a_jpeg_are_no_damage(tmp_path: Path) -> None:
    data = encoded(".jpg")
    filled = data[:-2] + bytes(37) + data[-2:]
    picture = read_gray(written(tmp_path, filled))
    assert picture is not None
    np.testing.assert_array_equal(picture, read_gray(written(tmp_path, data)))
    assert read_gray(written(tmp_path, data[:-2] + b"\x11\x22" * 9 + data[-2:])) is None


def test_a_damaged_frame_is_left_out_with_what_the_decoder_said(tmp_path: Path) -> None:
    data = bytearray(encoded(".jpg"))
    data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
    for number, content in enumerate((encoded(".jpg"), bytes(data), b""), 1):
        (tmp_path / f"a-{number}.jpg").write_bytes(content)
    faults: list[Fault] = []
    frames = list(Pictures.of(tmp_path, [f"a-{n}.jpg" for n in (1, 2, 3)]).read({1, 2, 3}, faults, read_one_by_one))
    assert [frame.gray is None for frame in frames] == [False, True, True]
    assert [(fault.reason, fault.number) for fault in faults] == [(Reason.UNREADABLE_PICTURE, n) for n in (2, 3)]
    assert "Corrupt JPEG data" in faults[0].detail
    assert faults[1].detail == "the file is empty"


def test_the_log_level_of_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    before = cv2.utils.logging.getLogLevel()
    read_gray(written(tmp_path, encoded(".bmp")[:100]))
    assert cv2.utils.logging.getLogLevel() == before


def test_the_number_of_a_file_is_the_last_one_of_its_name() -> None:
    names = {"001-nm-01-090-012.png": 12, "00011_00012_flow.png": 12, "a-00001_00002.png": 2, "frame7.png": 7}
    assert {name: frame_number(name) for name in names} == names
    with pytest.raises(ValueError, match=r"flow\.png has no number"):
        frame_number("flow.png")


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm", ".jp2"])
def test_a_picture_of_16_bits_is_none_and_what_to_do_is_said(tmp_path: Path, suffix: str) -> None:
    """Twelve bits of a camera in sixteen: eight of these would keep a sixteenth of the levels."""
    levels = np.random.default_rng(0).integers(0, 4096, (48, 64, 3), dtype=np.uint16)
    path = written(tmp_path, cv2.imencode(suffix, levels)[1].tobytes())
    assert read_gray(path) is None
    assert read_colour(path) is None
    assert why_unreadable(path) == "it has 16 bits a value: write it with 8"
    path = written(tmp_path, cv2.imencode(suffix, (levels // 16).astype(np.uint8))[1].tobytes())
    assert read_gray(path) is not None
    assert read_colour(path) is not None


def test_a_picture_that_says_it_has_more_than_8_bits_reaches_no_decoder(tmp_path: Path) -> None:
    deep = cv2.imencode(".png", np.zeros((48, 64), np.uint16))[1].tobytes()
    jpeg = bytearray(encoded(".jpg"))
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12
    for data, bits in ((deep, 16), (bytes(jpeg), 12)):
        path = written(tmp_path, data)
        assert read_complete(path) is None
        assert why_unreadable(path) == f"it has {bits} bits a value: write it with 8"
    assert read_complete(written(tmp_path, encoded(".jpg"))) == encoded(".jpg")
