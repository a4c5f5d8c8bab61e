"""What the kernel keeps of files in memory, and having it forget them: for measurements from the disk (Linux).

Pages that some process maps stay, whoever asks; so whoever reads must let go of its files first. How much stayed is
looked up, never assumed.
"""

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def empty_page_cache(files: Iterable[Path]) -> float:
    """Ask for `files` to be dropped from memory; returns the share of their pages that stayed, from 0 to 1."""
    files = list(files)
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what is not yet on the disk cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return resident_share(files)


def resident_share(files: Iterable[Path]) -> float:
    """The share of the pages of `files` that are in memory, from 0 to 1 (mincore); raises OSError."""
    pages = [_pages(path) for path in files]
    return sum(resident for resident, _ in pages) / max(1, sum(total for _, total in pages))


def _pages(path: Path) -> tuple[int, int]:
    """Pages in memory and pages in all."""
    size = path.stat().st_size
    if not size:
        return 0, 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as map_:
        flags = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        mapped = np.frombuffer(map_, np.uint8)
        address, vector = ctypes.c_void_p(mapped.ctypes.data), ctypes.c_void_p(flags.ctypes.data)
        status = ctypes.CDLL(None, use_errno=True).mincore(address, ctypes.c_size_t(size), vector)
        del mapped  # which would keep the map from being closed
        if status:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return int((flags & 1).sum()), len(flags)
