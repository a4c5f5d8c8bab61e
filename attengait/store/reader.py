"""Reading clips, the hot path of training: [T, H, W, C] uint8, T consecutive frames of one shard.

Uncompressed shards of a local store are memory-mapped, so that a clip is a view of the page cache and nothing is copied
here; compressed ones are unpacked in threads, into the clips. Everything else is read by tensorstore, a batch of clips
at a time, with all requests on their way at once.

Who knows what will be read next asks for it early: between `request_clips` and the call of what it returns, the disk or
the network and the decoder are at work.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.chunks import ChunkFiles
from attengait.store.layout import FrameLayout
from attengait.store.location import Location, reason_of, use_tensorstore
from attengait.store.mapping import MappedFrames

if TYPE_CHECKING:
    from attengait.store.opening import Store

Frames = NDArray[np.uint8]
Indices = Sequence[int] | NDArray[np.int64]
TakeClips = Callable[[], list[Frames]]
"""Waits for clips that were requested and returns them, or raises what `read_clips` does; to be called once."""


class ClipReader(Protocol):
    """Reads clips from one store; a context manager."""

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """Clips [T, H, W, C] of `lengths` frames from the absolute frames `starts`; they may be read-only.

        Raises ParameterError for a clip that is not within one shard, AttenGaitError for a damaged shard, naming it.
        """
        ...

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        """Begin to read clips that will be needed soon; damage is an error of the returned function.

        Raises ParameterError like `read_clips`.
        """
        ...

    def close(self) -> None:
        """Let go of all files; clips that were read stay valid."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def open_reader(store: "Store") -> ClipReader:
    """The fastest reader for a store."""
    if store.location.is_remote:
        return TensorStoreReader(store.location, store.layout)
    return (MappedReader if store.codec == "none" else ChunkReader)(store.location, store.layout)


class _Reader:
    """A context manager that closes; what the readers have in common."""

    def close(self) -> None:
        """See ClipReader."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class MappedReader(_Reader):
    """Clips as read-only views of memory-mapped shards (attengait.store.mapping).

    Sound shards that cannot be mapped are read by tensorstore.
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
        if self._mapped is None:
            return self._fallback.read_clips(starts, lengths)
        starts, lengths, shards = _locate(starts, lengths, self._layout)
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
        if self._mapped is None:
            return self._fallback.request_clips(starts, lengths)
        starts, lengths, shards = _locate(starts, lengths, self._layout)
        # Damage is found again, and said, when the clips are taken.
        with contextlib.suppress(AttenGaitError):
            at = np.flatnonzero(self._mapped.map_shards(shards))
            self._mapped.will_need(shards[at], (starts - shards * self._layout.shard_frames)[at], lengths[at])
        return partial(self.read_clips, starts, lengths)

    def close(self) -> None:
        """See ClipReader."""
        self._mapped = None
        self._fallback.close()


class ChunkReader(_Reader):
    """Clips of a compressed local store (attengait.store.chunks); checksums are checked."""

    def __init__(self, location: Location, layout: FrameLayout) -> None:
        assert location.path is not None
        self._layout = layout
        self._files = ChunkFiles(location.path, layout)

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """See ClipReader."""
        return self.request_clips(starts, lengths)()

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        """See ClipReader."""
        starts, lengths, shards = _locate(starts, lengths, self._layout)
        firsts = starts - shards * self._layout.shard_frames
        return self._files.request(list(zip(shards.tolist(), firsts.tolist(), lengths.tolist(), strict=True)))

    def close(self) -> None:
        """See ClipReader."""
        self._files.close()


