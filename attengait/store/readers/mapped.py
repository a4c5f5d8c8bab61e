"""An uncompressed local store as one array: its shards mapped side by side into one range of addresses.

The range is reserved first, for the frames of all shards, and a shard's file is mapped into its place when it is first
needed, with all of its pages if they are in memory: page by page, the first touch would slow down every first clip.
So a clip is plain indexing of one numpy array, no file is held open, and the number of shards is bounded only
by the kernel's number of maps (65,530 by default). What is not mapped reads as zeros. The range is given back when the
last array that shows a part of it is gone.

Reading a map beyond the end of its file kills the process (SIGBUS). So a shard is mapped only when its size and its own
index say that its chunks lie back to back from its first byte, and its size is looked at again about once a second
while it is used; if a file is truncated between two such checks, the process still dies.
"""

import contextlib
import ctypes
import mmap
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.store.layout import FrameLayout, index_bytes, read_shard_index, shard_path
from attengait.store.location import Location
from attengait.store.readers.base import Frames, Indices, Reader, TakeClips, locate
from attengait.store.readers.remote import TensorStoreReader
from attengait.system.files import open_regular

RECHECK_SECONDS = 1.0
"""How long the size of a shard's file is trusted before it is checked again."""

PROBES = 3
"""Clips of each request that are looked up in the page cache, to find out whether the disk must be asked ahead."""
COLD_REQUESTS = 64
"""After a request that was not fully in memory, so many more requests are read ahead."""

_NEW, _MAPPED, _OTHER = 0, 1, 2
_MADV_POPULATE_READ = 22
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000


