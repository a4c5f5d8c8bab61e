"""The number of pixels is known before a picture is decoded, and too many are not decoded."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.datasets import picture_size
from attengait.datasets.inputs import InputError
from attengait.datasets.picture_size import has_too_many_pixels, num_pixels
from attengait.datasets.pictures import read_colour, read_gray
from attengait.datasets.video import BrokenVideoError, read_video


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
@pytest.mark.parametrize("shape", [(1, 1), (37, 20), (5, 300, 3)])
@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1)])
def test_it_is_what_opencv_decodes(suffix: str, shape: tuple[int, ...], options: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = cv2.imencode(suffix, picture, list(options) if suffix == ".jpg" else [])[1].tobytes()
    assert num_pixels(data) == shape[0] * shape[1]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_picture_of_too_many_pixels_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = str(tmp_path / f"a{suffix}")
    cv2.imwrite(path, np.full((20, 30), 7, np.uint8))
    for limit, is_read in ((600, True), (599, False)):
        monkeypatch.setattr(picture_size, "MAX_PIXELS", limit)
        assert (read_gray(path) is not None) == is_read
        assert (read_colour(path) is not None) == is_read


def test_sixteen_thousand_squared_is_too_many_and_a_frame_of_8k_is_not() -> None:
    def header(width: int, height: int) -> bytes:
        return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")

    assert has_too_many_pixels(header(16_000, 16_000))
    assert has_too_many_pixels(header(1, 2**31 - 1))
    assert not has_too_many_pixels(header(7680, 4320))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"BM", b""]), st.binary(max_size=64))
def test_any_bytes_have_a_number(start: bytes, rest: bytes) -> None:
    assert num_pixels(start + rest) >= 0


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="it is a named pipe, not a file"):
        read_gray(str(tmp_path / "a.png"))
    os.mkfifo(tmp_path / "a.avi")
    with pytest.raises(BrokenVideoError):
        list(read_video(str(tmp_path / "a.avi"), {1}))
