"""A picture's size is known before it is decoded, and one that claims too much is not decoded."""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.datasets import video
from attengait.datasets.picture_size import MAX_PIXELS, picture_size, too_large
from attengait.datasets.pictures import read_colour, read_complete, read_gray
from attengait.datasets.video import BrokenVideoError, read_video

PICTURE = np.random.default_rng(0).integers(0, 256, (17, 40, 3), np.uint8)


def encoded(suffix: str, *options: int) -> bytes:
    return bytes(cv2.imencode(suffix, PICTURE, options)[1])


def png_of(width: int, height: int) -> bytes:
    """A whole PNG with all checksums right, whose rows are zeros."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes((width // 8 + 1) * height))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        encoded(".png"),
        encoded(".bmp"),
        encoded(".jpg"),
        encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    ],
)
def test_the_size_is_that_of_the_decoded_picture(data: bytes, tmp_path: Path) -> None:
    assert picture_size(data) == (40, 17)
    assert too_large(data) is None
    (tmp_path / "a").write_bytes(data)
    assert read_complete(str(tmp_path / "a")) == data


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: calls.append(arguments))
    large = png_of(16_000, 16_000)
    jpeg = bytearray(encoded(".jpg"))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = struct.pack(">HH", 16_000, 16_000)
    bmp = bytearray(encoded(".bmp"))
    bmp[18:26] = struct.pack("<ii", 16_000, -16_000)
    for data in (large, bytes(jpeg), bytes(bmp)):
        assert too_large(data) == "it claims 16,000 x 16,000 pixels, more than the 67,108,864 that are read"
        (tmp_path / "a.png").write_bytes(data)
        assert read_gray(str(tmp_path / "a.png")) is None
        assert read_colour(str(tmp_path / "a.png")) is None
    assert calls == []


def test_the_largest_picture_is_within_the_bound() -> None:
    assert too_large(png_of(8192, 8192)) is None
    assert MAX_PIXELS == 8192 * 8192


def test_a_named_pipe_is_no_picture_and_no_video(tmp_path: Path) -> None:
    pipe = str(tmp_path / "001-nm-01-090-001.png")
    os.mkfifo(pipe)
    assert read_gray(pipe) is None
    with pytest.raises(BrokenVideoError, match="it is not a file"):
        next(read_video(pipe, {1}))


def test_a_video_of_too_many_pixels_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Large:
        def isOpened(self) -> bool:  # noqa: N802
            return True

        def get(self, what: int) -> float:
            return 16_000.0

        def release(self) -> None:
            pass

    monkeypatch.setattr(video, "_open", lambda path: Large())
    with pytest.raises(BrokenVideoError, match="it claims 16,000 x 16,000 pixels"):
        next(read_video(str(tmp_path / "a.avi"), {1}))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(head=st.sampled_from([b"", b"BM", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]), rest=st.binary(max_size=60))
def test_any_bytes_have_a_size_or_none(head: bytes, rest: bytes) -> None:
    for data in (head + rest, encoded(".jpg")[: 20 + len(rest)] + rest):
        size = picture_size(data)
        assert size is None or min(size) >= 0
