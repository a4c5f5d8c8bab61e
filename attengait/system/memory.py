"""Keep the memory of one batch, and of one training step, for the next.

By default glibc gives large blocks back to the system when they are freed, so that a batch is copied into, and a step
on the CPU computes in, memory that is mapped and zeroed again each time. And each thread that allocates memory gets
its own heap of at most 64 MB, which is too small to keep batches.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed, in one heap for all threads that do not allocate yet.

    Returns whether it could be told (Linux with glibc).
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_TRIM_THRESHOLD, _LARGEST), (_M_MMAP_MAX, 0), (_M_ARENA_MAX, 1))
    results = [mallopt(name, value) for name, value in settings]
    return all(results)
