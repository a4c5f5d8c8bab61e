"""Batches from a store, by DALI: clips for training, whole sequences for evaluation.

A batch is a pure function of its index, so that a stream may begin at any step and ranks need not talk, and so that
what comes next is known: batches are requested from the disk, the network or the decoder `read_ahead` before DALI takes
them, and DALI takes them `prefetch` before they are asked for here. It copies them out of the page cache once; the
tensors given out here are its own memory, by DLPack, without another copy. Each batch has memory of its own, which
stays valid for as long as its tensor lives, also after the stream is closed (DALI's default executor allocates outputs
anew). Frames stay uint8 up to the device.
"""

import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from attengait.errors import AttenGaitError, ParameterError, how_to_install
from attengait.sampling.plan import BatchPlan, ClipBatch, PlannedBatch, ragged_batches
from attengait.store.readers.base import ClipReader, Frames
from attengait.store.sequences import Sequences
from attengait.store.store import Store

if TYPE_CHECKING:
    from nvidia.dali.types import BatchInfo

Batch = list[Frames] | tuple[list[Frames], NDArray[np.int32]]
"""Clips, uint8 [T, H, W, C] each; or views of any length and the frames of them that make each clip, [N, T]."""
RequestBatch = Callable[[int], Callable[[], Batch]]
"""From the index of a batch, from 0, on: begins to read it and returns what waits for it."""

READ_AHEAD = 4
"""Batches asked of the disk, the network or the decoder beyond those that DALI prefetches."""

COPY_THREADS = 2
"""DALI's threads that copy clips, beside the one that calls."""

DALI_MISSING = f"NVIDIA DALI is not installed: {how_to_install('cpu', 'cuda12', 'cuda13')}"


