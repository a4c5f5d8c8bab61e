"""Chunks of `frames` as they lie in a shard file, and back to frames: bounded, and checked to be whole.

numcodecs unpacks; what it does not check is checked here: that a chunk says that it holds exactly as many bytes as it
must, before memory is taken for them.
"""

from collections.abc import Callable
from typing import Any

import google_crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
from numpy.typing import NDArray

_CRC_BYTES = 4
_BLOSC_HEADER_BYTES = 16
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def zstd_content_bytes(data: bytes) -> int:
    """The bytes that a Zstandard frame unpacks to, as its header says. Raises ValueError where it does not say.

    Source: RFC 8878, section 3.1.1.1.
    """
    if data[:4] != _ZSTD_MAGIC or len(data) < 6:
        raise ValueError("it is not compressed by zstd")
    flags = data[4]
    is_single_segment = bool(flags & 0x20)
    begin = 5 + (not is_single_segment) + (0, 1, 2, 4)[flags & 3]
    size = (is_single_segment, 2, 4, 8)[flags >> 6]
    if not size or len(data) < begin + size:
        raise ValueError("its size is unknown")
    return int.from_bytes(data[begin : begin + size], "little") + (256 if size == 2 else 0)


def _blosc_content_bytes(data: bytes) -> int:
    """The bytes that a Blosc buffer unpacks to, as its header says. Raises ValueError where it is not whole."""
    if len(data) < _BLOSC_HEADER_BYTES or int.from_bytes(data[12:16], "little") != len(data):
        raise ValueError("it is not a whole Blosc buffer")
    return int.from_bytes(data[4:8], "little")


_CONTENT_BYTES: dict[str, Callable[[bytes], int]] = {"lz4": _blosc_content_bytes, "zstd": zstd_content_bytes}
_UNPACK: dict[str, Callable[[bytes, NDArray[np.uint8]], Any]] = {
    "lz4": numcodecs.blosc.decompress,
    "zstd": numcodecs.zstd.decompress,
}


def unpack_chunk(codec: str, data: bytes, frames: NDArray[np.uint8]) -> None:
    """Unpack a compressed chunk, without its checksum, into contiguous `frames`.

    Raises RuntimeError or ValueError for one that is damaged or does not hold exactly these frames.
    """
    num_bytes = _CONTENT_BYTES[codec](data)
    if num_bytes != frames.nbytes:
        raise ValueError(f"it holds {num_bytes} bytes instead of {frames.nbytes}")
    _UNPACK[codec](data, frames)


def decode_chunk(codec: str, data: bytes, frames: NDArray[np.uint8]) -> None:
    """Decode a chunk of any codec, as it lies in a shard file, into contiguous `frames`.

    Raises RuntimeError or ValueError as `unpack_chunk` does, ValueError also where its checksum is wrong.
    """
    if codec == "none":
        if len(data) != frames.nbytes:
            raise ValueError(f"it holds {len(data)} bytes instead of {frames.nbytes}")
        frames[:] = np.frombuffer(data, np.uint8).reshape(frames.shape)
        return
    packed = data[:-_CRC_BYTES]
    if len(data) < _CRC_BYTES or google_crc32c.value(packed) != int.from_bytes(data[-_CRC_BYTES:], "little"):
        raise ValueError("it fails its checksum")
    unpack_chunk(codec, packed, frames)
