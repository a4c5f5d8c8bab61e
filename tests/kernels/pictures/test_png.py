"""PNG files decoded by our own code give OpenCV's pictures; all that is unusual or damaged is left to OpenCV."""

import itertools
import struct
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from attengait.datasets.pictures import decode_gray as read_by_any
from attengait.kernels.pictures import png
from attengait.kernels.runtime.compile import find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler (c++, g++ or clang++)")

FILTERS = {
    "none": cv2.IMWRITE_PNG_FILTER_NONE,
    "sub": cv2.IMWRITE_PNG_FILTER_SUB,
    "up": cv2.IMWRITE_PNG_FILTER_UP,
    "average": cv2.IMWRITE_PNG_FILTER_AVG,
    "paeth": cv2.IMWRITE_PNG_FILTER_PAETH,
    "all": cv2.IMWRITE_PNG_ALL_FILTERS,
}


def by_opencv(data: bytes) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_file(
    rows: bytes, width: int, height: int, *, header: bytes = b"\x08\x02\0\0\0", before: bytes = b"", packed: bytes = b""
) -> bytes:
    """A file whose inflated rows, or whose packed pixels, are given; `header` is depth, colour type and the rest."""
    pixels = packed or zlib.compress(rows)
    half = len(pixels) // 2
    parts = chunk(b"IHDR", struct.pack(">II", width, height) + header), before
    return png.SIGNATURE + b"".join(
        [*parts, chunk(b"IDAT", pixels[:half]), chunk(b"IDAT", pixels[half:]), chunk(b"IEND", b"")]
    )


def random_rows(random: np.random.Generator, width: int, height: int, channels: int) -> np.ndarray:
    """Any bytes are a picture; each row has any filter."""
    rows = random.integers(0, 256, (height, 1 + width * channels), np.uint8)
    rows[:, 0] = random.integers(0, 5, height)
    return rows


@pytest.fixture
def small() -> bytes:
    return cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize("filter_name", FILTERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_every_filter_and_size_are_those_of_opencv(filter_name: str, channels: int) -> None:
    random = np.random.default_rng(0)
    for height, width in itertools.product((1, 2, 3, 50), (1, 2, 3, 4, 5, 15, 16, 17, 67)):
        picture = cv2.GaussianBlur(random.integers(0, 256, (height, width, channels), np.uint8), (0, 0), 1.0)
        data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_FILTER, FILTERS[filter_name]])[1].tobytes()
        assert png.is_complete(data)
        np.testing.assert_array_equal(png.decode_gray(data), by_opencv(data))


@pytest.mark.parametrize("channels", [1, 3])
def test_any_rows_with_any_filters_are_those_of_opencv(channels: int) -> None:
    random = np.random.default_rng(1)
    for _ in range(100):
        height, width = random.integers(1, 40, 2).tolist()
        rows = random_rows(random, width, height, channels).tobytes()
        data = png_file(rows, width, height, header=bytes([8, channels - 1, 0, 0, 0]))
        np.testing.assert_array_equal(png.decode_gray(data), by_opencv(data))


def test_all_neighbours_that_paeth_can_meet_are_chosen_between_as_the_specification_says() -> None:
    # In pairs of rows: the second one is [left, x] below [corner, up], and all that x adds to its prediction is 0.
    left, up, corner = (values.ravel() for values in np.meshgrid(*[np.arange(0, 256, 3, np.uint8)] * 3))
    rows = np.zeros((2 * len(left), 3), np.uint8)
    rows[0::2, 1], rows[0::2, 2], rows[1::2, 1] = corner, up, left - corner
    rows[1::2, 0] = 4
    picture = png.decode_gray(png_file(rows.tobytes(), 2, len(rows), header=b"\x08\0\0\0\0"))
    assert picture is not None
    a, b, c = (values.astype(int) for values in (left, up, corner))
    to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    expected = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
    np.testing.assert_array_equal(picture[1::2, 1], expected)


