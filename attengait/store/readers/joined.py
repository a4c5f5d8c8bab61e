"""Clips out of several stores, whose frames are counted on from one store to the next."""

from collections.abc import Sequence

import numpy as np

from attengait.store.readers.base import ClipReader, Frames, Indices, Reader, TakeClips


class JoinedReader(Reader):
    """Clips from several stores, whose frames are counted on from one to the next; closes their readers."""

    def __init__(self, readers: Sequence[ClipReader], num_frames: Sequence[int]) -> None:
        self._readers = list(readers)
        self._ends = np.cumsum(np.asarray(num_frames, np.int64))

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """See ClipReader."""
        return self.request_clips(starts, lengths)()

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        """See ClipReader."""
        self.check_open()
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
        super().close()
        for reader in self._readers:
            reader.close()
