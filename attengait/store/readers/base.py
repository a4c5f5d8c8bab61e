"""What every reader of clips has: [T, H, W, C] uint8, T consecutive frames of one shard; the hot path of training.

If you know what will be read next, request it early: `request_clips` starts the disk, the network and the decoder,
and the function that it returns waits for the clips.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.layout import FrameLayout

Frames = NDArray[np.uint8]
Indices = Sequence[int] | NDArray[np.int64]
TakeClips = Callable[[], list[Frames]]
"""Waits for clips that were requested and returns them, or raises what `read_clips` does; to be called once."""


class ClipReader(Protocol):
    """Reads clips from one store; a context manager."""

    @property
    def gives_copies(self) -> bool:
        """Whether clips are the caller's own memory; that of one array if all have the same length (`as_one_array`)."""
        ...

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """Clips [T, H, W, C] of `lengths` frames from the absolute frames `starts`; they may be read-only.

        Raises ParameterError for a clip that is not within one shard, AttenGaitError for a damaged shard, naming it,
        and for a reader that is closed.
        """
        ...

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        """Begin to read clips that will be needed soon. Returns a function that waits for them; damage is raised by
        that function.

        Raises ParameterError like `read_clips`, AttenGaitError for a reader that is closed.
        """
        ...

    def close(self) -> None:
        """Let go of all files; clips that were read stay valid."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class Reader:
    """A context manager that closes; what the readers have in common."""

    gives_copies = False
    _is_closed = False

    def close(self) -> None:
        """See ClipReader."""
        self._is_closed = True

    def check_open(self) -> None:
        """Raise AttenGaitError for a reader that is closed."""
        if self._is_closed:
            raise AttenGaitError("the reader was closed: make another with store.reader()")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def locate(
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


def as_one_array(clips: Sequence[Frames]) -> Frames:
    """Clips of one length as one array [N, T, H, W, C]; without a copy if they are the rows of one already."""
    whole, row_bytes = clips[0].base, clips[0].nbytes
    if isinstance(whole, np.ndarray) and whole.shape == (len(clips), *clips[0].shape) and whole.flags.c_contiguous:
        begin = whole.ctypes.data
        if all(clip.base is whole and clip.ctypes.data == begin + i * row_bytes for i, clip in enumerate(clips)):
            return whole
    return np.stack(clips)