class TensorStoreReader(_Reader):
    """Clips of any codec from any place, read by tensorstore in one batch per call; checksums are checked."""

    def __init__(self, location: Location, layout: FrameLayout) -> None:
        self._location, self._layout = location, layout
        self._array: Any = None

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """See ClipReader."""
        return self.request_clips(starts, lengths)()

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        """See ClipReader."""
        starts, lengths, shards = _locate(starts, lengths, self._layout)
        tensorstore = use_tensorstore()
        if self._array is None:
            self._array = self._open()
        with tensorstore.Batch() as batch:
            bounds = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
            reads = [self._array[start:stop].read(batch=batch) for start, stop in bounds]

        def take() -> list[Frames]:
            clips = []
            for i, read in enumerate(reads):
                try:
                    clips.append(read.result())
                except (ValueError, OSError, RuntimeError) as error:
                    start, stop = int(starts[i]), int(starts[i] + lengths[i])
                    clips.append(self._read_again(start, stop, int(shards[i]), error))
            return clips

        return take

    def close(self) -> None:
        """See ClipReader."""
        self._array = None

    def _open(self, *, fill_missing: bool = False) -> Any:
        folder = self._location / "frames"
        # To Zarr a missing shard is one of zeros, but a store has no such shards.
        spec = {"driver": "zarr3", "kvstore": folder.kvstore(), "fill_missing_data_reads": fill_missing}
        try:
            return use_tensorstore().open(spec, read=True, open=True).result()
        except (ValueError, OSError, RuntimeError) as error:
            reason = reason_of(error) if self._location.is_remote else str(error).splitlines()[0]
            raise AttenGaitError(f"{folder} cannot be opened: {reason}") from error

    def _read_again(self, start: int, stop: int, shard: int, error: Exception) -> Frames:
        """A clip of a shard that leaves chunks out, which are zeros; AttenGaitError for one that is not there."""
        place = self._location / f"frames/c/{shard}/0/0/0"
        if "NOT_FOUND" not in str(error):
            text = str(error).splitlines()[0]
            if self._location.is_remote and not text.startswith(("DATA_LOSS", "OUT_OF_RANGE")):
                raise AttenGaitError(f"{place} {reason_of(error)}") from error
            raise AttenGaitError(f"{place}: truncated or damaged ({text.rsplit(': ', 1)[-1]})") from error
        if self._location.read(f"frames/c/{shard}/0/0/0", (0, 1)) is None:
            raise AttenGaitError(f"{place}: missing") from error
        return self._open(fill_missing=True)[start:stop].read().result()  # type: ignore[no-any-return]


class ResidentReader(_Reader):
    """Clips as views of frames in memory, uint8 [F, H, W, C], that were read beforehand."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """Clips as in ClipReader; raises ParameterError for one that is not within the frames."""
        starts, lengths = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
        wrong = (lengths < 1) | (starts < 0) | (starts + lengths > len(self._frames))
        if wrong.any():
            i = int(np.argmax(wrong))
            raise ParameterError(
                f"a clip has frames {starts[i]} to {starts[i] + lengths[i] - 1}, but must be within {len(self._frames)}"
            )
        bounds = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
        return [self._frames[start:stop] for start, stop in bounds]

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        """See ClipReader."""
        return partial(self.read_clips, starts, lengths)


class JoinedReader(_Reader):
    """Clips from several stores, whose frames are counted on from one to the next; closes their readers."""

    def __init__(self, readers: Sequence[ClipReader], num_frames: Sequence[int]) -> None:
        self._readers = list(readers)
        self._ends = np.cumsum(np.asarray(num_frames, np.int64))

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """See ClipReader."""
        return self.request_clips(starts, lengths)()

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        """See ClipReader."""
        starts, lengths = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
        of_store = np.minimum(np.searchsorted(self._ends, starts, side="right"), len(self._readers) - 1)
        parts = []
        for store in np.unique(of_store).tolist():
            members = np.flatnonzero(of_store == store)
            begin = self._ends[store - 1] if store else 0
            parts.append((members, self._readers[store].request_clips(starts[members] - begin, lengths[members])))

        def take() -> list[Frames]:
            clips: dict[int, Frames] = {}
            for members, take_part in parts:
                clips.update(zip(members.tolist(), take_part(), strict=True))
            return [clips[i] for i in range(len(starts))]

        return take

    def close(self) -> None:
        """See ClipReader."""
        for reader in self._readers:
            reader.close()


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
