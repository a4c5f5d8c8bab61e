"""Ways to the same clips that the benchmark of the loader compares, each as an iterator of batches.

    gather              numpy.take of the clips, from frames in memory into an array that is ready: one thread, no files
    stream              ClipStream: from the store to a torch tensor
    stream, cache host  the same from frames that are kept in memory
    stream, to the GPU  ClipStream to a GPU, where there is one
    stream, cache gpu   ResidentStream: gathered on the GPU, whose memory has the frames
    tensorstore         one batched read per batch, into numpy arrays
    zarr-python         one slice per clip

Those that begin with another format are in `attengait.benchmarks.baselines`. Only streams plan their batches within the
measured time. Each measurement opens a stream of just its batches, so that nothing is read ahead while others are
measured, neither for free nor at their expense.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from attengait.pipelines.resident import ResidentStream
from attengait.pipelines.stream import ClipStream
from attengait.sampling.plan import BatchPlan, PlannedBatch
from attengait.store import Store
from attengait.store.layout import shard_path
from attengait.store.location import use_tensorstore
from attengait.store.readers.base import ClipReader
from attengait.store.readers.resident import ResidentReader

Batch = NDArray[np.uint8] | torch.Tensor | list[NDArray[np.uint8]]
"""N clips [T, H, W, C], uint8 or float32 of 0 to 1."""


class Way(ABC):
    """One way to the clips."""

    share = 1.0
    """Of the batches of one measurement: slow ways get fewer, the fastest more."""
    gives_planned_clips = True
    """Whether its clips are those of the plan, as almost all ways' are."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        self.name = name
        self.files = files
        """What it reads: without these in the page cache it is cold. None for what is in memory, or remote."""

    @abstractmethod
    def batches(self, planned: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """The clips of consecutive steps of the plan. Files are opened by the first call."""

    def num_batches(self, num_batches: int) -> int:
        """Batches of one measurement, when the fastest ways read `num_batches`."""
        return max(1, round(num_batches * self.share))

    def let_go(self) -> None:  # noqa: B027
        """Close all files, so that the next batches are read as if for the first time."""

    def close(self) -> None:
        """End whatever was started."""
        self.let_go()


class GatherWay(Way):
    """numpy.take from `frames` [F, H, W, C], which are in memory."""

    def __init__(self, frames: NDArray[np.uint8], clip_frames: int) -> None:
        super().__init__("gather", ())
        self._frames = frames
        self._offsets = np.arange(clip_frames)
        self._clips = np.empty((0, clip_frames, *frames.shape[1:]), np.uint8)

    def batches(self, planned: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """See Way."""
        for batch in planned:
            if len(self._clips) != len(batch.starts):
                self._clips = np.empty((len(batch.starts), *self._clips.shape[1:]), np.uint8)
            indices = batch.starts[:, None] + self._offsets
            # Any other mode gathers into a buffer first, when there is `out`.
            yield np.take(self._frames, indices, axis=0, out=self._clips, mode="clip")


class StreamWay(Way):
    """ClipStream over a reader that stays open, or frames in memory, to a device."""

    def __init__(
        self,
        name: str,
        plan: BatchPlan,
        open_reader: Callable[[], ClipReader],
        files: Sequence[Path] = (),
        *,
        device: str = "cpu",
    ) -> None:
        super().__init__(name, files)
        self._plan, self._open_reader, self._device = plan, open_reader, device
        self._reader: ClipReader | None = None

    def batches(self, planned: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """See Way."""
        if self._reader is None:
            self._reader = self._open_reader()
        first, count = planned[0].step, len(planned)
        with ClipStream(self._reader, self._plan, start_step=first, num_steps=count, device=self._device) as stream:
            for batch in stream:
                yield batch.clips
            if batch.clips.is_cuda:
                torch.cuda.synchronize(batch.clips.device)

    def let_go(self) -> None:
        """See Way."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


class ResidentWay(Way):
    """ResidentStream: clips gathered from frames on a GPU."""

    share = 10.0

    def __init__(self, name: str, plan: BatchPlan, frames: torch.Tensor) -> None:
        super().__init__(name, ())
        self._plan, self._frames = plan, frames

    def batches(self, planned: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """See Way."""
        for batch in ResidentStream(self._frames, self._plan, start_step=planned[0].step, num_steps=len(planned)):
            yield batch.clips
        if self._frames.is_cuda:
            torch.cuda.synchronize(self._frames.device)


def stream_ways(store: Store, plan: BatchPlan, frames: NDArray[np.uint8]) -> list[Way]:
    """Our streams; `frames` [F, H, W, C] are the store's from its beginning, as far as the plan goes."""
    files = shard_files(store)
    ways: list[Way] = [
        StreamWay("stream", plan, store.reader, files),
        StreamWay("stream, cache host", plan, partial(ResidentReader, frames)),
    ]
    if torch.cuda.is_available():
        ways.append(StreamWay("stream, to the GPU", plan, store.reader, files, device="cuda"))
        ways.append(ResidentWay("stream, cache gpu", plan, torch.from_numpy(frames).to("cuda")))
    return ways


class TensorStoreWay(Way):
    """tensorstore alone, one batch of reads per batch of clips."""

    share = 0.25

    def __init__(self, store: Store, clip_frames: int) -> None:
        super().__init__("tensorstore", shard_files(store))
        self._folder, self._clip_frames = store.location / "frames", clip_frames
        self._array: Any = None

    def batches(self, planned: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """See Way."""
        tensorstore = use_tensorstore()
        if self._array is None:
            spec = {"driver": "zarr3", "kvstore": self._folder.kvstore()}
            self._array = tensorstore.open(spec, read=True, open=True).result()
        for batch in planned:
            with tensorstore.Batch() as reads:
                clips = [self._array[s : s + self._clip_frames].read(batch=reads) for s in batch.starts.tolist()]
            yield [clip.result() for clip in clips]

    def let_go(self) -> None:
        """See Way."""
        self._array = None


class ZarrPythonWay(Way):
    """zarr-python as anybody would use it on a local store."""

    share = 0.1

    def __init__(self, store: Store, clip_frames: int) -> None:
        super().__init__("zarr-python", shard_files(store))
        self._folder, self._clip_frames = store.path / "frames", clip_frames
        self._array: zarr.Array[Any] | None = None

    def batches(self, planned: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """See Way."""
        if self._array is None:
            self._array = zarr.open_array(self._folder, mode="r")
        for batch in planned:
            yield [np.asarray(self._array[s : s + self._clip_frames]) for s in batch.starts.tolist()]

    def let_go(self) -> None:
        """See Way."""
        self._array = None


def shard_files(store: Store) -> list[Path]:
    """The files of a store that hold its frames; none of a remote one."""
    path = store.location.path
    return [] if path is None else [shard_path(path, shard) for shard in range(store.layout.num_shards)]
