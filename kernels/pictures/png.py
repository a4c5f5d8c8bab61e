"""Grey pictures from the usual PNG files, as OpenCV decodes them, twice as fast: libdeflate and png.cpp do the work.

The usual ones have 8 bits a sample, grey or R, G, B, are not interlaced, and hold no chunk that could change a value:
palettes, transparency, gamma, colour profiles and Exif (orientation) do. All others are left to OpenCV. So is a file in
which anything is unexpected: what is damaged is judged by OpenCV alone. libdeflate inflates the rows (the package
deflate); without it zlib does, in twice the time.
"""

import ctypes
import functools
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.kernels.runtime.compile import NATIVE, build, load

try:
    import deflate
except ImportError:
    deflate = None

SOURCE = Path(__file__).parent / "png.cpp"
FLAGS = (NATIVE, "-O3")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = SIGNATURE + b"\0\0\0\rIHDR"
_FIRST_CHUNK = len(_HEADER) + 17
"""Where the chunk after the header begins."""
_CHANNELS = {0: 1, 2: 3}
"""Of the colour types grey and R, G, B."""
_ERRORS = (zlib.error, deflate.DeflateError) if deflate else (zlib.error,)
_HARMLESS = (b"pHYs", b"tIME")
"""Chunks that may lie before the pixels: size and time."""

Gray = NDArray[np.uint8]


def is_complete(data: bytes) -> bool:
    """Whether all chunks of a PNG file, up to its end, have the checksums that they say."""
    # A chunk is its length, its type, its content, and a CRC-32 of type and content.
    view, crc32 = memoryview(data), (deflate or zlib).crc32
    offset = len(SIGNATURE)
    while offset + 12 <= len(data):
        end = offset + 8 + int.from_bytes(data[offset : offset + 4], "big")
        if end + 4 > len(data) or crc32(view[offset + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        if data[offset + 4 : offset + 8] == b"IEND":
            return True
        offset = end + 4
    return False


def decode_gray(data: bytes) -> Gray | None:
    """Return the picture of a complete PNG file (`is_complete`), uint8 [H, W]; None where OpenCV must decode it.

    It is that of `cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)`.
    """
    return _decode(data) if _agrees_with_opencv() else None


def _decode(data: bytes) -> Gray | None:
    if not data.startswith(_HEADER):
        return None
    width, height, *kind = struct.unpack_from(">II5B", data, len(_HEADER))
    depth, colour_type, *others = kind
    channels = _CHANNELS.get(colour_type)
    if depth != 8 or channels is None or any(others) or not width or not height:
        return None
    num_bytes = height * (1 + width * channels)
    packed, library = _packed_rows(data), _library()
    rows = None if packed is None or library is None else _inflate(packed, num_bytes)
    if rows is None:
        return None
    scratch, gray = np.empty((2, width * channels + 4), np.uint8), np.empty((height, width), np.uint8)
    is_done = library.png_gray(rows.ctypes.data, height, width, channels, scratch.ctypes.data, gray.ctypes.data)
    return gray if is_done else None


def _packed_rows(data: bytes) -> bytes | None:
    """The zlib stream of a file; None if its chunks do not lie side by side, or other chunks may change values."""
    view, parts, offset = memoryview(data), [], _FIRST_CHUNK
    while (kind := data[offset + 4 : offset + 8]) != b"IEND":
        end = offset + 8 + int.from_bytes(data[offset : offset + 4], "big")
        if kind == b"IDAT":
            parts.append(view[offset + 8 : end])
        elif kind not in _HARMLESS or parts:
            return None
        offset = end + 4
    return b"".join(parts)


def _inflate(packed: bytes, num_bytes: int) -> NDArray[np.uint8] | None:
    """The bytes in a zlib stream; None unless they are whole, and just so many."""
    try:
        if deflate is not None:
            rows = deflate.zlib_decompress(packed, num_bytes)
        else:
            stream = zlib.decompressobj()
            rows = stream.decompress(packed, num_bytes + 1)
            if not stream.eof:
                return None
    except _ERRORS:
        return None
    return np.frombuffer(rows, np.uint8) if len(rows) == num_bytes else None


@functools.cache
def _library() -> Any:
    """The compiled code; None where it cannot be compiled."""
    try:
        library = load(build(SOURCE, flags=FLAGS))
    except AttenGaitError:
        return None
    address, number = ctypes.c_void_p, ctypes.c_int
    library.png_gray.argtypes = [address, number, number, number, address, address]
    library.png_gray.restype = number
    return library


@functools.cache
def _agrees_with_opencv() -> bool:
    """Whether OpenCV, as it was built here, makes the same grey of many colours."""
    colours = np.random.default_rng(0).integers(0, 256, (64, 256, 3), np.uint8)
    data = cv2.imencode(".png", colours)[1].tobytes()
    ours, theirs = _decode(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return ours is not None and theirs is not None and np.array_equal(ours, theirs)
