"""Clips of a compressed local store: chunks unpacked in threads, straight into the clips.

TensorStore unpacks each chunk into memory of its own and copies the clips out of it; here a chunk that lies within a
clip is unpacked in its place. A few shards are held open at a time; the indexes of all that were read are kept.

Chunks of lz4 are read, checked and unpacked by compiled code, one call for all clips of a thread, if there is a C++
compiler. What that code refuses, chunks of zstd, and all chunks without a compiler are read one by one: google-crc32c
checks them and numcodecs unpacks them. Only this way says what is damaged.
"""

import os
from collections import OrderedDict
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.kernels.chunks.unpack import can_read, read_clips
from attengait.store.layout import ABSENT, FrameLayout, read_shard_index, shard_path
from attengait.store.location import Location
from attengait.store.packed import unpack_chunk
from attengait.store.readers.base import Frames, Indices, Reader, TakeClips, locate
from attengait.system.files import open_regular
from attengait.system.machine import usable_cores

MAX_OPEN_SHARDS = 48
"""Kept open for later."""
MAX_SHARDS_IN_USE = 128
"""By all threads, for the clips that they read next."""
MAX_THREADS = 8
PROBES = 2
"""Clips that each thread looks up in the page cache, to find out whether the disk must be asked ahead."""
_CRC_BYTES = 4
_ABSENT = int(ABSENT)

Span = tuple[int, int, int]
"""A clip: its shard, its first frame there, its frames."""