def test_every_colour_has_the_grey_of_opencv() -> None:
    levels = np.arange(256, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(4096, 4096, 3)
    data = cv2.imencode(".png", colours, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    np.testing.assert_array_equal(png.decode_gray(data), by_opencv(data))


def test_time_and_pixel_size_change_nothing(small: bytes) -> None:
    start = len(png.SIGNATURE) + 25
    for harmless in (chunk(b"pHYs", bytes(9)), chunk(b"tIME", b"\x07\xe8\1\1\1\1\1")):
        data = small[:start] + harmless + small[start:]
        np.testing.assert_array_equal(png.decode_gray(data), by_opencv(small))


@pytest.mark.parametrize(
    "before",
    [
        chunk(b"gAMA", struct.pack(">I", 100_000)),
        chunk(b"sRGB", b"\0"),
        chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        chunk(b"tRNS", bytes(6)),
        chunk(b"bKGD", bytes(6)),
        chunk(b"sBIT", b"\5\5\5"),
        chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"),
        chunk(b"tEXt", b"Raw profile type exif\0"),
        chunk(b"acTL", struct.pack(">II", 1, 0)),
        chunk(b"quIt", b""),
        chunk(b"QUIT", b""),
    ],
    ids=lambda before: before[4:8].decode(),
)
def test_a_chunk_that_may_change_values_is_left_to_opencv(before: bytes) -> None:
    rows = random_rows(np.random.default_rng(2), 30, 20, 3).tobytes()
    assert png.decode_gray(png_file(rows, 30, 20)) is not None
    data = png_file(rows, 30, 20, before=before)
    assert png.decode_gray(data) is None
    expected, read = by_opencv(data), read_by_any(data)
    assert (expected is None) == (read is None)
    if expected is not None:
        np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize(
    ("name", "picture", "options"),
    [
        ("alpha", np.full((20, 30, 4), 7, np.uint8), []),
        ("16 bits", np.full((20, 30), 700, np.uint16), []),
        ("16 bits in colour", np.full((20, 30, 3), 700, np.uint16), []),
        ("1 bit", np.full((20, 30), 255, np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1]),
    ],
)
def test_other_kinds_are_left_to_opencv(name: str, picture: np.ndarray, options: list[int]) -> None:
    data = cv2.imencode(".png", picture, options)[1].tobytes()
    assert png.decode_gray(data) is None
    if name.startswith("16"):
        assert read_by_any(data) is None  # 8 bits would keep next to nothing of a camera's 12
    else:
        np.testing.assert_array_equal(read_by_any(data), by_opencv(data))


def test_palettes_and_interlaced_pictures_are_left_to_opencv() -> None:
    palette = chunk(b"PLTE", np.random.default_rng(3).integers(0, 256, 768, np.uint8).tobytes())
    grey = random_rows(np.random.default_rng(3), 30, 20, 1).tobytes()
    with_palette = png_file(grey, 30, 20, header=b"\x08\3\0\0\0", before=palette)
    interlaced = png_file(bytes(1 + 3), 1, 1, header=b"\x08\2\0\0\1")
    for data in (with_palette, interlaced):
        assert png.decode_gray(data) is None
        np.testing.assert_array_equal(read_by_any(data), by_opencv(data))


def _damaged() -> dict[str, bytes]:
    rows = random_rows(np.random.default_rng(4), 30, 20, 3).tobytes()
    good = png_file(rows, 30, 20)
    packed = zlib.compress(rows)
    unknown = bytearray(rows)
    unknown[91 * 5] = 5
    between = good.rfind(b"IDAT") - 4
    end = good.rfind(b"IEND") - 4
    return {
        "checksum of the pixels": png_file(b"", 30, 20, packed=packed[:-1] + bytes([packed[-1] ^ 1])),
        "end of the pixels": png_file(b"", 30, 20, packed=packed[:-9]),
        "a bit of the pixels": png_file(b"", 30, 20, packed=packed[:500] + bytes([packed[500] ^ 4]) + packed[501:]),
        "window of the pixels": png_file(b"", 30, 20, packed=b"\x88\x1c" + packed[2:]),
        "too few rows": png_file(rows[:-91], 30, 20),
        "too many rows": png_file(rows + rows[:91], 30, 20),
        "unknown filter": png_file(bytes(unknown), 30, 20),
        "no pixels": png.SIGNATURE + good[8:33] + good[end:],
        "a chunk between the pixels": good[:between] + chunk(b"tIME", bytes(7)) + good[between:],
        "a chunk behind the pixels": good[:end] + chunk(b"tIME", bytes(7)) + good[end:],
        "no header": png.SIGNATURE + good[33:],
        "no width": png_file(rows, 0, 20),
        "unknown compression": png_file(rows, 30, 20, header=b"\x08\2\1\0\0"),
        "unknown filtering": png_file(rows, 30, 20, header=b"\x08\2\0\1\0"),
        "only an end": png.SIGNATURE + chunk(b"IEND", b""),
    }


@pytest.mark.parametrize("name", _damaged())
def test_what_is_not_as_expected_is_judged_by_opencv(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = _damaged()[name]
    assert png.is_complete(data)  # its CRCs are right
    assert png.decode_gray(data) is None
    expected, read = by_opencv(data), read_by_any(data)
    capfd.readouterr()  # libpng's own words
    assert (expected is None) == (read is None)
    if expected is not None:
        np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("package", [png.deflate, None], ids=["as installed", "zlib"])
def test_a_small_file_does_not_unpack_to_much_memory(monkeypatch: pytest.MonkeyPatch, package: object) -> None:
    monkeypatch.setattr(png, "deflate", package)
    bomb = png_file(bytes(100_000_000), 30, 20)
    tracemalloc.start()
    try:
        assert png.decode_gray(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_without_libdeflate_zlib_gives_the_same(monkeypatch: pytest.MonkeyPatch, small: bytes) -> None:
    expected = png.decode_gray(small)
    assert expected is not None
    monkeypatch.setattr(png, "deflate", None)
    np.testing.assert_array_equal(png.decode_gray(small), expected)
    assert png.is_complete(small)
    assert not png.is_complete(small[:-1])
    for damaged in _damaged().values():
        assert png.decode_gray(damaged) is None


def test_without_a_compiler_opencv_reads(monkeypatch: pytest.MonkeyPatch, small: bytes) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    caches = png._library, png._agrees_with_opencv
    for cache in caches:
        cache.cache_clear()
    try:
        assert png.decode_gray(small) is None
        np.testing.assert_array_equal(read_by_any(small), by_opencv(small))
    finally:
        for cache in caches:
            cache.cache_clear()


def test_an_opencv_that_makes_other_greys_reads_for_itself(monkeypatch: pytest.MonkeyPatch, small: bytes) -> None:
    expected = by_opencv(small)
    assert expected is not None
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decode(*arguments) // 2)
    png._agrees_with_opencv.cache_clear()
    try:
        assert png.decode_gray(small) is None
        np.testing.assert_array_equal(read_by_any(small), expected // 2)
    finally:
        png._agrees_with_opencv.cache_clear()


def test_the_source_compiles_without_a_warning(tmp_path: Path) -> None:
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wshadow", "-shared", "-fPIC", *png.FLAGS]
    command = [str(find_compiler()), *flags, str(png.SOURCE), "-o", str(tmp_path / "library.so")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