class MappedFrames:
    """The frames of an uncompressed local store.

    Raises OSError where there is no room for them in the process's addresses, which may be limited.
    """

    def __init__(self, path: Path, layout: FrameLayout) -> None:
        assert layout.codec == "none"
        self._path, self._layout = path, layout
        self._shard_bytes = layout.shard_frames * layout.frame_bytes
        self._file_bytes = self._shard_bytes + index_bytes(layout.chunks_per_shard)
        self._stride = -(-self._shard_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
        self._libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._range = mmap.mmap(-1, layout.num_shards * self._stride, flags=flags, prot=mmap.PROT_READ)
        height, width, channels = layout.frame_shape
        self.frames = np.ndarray(
            (layout.num_shards, layout.shard_frames, height, width, channels),
            np.uint8,
            self._range,
            strides=(self._stride, layout.frame_bytes, width * channels, channels, 1),
        )
        """uint8 [shards, frames of each, H, W, C], read-only; valid where `map_shards` said so."""
        self._state = np.full(layout.num_shards, _NEW, np.uint8)
        self._checked = np.zeros(layout.num_shards)
        self._cold_requests = 0
        self._may_look = True

    def map_shards(self, shards: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Map the shards that are not yet, look at the sizes of the others; which of them can be read here.

        `shards` [N], in any order. A shard that is sound but not contiguous is False. Raises AttenGaitError, naming the
        shard's file, when it is missing, truncated or damaged.
        """
        now = time.monotonic()
        due = shards[self._checked[shards] < now - RECHECK_SECONDS]
        for shard in np.unique(due).tolist():
            if self._state[shard] == _NEW:
                self._map(shard)
            elif self._state[shard] == _MAPPED:
                self._check_size(shard, self._stat(shard).st_size)
            self._checked[shard] = now
        return np.equal(self._state[shards], _MAPPED)

    def will_need(self, shards: NDArray[np.int64], firsts: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Have the kernel read clips of mapped shards, by their first frames there, without waiting for the disk.

        Reading ahead costs time even if the data are in memory. So a few clips are checked, and nothing is read
        ahead while all checked clips were in memory.
        """
        frame_bytes, page = self._layout.frame_bytes, mmap.PAGESIZE
        first_bytes = (shards * self._stride + firsts * frame_bytes) // page * page
        num_bytes = shards * self._stride + (firsts + lengths) * frame_bytes - first_bytes
        spans = list(zip(first_bytes.tolist(), num_bytes.tolist(), strict=True))
        if not (self._may_look and all(self._is_in_memory(*span) for span in spans[:PROBES])):
            self._cold_requests = COLD_REQUESTS
        if self._cold_requests:
            self._cold_requests -= 1
            for first, size in spans:
                self._range.madvise(mmap.MADV_WILLNEED, first, size)

    def _is_in_memory(self, first_byte: int, num_bytes: int) -> bool:
        pages = np.empty(-(-num_bytes // mmap.PAGESIZE), np.uint8)
        # Where the kernel does not tell, the disk is asked.
        failed = self._libc.mincore(self.frames.ctypes.data + first_byte, num_bytes, pages.ctypes.data)
        return not failed and bool((pages & 1).all())

    def _map(self, shard: int) -> None:
        path, layout = shard_path(self._path, shard), self._layout
        index = read_shard_index(path, layout)
        chunk_bytes = layout.chunk_bytes
        offsets = np.arange(layout.chunks_per_shard, dtype=np.uint64) * np.uint64(chunk_bytes)
        is_contiguous = np.array_equal(index[:, 0], offsets) and bool((index[:, 1] == chunk_bytes).all())
        if not is_contiguous or self._stat(shard).st_size != self._file_bytes:
            self._state[shard] = _OTHER
            return
        place = self.frames.ctypes.data + shard * self._stride
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            self._check_size(shard, status.st_size)
            # Of the files of others, the kernel says that they are in memory, wherever they are.
            self._may_look &= status.st_uid == os.geteuid() or os.access(path, os.W_OK)
            flags = mmap.MAP_SHARED | _MAP_FIXED
            found = self._libc.mmap(place, self._shard_bytes, mmap.PROT_READ, flags, file.fileno(), 0)
        # A failure leaves the range as it was; such as beyond the kernel's number of maps.
        self._state[shard] = _MAPPED if found == place else _OTHER
        first_byte = shard * self._stride
        if found == place and self._may_look and self._is_in_memory(first_byte, self._shard_bytes):
            # Kernels before 5.14 do not know it.
            with contextlib.suppress(OSError):
                self._range.madvise(_MADV_POPULATE_READ, first_byte, self._stride)

    def _stat(self, shard: int) -> os.stat_result:
        path = shard_path(self._path, shard)
        try:
            return path.stat()
        except OSError as error:
            raise AttenGaitError(f"{path}: {error.strerror}") from error

    def _check_size(self, shard: int, size_bytes: int) -> None:
        if size_bytes != self._file_bytes:
            raise AttenGaitError(
                f"{shard_path(self._path, shard)}: truncated or damaged, it has {size_bytes} bytes instead of "
                f"{self._file_bytes}"
            )


class MappedReader(Reader):
    """Clips as read-only views of memory-mapped shards (attengait.store.readers.mapped).

    Shards that are not damaged but cannot be mapped are read by tensorstore.
    """

    def __init__(self, location: Location, layout: FrameLayout) -> None:
        assert location.path is not None
        self._layout = layout
        self._fallback = TensorStoreReader(location, layout)
        self._mapped: MappedFrames | None = None
        with contextlib.suppress(OSError):
            self._mapped = MappedFrames(location.path, layout)

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """See ClipReader."""
        self.check_open()
        if self._mapped is None:
            return self._fallback.read_clips(starts, lengths)
        starts, lengths, shards = locate(starts, lengths, self._layout)
        firsts = starts - shards * self._layout.shard_frames
        is_mapped, frames = self._mapped.map_shards(shards), self._mapped.frames
        bounds = zip(shards.tolist(), firsts.tolist(), (firsts + lengths).tolist(), strict=True)
        clips = [frames[shard, first:stop] for shard, first, stop in bounds]
        others = np.flatnonzero(~is_mapped)
        if len(others):
            for i, clip in zip(others, self._fallback.read_clips(starts[others], lengths[others]), strict=True):
                clips[i] = clip
        return clips

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        """See ClipReader."""
        self.check_open()
        if self._mapped is None:
            return self._fallback.request_clips(starts, lengths)
        starts, lengths, shards = locate(starts, lengths, self._layout)
        # Damage is found again, and said, when the clips are taken.
        with contextlib.suppress(AttenGaitError):
            at = np.flatnonzero(self._mapped.map_shards(shards))
            self._mapped.will_need(shards[at], (starts - shards * self._layout.shard_frames)[at], lengths[at])
        return partial(self.read_clips, starts, lengths)

    def close(self) -> None:
        """See ClipReader."""
        super().close()
        self._mapped = None
        self._fallback.close()
