"""Clips that lie anywhere in memory as one array, by compiled code (gather.cpp).

While it runs, ctypes lets other threads run.
"""

import contextlib
import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.kernels.runtime.compile import build, load

SOURCE = Path(__file__).parent / "gather.cpp"
FLAGS = ("-O3", "-pthread")
PAST_CACHES_BYTES = 8 << 20
"""Larger arrays are written past the caches."""


def can_gather() -> bool:
    """Whether there is compiled code; the first call compiles it."""
    return _library() is not None


def gather(clips: Sequence[NDArray[np.uint8]], num_threads: int) -> NDArray[np.uint8]:
    """Return clips, contiguous uint8 [T, H, W, C] of one shape, as an array of its own, [N, T, H, W, C]."""
    library = _library()
    assert library is not None
    assert all(clip.shape == clips[0].shape and clip.flags.c_contiguous for clip in clips)
    whole = np.empty((len(clips), *clips[0].shape), np.uint8)
    places = np.array([clip.ctypes.data for clip in clips], np.uintp)
    past_caches = whole.nbytes >= PAST_CACHES_BYTES
    library.gather_clips(places.ctypes.data, len(clips), clips[0].nbytes, whole.ctypes.data, past_caches, num_threads)
    return whole


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled code; None where it cannot be compiled or loaded."""
    # Without it, DALI copies.
    with contextlib.suppress(AttenGaitError):
        library = load(build(SOURCE, flags=FLAGS))
        address, size = ctypes.c_void_p, ctypes.c_size_t
        library.gather_clips.argtypes = [address, size, size, address, ctypes.c_int, size]
        library.gather_clips.restype = None
        return library
    return None
