"""Clips out of frames that are in memory."""

from functools import partial

import numpy as np

from attengait.errors import ParameterError
from attengait.store.readers.base import Frames, Indices, Reader, TakeClips


class ResidentReader(Reader):
    """Clips as views of frames in memory, uint8 [F, H, W, C], that were read beforehand."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """Clips as in ClipReader; raises ParameterError for one that is not within the frames."""
        self.check_open()
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
        self.check_open()
        return partial(self.read_clips, starts, lengths)
