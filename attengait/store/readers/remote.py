"""Clips read by TensorStore: of remote stores, and of shards that are neither mapped nor unpacked here."""

from typing import Any

import numpy as np

from attengait.errors import AttenGaitError
from attengait.store.layout import FrameLayout, read_shard_index, shard_key, shard_path
from attengait.store.location import Location, reason_of, use_tensorstore
from attengait.store.readers.base import Frames, Indices, Reader, TakeClips, locate


class TensorStoreReader(Reader):
    """Clips of any codec from any place, read by tensorstore in one batch per call; checksums are checked."""

    def __init__(self, location: Location, layout: FrameLayout) -> None:
        self._location, self._layout = location, layout
        self._array: Any = None

    def read_clips(self, starts: Indices, lengths: Indices) -> list[Frames]:
        """See ClipReader."""
        return self.request_clips(starts, lengths)()

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        """See ClipReader."""
        self.check_open()
        starts, lengths, shards = locate(starts, lengths, self._layout)
        if self._location.path is not None:
            # TensorStore would wait for a FIFO, and read a device.
            for shard in np.unique(shards).tolist():
                read_shard_index(shard_path(self._location.path, shard), self._layout)
        tensorstore = use_tensorstore()
        if self._array is None:
            self._array = self._open()
        with tensorstore.Batch() as batch:
            bounds = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
            reads = [self._array[start:stop].read(batch=batch) for start, stop in bounds]

        def take() -> list[Frames]:
            self.check_open()
            clips = []
            chunk_frames = self._layout.chunk_frames
            num_frames = int((lengths + 2 * chunk_frames).sum())
            wait = self._location.wait(self._location, expected_bytes=num_frames * self._layout.frame_bytes)
            for i, read in enumerate(reads):
                try:
                    clips.append(wait.result(read, self._location / shard_key(int(shards[i]))))
                except (ValueError, OSError, RuntimeError) as error:
                    start, stop = int(starts[i]), int(starts[i] + lengths[i])
                    clips.append(self._read_again(start, stop, int(shards[i]), error))
            return clips

        return take

    def close(self) -> None:
        """See ClipReader."""
        super().close()
        self._array = None

    def _open(self, *, fill_missing: bool = False) -> Any:
        folder = self._location / "frames"
        # To Zarr a missing shard is one of zeros, but a store has no such shards.
        spec = {"driver": "zarr3", "kvstore": folder.kvstore(), "fill_missing_data_reads": fill_missing}
        try:
            return self._location.wait(folder).result(use_tensorstore().open(spec, read=True, open=True))
        except (ValueError, OSError, RuntimeError) as error:
            reason = reason_of(error) if self._location.is_remote else str(error).splitlines()[0]
            raise AttenGaitError(f"{folder} cannot be opened: {reason}") from error

    def _read_again(self, start: int, stop: int, shard: int, error: Exception) -> Frames:
        """A clip of a shard that leaves chunks out, which are zeros; AttenGaitError for one that is not there."""
        place = self._location / shard_key(shard)
        if "NOT_FOUND" not in str(error):
            text = str(error).splitlines()[0]
            if self._location.is_remote and not text.startswith(("DATA_LOSS", "OUT_OF_RANGE")):
                raise AttenGaitError(f"{place} {reason_of(error)}") from error
            raise AttenGaitError(f"{place}: truncated or damaged ({text.rsplit(': ', 1)[-1]})") from error
        if self._location.read(shard_key(shard), (0, 1)) is None:
            raise AttenGaitError(f"{place}: missing") from error
        return self._open(fill_missing=True)[start:stop].read().result()  # type: ignore[no-any-return]