class ChunkFiles:
    """The shards of a compressed local store, for any number of threads, and for processes forked from this one."""

    def __init__(self, path: Path, layout: FrameLayout) -> None:
        self._path, self._layout = path, layout
        self._num_threads = min(MAX_THREADS, usable_cores())
        self._indexes: dict[int, NDArray[np.uint64]] = {}
        self._is_compiled = layout.codec == "lz4" and can_read()
        self._begin()

    def _begin(self) -> None:
        """Make threads and lock again in a forked process: threads do not survive a fork, and the lock may have been
        held."""
        self._process = os.getpid()
        self._threads = ThreadPoolExecutor(self._num_threads, thread_name_prefix="attengait-unpack")
        self._lock = Lock()
        self._shards = OrderedDict[int, _Shard]()  # least recently used first

    def request(self, spans: list[Span]) -> TakeClips:
        """Begin to read clips; the function returned waits for them, or raises AttenGaitError, naming the shard."""
        if self._process != os.getpid():
            self._begin()
        clips = self._room(spans)
        # Every thread gets its share at once: handed out one by one, they would wait for one another.
        shares = [slice(i, None, self._num_threads) for i in range(min(self._num_threads, len(spans)))]
        reads = [self._threads.submit(self._read, spans[share], clips[share]) for share in shares]
        return partial(_wait, clips, reads)

    def close(self) -> None:
        """Finish what is being read, and close all files. Requests that have not begun are dropped."""
        if self._process == os.getpid():
            self._threads.shutdown(cancel_futures=True)
            self._begin()

    def _room(self, spans: list[Span]) -> list[Frames]:
        """Memory for clips: that of one array if all have the same length."""
        frame_shape, lengths = self._layout.frame_shape, [num_frames for _, _, num_frames in spans]
        if len(set(lengths)) == 1:
            return list(np.empty((len(spans), lengths[0], *frame_shape), np.uint8))
        return [np.empty((num_frames, *frame_shape), np.uint8) for num_frames in lengths]

    def _read(self, spans: list[Span], clips: list[Frames]) -> None:
        most = MAX_SHARDS_IN_USE // self._num_threads
        for i in range(0, len(spans), most):
            self._read_part(spans[i : i + most], clips[i : i + most])

    def _read_part(self, spans: list[Span], clips: list[Frames]) -> None:
        shards = [self._shard(shard) for shard, _, _ in spans]
        chunk_frames = self._layout.chunk_frames
        bounds = [(first // chunk_frames, -(-(first + length) // chunk_frames)) for _, first, length in spans]
        looks = zip(shards[:PROBES], bounds[:PROBES], strict=True)
        if not all(shard.is_in_memory(end - 1) for shard, (_, end) in looks):
            for shard, (begin, end) in zip(shards, bounds, strict=True):
                shard.will_need(begin, end)
        firsts = [first for _, first, _ in spans]
        is_read = self._read_at_once(shards, firsts, clips)
        for i in np.flatnonzero(~is_read).tolist():
            self._read_clip(shards[i], firsts[i], clips[i])

    def _read_at_once(self, shards: list["_Shard"], firsts: list[int], clips: list[Frames]) -> NDArray[np.bool_]:
        """Read by compiled code; which clips it could read, bool [N]."""
        if not self._is_compiled:
            return np.zeros(len(clips), np.bool_)
        each = zip(shards, firsts, clips, strict=True)
        places = [(shard.file_number, shard.index, first, clip) for shard, first, clip in each]
        return read_clips(
            places,
            chunk_frames=self._layout.chunk_frames,
            frame_bytes=self._layout.frame_bytes,
            max_packed_bytes=self._layout.max_packed_chunk_bytes,
        )

    def _read_clip(self, shard: "_Shard", first: int, clip: Frames) -> None:
        chunk_frames = self._layout.chunk_frames
        stop = first + len(clip)
        for chunk in range(first // chunk_frames, -(-stop // chunk_frames)):
            begin, end = chunk * chunk_frames, (chunk + 1) * chunk_frames
            place = clip[max(begin - first, 0) : min(end, stop) - first]
            data = shard.read(chunk)
            if data is None:
                place[:] = 0
                continue
            whole = place if len(place) == chunk_frames else np.empty((chunk_frames, *clip.shape[1:]), np.uint8)
            try:
                unpack_chunk(self._layout.codec, data, whole)
            except (RuntimeError, ValueError) as error:
                raise shard.damaged(f"chunk {chunk} cannot be unpacked: {error}") from error
            if whole is not place:
                place[:] = whole[max(first - begin, 0) : max(first - begin, 0) + len(place)]

    def _shard(self, shard: int) -> "_Shard":
        with self._lock:
            found = self._shards.get(shard)
            if found is not None:
                self._shards.move_to_end(shard)
                return found
        path = shard_path(self._path, shard)
        if shard not in self._indexes:
            self._indexes[shard] = read_shard_index(path, self._layout)
        found = _Shard(path, self._indexes[shard])
        with self._lock:
            self._shards[shard] = found
            if len(self._shards) > MAX_OPEN_SHARDS:
                self._shards.popitem(last=False)
        return found


def _wait(clips: list[Frames], reads: list[Future[None]]) -> list[Frames]:
    try:
        for read in reads:
            read.result()
    except CancelledError:
        raise AttenGaitError("the store was closed while clips were being read from it") from None
    return clips


class _Shard:
    """An open shard file and its index; closed with the last reference, so that no thread reads from another file."""

    def __init__(self, path: Path, index: NDArray[np.uint64]) -> None:
        self._path, self.index = path, index
        try:
            self._file = open_regular(path)
        except OSError as error:
            raise AttenGaitError(f"{path}: {error.strerror}") from error

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    @property
    def file_number(self) -> int:
        """Valid as long as this shard is held."""
        return self._file.fileno()

    def damaged(self, problem: str) -> AttenGaitError:
        """What to raise for a shard that is."""
        return AttenGaitError(f"{self._path}: truncated or damaged ({problem})")

    def _place(self, chunk: int) -> tuple[int, int] | None:
        """Offset and size of a chunk; None for one that the shard leaves out."""
        offset, num_bytes = self.index[chunk].tolist()
        return None if _ABSENT in (offset, num_bytes) else (offset, num_bytes)

    def is_in_memory(self, chunk: int) -> bool:
        """Whether the end of a chunk can be read without waiting; False where the file system does not tell."""
        place = self._place(chunk)
        if place is None:
            return True
        try:
            return bool(os.preadv(self._file.fileno(), [bytearray(1)], sum(place) - 1, os.RWF_NOWAIT))
        except OSError:
            return False

    def will_need(self, first: int, end: int) -> None:
        """Have the kernel read chunks from the disk, without waiting for it; they need not lie one after the other."""
        for chunk in range(first, end):
            if (place := self._place(chunk)) is not None:
                os.posix_fadvise(self._file.fileno(), *place, os.POSIX_FADV_WILLNEED)

    def read(self, chunk: int) -> bytes | None:
        """A chunk as it is compressed, after its checksum was checked. None for a chunk that the shard leaves out."""
        place = self._place(chunk)
        if place is None:
            return None
        offset, num_bytes = place
        try:
            data = os.pread(self._file.fileno(), num_bytes - _CRC_BYTES, offset)
            checksum = os.pread(self._file.fileno(), _CRC_BYTES, offset + num_bytes - _CRC_BYTES)
        except OSError as error:
            raise AttenGaitError(f"{self._path}: {error.strerror}") from error
        if google_crc32c.value(data) != int.from_bytes(checksum, "little") or len(checksum) < _CRC_BYTES:
            raise self.damaged(f"chunk {chunk} fails its checksum")
        return data


class ChunkReader(Reader):
    """Clips of a compressed local store (attengait.store.readers.chunks); checksums are checked."""

    gives_copies = True

    def __init__(self, location: Location, layout: FrameLayout) -> None:
        assert location.path is not None
        self._layout = layout
        self._files = ChunkFiles(location.path, layout)

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """See ClipReader."""
        return self.request_clips(starts, lengths)()

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        """See ClipReader."""
        self.check_open()
        starts, lengths, shards = locate(starts, lengths, self._layout)
        firsts = starts - shards * self._layout.shard_frames
        take = self._files.request(list(zip(shards.tolist(), firsts.tolist(), lengths.tolist(), strict=True)))

        def take_if_open() -> list[Frames]:
            self.check_open()
            return take()

        return take_if_open

    def close(self) -> None:
        """See ClipReader."""
        super().close()
        self._files.close()
