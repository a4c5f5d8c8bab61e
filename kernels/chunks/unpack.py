"""Clips out of the shards of an lz4 store by compiled code (unpack.cpp): read, checked and unpacked in one call.

Python's usual libraries take a call for each chunk, and between the calls one thread waits for the other. While this
code runs, ctypes lets other threads run. It reads only what is plainly sound, and says which clips it could not read:
for these, the usual libraries are right to say what is wrong.
"""

import contextlib
import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.kernels.runtime.compile import NATIVE, build, load

_FOLDER = Path(__file__).parent
SOURCE = _FOLDER / "unpack.cpp"
HEADERS = (_FOLDER / "crc32c.h", _FOLDER / "lz4.h")
FLAGS = (NATIVE, "-O3")

Place = tuple[int, NDArray[np.uint64], int, NDArray[np.uint8]]
"""A clip: the descriptor of its shard's open file; the shard's index [chunks, 2], offset and size of each chunk; the
clip's first frame in the shard; and the array [T, H, W, C] for its frames."""


def unpack(packed: bytes, frames: NDArray[np.uint8]) -> bool:
    """Unpack a chunk, without its checksum, into contiguous `frames`; whether it could be unpacked.

    For tests: `read_clips` does this many times in a call.
    """
    library = _library()
    assert library is not None
    assert frames.flags.c_contiguous
    held = np.frombuffer(packed, np.uint8)
    return bool(library.chunks_unpack(held.ctypes.data, len(packed), frames.ctypes.data, frames.nbytes))


def crc32c(data: bytes) -> int:
    """The CRC-32C of some bytes. For tests, as `unpack` is."""
    library = _library()
    assert library is not None
    return int(library.chunks_crc32c(np.frombuffer(data, np.uint8).ctypes.data, len(data)))


def can_read() -> bool:
    """Whether there is compiled code; the first call compiles it."""
    return _library() is not None


def read_clips(
    places: Sequence[Place], *, chunk_frames: int, frame_bytes: int, max_packed_bytes: int
) -> NDArray[np.bool_]:
    """Read clips of `chunk_frames` frames a chunk, of `frame_bytes` each; which of them were read, bool [N].

    A chunk is packed by Blosc's lz4, and its CRC-32C follows. The frames of clips that were not read mean nothing. The
    index must have a row for each chunk of each clip.
    """
    library = _library()
    assert library is not None
    table = np.empty((len(places), 5), np.int64)
    for row, (file, index, first, frames) in zip(table, places, strict=True):
        assert index.flags.c_contiguous
        assert frames.flags.c_contiguous
        row[:] = file, index.ctypes.data, first, len(frames), frames.ctypes.data
    is_read = np.empty(len(places), np.bool_)
    library.chunks_read(
        table.ctypes.data, len(places), chunk_frames, frame_bytes, max_packed_bytes, is_read.ctypes.data
    )
    return is_read


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled code; None where it cannot be compiled or loaded."""
    # Without it, everything is read all the same.
    with contextlib.suppress(AttenGaitError):
        return _load()
    return None


def _load() -> ctypes.CDLL:
    library = load(build(SOURCE, flags=FLAGS, depends=HEADERS))
    address, size = ctypes.c_void_p, ctypes.c_size_t
    library.chunks_read.argtypes = [address, *[size] * 4, address]
    library.chunks_read.restype = None
    library.chunks_unpack.argtypes = [address, size, address, size]
    library.chunks_unpack.restype = ctypes.c_int
    library.chunks_crc32c.argtypes = [address, size]
    library.chunks_crc32c.restype = ctypes.c_uint32
    return library
