"""Reading clips, the hot path of training: [T, H, W, C] uint8, T consecutive frames of one shard.

Uncompressed shards of a local store are memory-mapped, so that a clip is a view of the page cache and nothing is copied
here. Everything else is read by tensorstore, a batch of clips at a time, which decodes in many threads.

A process that forks after tensorstore was used aborts in the child: start workers by spawning.
"""

import mmap
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.layout import FrameLayout, index_bytes, read_shard_index, shard_path

if TYPE_CHECKING:
    from attengait.store.opening import Store

Frames = NDArray[np.uint8]
Indices = Sequence[int] | NDArray[np.int64]

MAX_OPEN_MAPS = 128
"""Each map holds an open file, of which a process may have 1024 by default; large sets have thousands of shards."""


class ClipReader(Protocol):
    """Reads clips from one store; a context manager."""

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """Clips [T, H, W, C] of `lengths` frames from the absolute frames `starts`; they may be read-only.

        Raises ParameterError for a clip that is not within one shard, AttenGaitError for a damaged shard, naming it.
        """
        ...

    def close(self) -> None:
        """Let go of all files; clips that were read stay valid."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def open_reader(store: "Store") -> ClipReader:
    """The fastest reader for a store."""
    reader = MappedReader if store.codec == "none" else TensorStoreReader
    return reader(store.path, store.layout)


class MappedReader:
    """Clips as read-only views of memory-mapped shards.

    A shard is mapped only when its size and its own index say that its chunks lie back to back from its first byte;
    any other sound shard is read by tensorstore. At most `max_open_maps` shards are held open, besides those of clips
    that are still in use.

    Reading a map beyond the end of its file kills the process. So the size of the file is compared again whenever
    a clip is handed out; whoever truncates a store in the instant after that still does harm.
    """

    def __init__(self, path: Path, layout: FrameLayout, *, max_open_maps: int = MAX_OPEN_MAPS) -> None:
        assert layout.codec == "none"
        self._path, self._layout = path, layout
        self._max_open_maps = max_open_maps
        self._frames_bytes = layout.shard_frames * layout.frame_bytes
        self._file_bytes = self._frames_bytes + index_bytes(layout.chunks_per_shard)
        self._maps: OrderedDict[int, tuple[mmap.mmap, Frames]] = OrderedDict()  # least recently used first
        self._is_contiguous: dict[int, bool] = {}
        self._fallback = TensorStoreReader(path, layout)

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """See ClipReader."""
        starts, lengths, shards = _locate(starts, lengths, self._layout)
        firsts = starts - shards * self._layout.shard_frames
        clips: list[Frames | None] = []
        for shard, first, stop in zip(shards.tolist(), firsts.tolist(), (firsts + lengths).tolist(), strict=True):
            frames = self._frames(shard)
            clips.append(None if frames is None else frames[first:stop])
        others = [i for i, clip in enumerate(clips) if clip is None]
        read = iter(self._fallback.read_clips(starts[others], lengths[others]) if others else ())
        return [next(read) if clip is None else clip for clip in clips]

    def close(self) -> None:
        """See ClipReader."""
        self._maps.clear()
        self._fallback.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _frames(self, shard: int) -> Frames | None:
        """The frames of a shard, [shard_frames, H, W, C]; None when it cannot be mapped."""
        if shard in self._maps:
            self._maps.move_to_end(shard)
        elif not self._lies_back_to_back(shard):
            return None
        else:
            self._maps[shard] = self._map(shard)
            if len(self._maps) > self._max_open_maps:
                self._maps.popitem(last=False)
        map_, frames = self._maps[shard]
        self._check_size(shard, map_.size())
        return frames

    def _map(self, shard: int) -> tuple[mmap.mmap, Frames]:
        path = shard_path(self._path, shard)
        try:
            with path.open("rb") as file:
                self._check_size(shard, os.fstat(file.fileno()).st_size)
                map_ = mmap.mmap(file.fileno(), self._file_bytes, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise AttenGaitError(f"{path}: cannot be mapped: {error}") from error
        frames = np.frombuffer(map_, np.uint8, self._frames_bytes)
        return map_, frames.reshape(self._layout.shard_frames, *self._layout.frame_shape)

    def _lies_back_to_back(self, shard: int) -> bool:
        """Whether a shard's file is its frames, then its index; what was found is remembered."""
        if shard not in self._is_contiguous:
            path, num_chunks = shard_path(self._path, shard), self._layout.chunks_per_shard
            index = read_shard_index(path, num_chunks)
            chunk_bytes = self._layout.chunk_frames * self._layout.frame_bytes
            expected = np.array([(i * chunk_bytes, chunk_bytes) for i in range(num_chunks)], np.uint64)
            self._is_contiguous[shard] = path.stat().st_size == self._file_bytes and np.array_equal(index, expected)
        return self._is_contiguous[shard]

    def _check_size(self, shard: int, size_bytes: int) -> None:
        if size_bytes != self._file_bytes:
            raise AttenGaitError(
                f"{shard_path(self._path, shard)}: truncated or damaged, it has {size_bytes} bytes instead of "
                f"{self._file_bytes}"
            )


class TensorStoreReader:
    """Clips of any codec, read by tensorstore in one batch per call; checksums are checked."""

    def __init__(self, path: Path, layout: FrameLayout) -> None:
        self._path, self._layout = path, layout
        self._array: Any = None

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """See ClipReader."""
        import tensorstore

        starts, lengths, shards = _locate(starts, lengths, self._layout)
        for shard in sorted(set(shards.tolist())):
            # To Zarr a missing shard is one of zeros, but a store has no such shards.
            if not (path := shard_path(self._path, shard)).exists():
                raise AttenGaitError(f"{path}: missing")
        if self._array is None:
            self._array = self._open(tensorstore)
        with tensorstore.Batch() as batch:
            bounds = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
            reads = [self._array[start:stop].read(batch=batch) for start, stop in bounds]
        clips = []
        for shard, read in zip(shards.tolist(), reads, strict=True):
            try:
                clips.append(read.result())
            except (ValueError, OSError) as error:
                reason = str(error).splitlines()[0].rsplit(": ", 1)[-1]
                raise AttenGaitError(f"{shard_path(self._path, shard)}: truncated or damaged ({reason})") from error
        return clips

    def close(self) -> None:
        """See ClipReader."""
        self._array = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self, tensorstore: Any) -> Any:
        folder = self._path / "frames"
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder.absolute()}/"}}
        try:
            return tensorstore.open(spec, read=True, open=True).result()
        except (ValueError, OSError) as error:
            raise AttenGaitError(f"{folder}: cannot be opened: {str(error).splitlines()[0]}") from error


def _locate(
    starts: Indices, lengths: Indices, layout: FrameLayout
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Starts, lengths and shard of each clip; raises ParameterError for a clip that is not within one shard."""
    starts, lengths = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
    shards = starts // layout.shard_frames
    stops = starts + lengths
    wrong = (lengths < 1) | (starts < 0) | (stops > layout.num_frames) | ((stops - 1) // layout.shard_frames != shards)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ParameterError(
            f"a clip has frames {starts[i]} to {stops[i] - 1}, but must be within one shard of {layout.shard_frames} "
            f"frames, of {layout.num_frames} in all"
        )
    return starts, lengths, shards