class ClipStream:
    """The batches of a training plan from `start_step` on: an iterator of ClipBatch and a context manager.

    `num_steps` None never ends. With `world_size` ranks, this one gets its slice of each batch. `device` is cpu, cuda
    or cuda:INDEX; clips [N, T, H, W, C] and labels [N] are delivered there. A store given as `store_or_reader` is
    opened and closed by the stream, a reader is left open. `prefetch` and `read_ahead` are in batches. On a CPU it is
    faster after `attengait.system.memory.keep_freed_memory()`, which the command line calls at its start.

    Raises ParameterError for parameters out of range, AttenGaitError without DALI or for a damaged shard.
    """

    def __init__(
        self,
        store_or_reader: Store | ClipReader,
        plan: BatchPlan,
        *,
        start_step: int = 0,
        num_steps: int | None = None,
        device: str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 2,
        read_ahead: int = READ_AHEAD,
    ) -> None:
        if start_step < 0:
            raise ParameterError(f"start_step is {start_step}, but must be at least 0")
        first = plan.batch(start_step, rank, world_size)
        lengths = np.full(len(first.labels), plan.clip_frames)
        self._own_reader = store_or_reader.reader() if isinstance(store_or_reader, Store) else None
        reader = self._own_reader or store_or_reader
        assert not isinstance(reader, Store)

        self._ahead = ahead = deque[PlannedBatch]()  # read, but not given out yet

        def request_batch(index: int) -> Callable[[], Batch]:
            planned = plan.batch(start_step + index, rank, world_size)
            if planned.frames is None:
                take, orders = reader.request_clips(planned.starts, lengths), None
            else:
                starts = planned.frames.min(axis=1)
                orders = (planned.frames - starts[:, None]).astype(np.int32)
                take = reader.request_clips(starts, orders.max(axis=1) + 1)

            def take_batch() -> Batch:
                clips = take()
                ahead.append(planned)
                return clips if orders is None else (clips, orders)

            return take_batch

        self._frames = _FrameStream(
            request_batch,
            num_batches=num_steps,
            batch_size=len(lengths),
            device=device,
            prefetch=prefetch,
            read_ahead=read_ahead,
            ordered=first.frames is not None,
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ClipBatch:
        clips = _as_torch(self._frames.next_batch().as_tensor())
        planned = self._ahead.popleft()
        return ClipBatch(
            step=planned.step,
            clips=clips,
            labels=torch.from_numpy(planned.labels).to(clips.device),
            sequences=planned.sequences,
        )

    def close(self) -> None:
        """Stop prefetching and let go of all threads and files; batches given out stay valid."""
        self._frames.close()
        if self._own_reader is not None:
            self._own_reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class SequenceStream:
    """Whole sequences in the order of `indices`, several at a time: an iterator and a context manager.

    Yields (indices int64 [n], frames uint8 [sum T, H, W, C] on `device`, lengths int64 [n] in frames). A batch has at
    most `batch_frames` frames, or is a single longer sequence. The reader is left open.

    Raises ParameterError for parameters out of range, AttenGaitError without DALI or for a damaged shard.
    """

    def __init__(
        self,
        reader: ClipReader,
        sequences: Sequences,
        indices: NDArray[np.int64],
        *,
        batch_frames: int,
        device: str = "cpu",
        prefetch: int = 2,
        read_ahead: int = READ_AHEAD,
    ) -> None:
        indices = np.asarray(indices, np.int64)
        starts, lengths = sequences.start[indices], sequences.length[indices]
        batches = ragged_batches(lengths, batch_frames)
        self._batches = iter([(indices[batch], lengths[batch]) for batch in batches])

        def request_batch(index: int) -> Callable[[], Batch]:
            return reader.request_clips(starts[batches[index]], lengths[batches[index]])

        self._frames = _FrameStream(
            request_batch,
            num_batches=len(batches),
            batch_size=max((batch.stop - batch.start for batch in batches), default=1),
            device=device,
            prefetch=prefetch,
            read_ahead=read_ahead,
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[NDArray[np.int64], torch.Tensor, NDArray[np.int64]]:
        frames = self._frames.next_batch()
        indices, lengths = next(self._batches)
        # DALI's list of sequences lies in one piece, one sequence after the other.
        shape = [int(lengths.sum()), *frames.shape()[0][1:]]
        return indices, _as_torch(frames.as_reshaped_tensor(shape)), lengths

    def close(self) -> None:
        """Stop prefetching and let go of all threads; batches given out stay valid."""
        self._frames.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _FrameStream:
    """A running DALI pipeline over `request_batch`, called with 0, 1, ... `num_batches` - 1 (None: no end)."""

    def __init__(
        self,
        request_batch: RequestBatch,
        *,
        num_batches: int | None,
        batch_size: int,
        device: str,
        prefetch: int,
        read_ahead: int,
        ordered: bool = False,
    ) -> None:
        if num_batches is not None and num_batches < 0:
            raise ParameterError(f"num_steps is {num_batches}, but must be at least 0")
        if prefetch < 1:
            raise ParameterError(f"prefetch is {prefetch}, but must be at least 1")
        if read_ahead < 0:
            raise ParameterError(f"read_ahead is {read_ahead}, but must be at least 0")
        self._gpu = _gpu_index(device)
        try:
            from attengait.pipelines.graphs import frames_pipeline, ordered_frames_pipeline
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("nvidia"):
                raise
            raise AttenGaitError(DALI_MISSING) from None

        self._requests = _Requests(request_batch, num_batches, read_ahead)
        self._in_use = deque[Batch]()  # views that DALI may still copy from
        # DALI's graph refers to itself, and would keep a reader and its files until the next garbage collection.
        this = weakref.ref(self)

        def source(info: "BatchInfo") -> Batch:
            stream = this()
            if stream is None:
                raise StopIteration
            batch = stream._requests.take(info.iteration)
            stream._in_use.append(batch)
            return batch

        self._pipeline: Any = (ordered_frames_pipeline if ordered else frames_pipeline)(
            source,
            on_gpu=self._gpu is not None,
            batch_size=batch_size,
            num_threads=COPY_THREADS,
            device_id=self._gpu,
            prefetch_queue_depth=prefetch,
        )
        self._pipeline.build()

    def next_batch(self) -> Any:
        """The next DALI TensorList; raises StopIteration after the last and when closed."""
        if self._pipeline is None:
            raise StopIteration
        # Bound to torch's stream, the batch is ready for what torch runs next, and freed only after that.
        stream = None if self._gpu is None else torch.cuda.current_stream(self._gpu)
        try:
            (frames,) = self._pipeline.run(stream)
        except AttenGaitError as error:
            # The traceback would keep the pipeline alive, with its threads, and says nothing to a user.
            raise error.with_traceback(None) from error.__cause__
        self._in_use.popleft()
        return frames

    def close(self) -> None:
        """Dropping the pipeline ends its threads."""
        self._pipeline = None
        self._requests.forget()
        self._in_use.clear()


class _Requests:
    """Batches that are being read, `read_ahead` of them beyond the one that is taken."""

    def __init__(self, request_batch: RequestBatch, num_batches: int | None, read_ahead: int) -> None:
        self._request_batch, self._num_batches, self._read_ahead = request_batch, num_batches, read_ahead
        self._under_way = deque[Callable[[], Batch]]()
        self._num_requested = 0

    def take(self, index: int) -> Batch:
        """Batch `index`, which must be the next one; raises StopIteration after the last."""
        end = index + self._read_ahead + 1
        if self._num_batches is not None:
            end = min(end, self._num_batches)
        for following in range(self._num_requested, end):
            self._under_way.append(self._request_batch(following))
            self._num_requested += 1
        if not self._under_way:
            raise StopIteration
        return self._under_way.popleft()()

    def forget(self) -> None:
        """Let go of what was requested."""
        self._under_way.clear()


def _gpu_index(device: str) -> int | None:
    """The GPU named by `device`, None for the CPU."""
    kind, _, index = device.partition(":")
    if device != "cpu" and not (kind == "cuda" and (index.isdecimal() or device == "cuda")):
        raise ParameterError(f"device is {device!r}, but must be cpu, cuda or cuda:INDEX")
    if device == "cpu":
        return None
    if not torch.cuda.is_available():
        raise AttenGaitError(f"device is {device}, but there is no NVIDIA GPU that torch can use here")
    return int(index) if index else torch.cuda.current_device()


def _as_torch(tensor: Any) -> torch.Tensor:
    """A DALI tensor as torch's, in the same memory."""
    return from_dlpack(tensor)
