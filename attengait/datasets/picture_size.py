"""How many pixels, and how many bits a value, a picture says that it has, before it is decoded.

A file of a few kilobytes may unpack to gigabytes. OpenCV's own limit can only be set for the whole process, by an
environment variable, so the headers of PNG, JPEG and BMP are read here.
"""

from collections.abc import Iterator

MAX_PIXELS = 100_000_000
"""Three pictures of 8K video have as many."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8"
_BMP_SIGNATURE = b"BM"
_JPEG_NO_FRAMES = {0xC4, 0xC8, 0xCC}
"""Markers among those of frames that are none: tables and extensions."""
_JPEG_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length after them."""
_JPEG_START_OF_SCAN = 0xDA


def num_pixels(data: bytes) -> int:
    """The pixels that the header of a PNG, JPEG or BMP file gives; 0 where it gives none, and for other kinds."""
    if data.startswith(_PNG_SIGNATURE):
        return int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    if data.startswith(_JPEG_SIGNATURE):
        return _num_jpeg_pixels(data)
    if data.startswith(_BMP_SIGNATURE):
        if int.from_bytes(data[14:18], "little") == 12:  # as OS/2 writes it
            return int.from_bytes(data[18:20], "little") * int.from_bytes(data[20:22], "little")
        width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
        return abs(width * height)
    return 0


def has_too_many_pixels(data: bytes) -> bool:
    """Whether a picture is too large to be decoded."""
    return num_pixels(data) > MAX_PIXELS


def num_bits(data: bytes) -> int:
    """The bits of a value that the header of a PNG or JPEG file gives; 0 where it gives none, and for other kinds."""
    if data.startswith(_PNG_SIGNATURE):
        return data[24] if len(data) > 24 else 0
    if data.startswith(_JPEG_SIGNATURE):
        return max((bits for bits, _, _ in _jpeg_frames(data)), default=0)
    return 0


def _num_jpeg_pixels(data: bytes) -> int:
    """The most that any of its frames' headers gives."""
    return max((height * width for _, height, width in _jpeg_frames(data)), default=0)


def _jpeg_frames(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Bits of a value, height and width, as each of its frames' headers gives them."""
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 9:
        marker = data[at + 1]
        if marker in (0x00, 0xFF) or marker in _JPEG_ALONE:
            at += 1
            continue
        if marker == _JPEG_START_OF_SCAN:
            break
        if 0xC0 <= marker <= 0xCF and marker not in _JPEG_NO_FRAMES:
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            yield data[at + 4], height, width
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
