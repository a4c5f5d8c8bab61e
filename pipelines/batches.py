"""Batches, requested ahead: from a function that reads batch `index` to tensors on a device.

A batch is requested from the disk, the network or the decoder `read_ahead` batches before it is copied, and copied
`prefetch` batches before the caller takes it. It is copied once, out of the page cache. Each batch has its own memory,
which stays valid as long as its tensor lives, also after the stream is closed. Frames stay uint8 up to the device.

To a GPU, and wherever lengths or the order of frames differ, batches go through DALI (`BatchStream`). The tensors given
out are DALI's memory, by DLPack, without another copy (its default executor allocates each output anew). Clips for the
CPU are gathered by compiled code (`ArrayStream`), which costs less than DALI's copy; without a compiler, by DALI.

Of a GPU, DALI gets torch's stream. The default stream is 0 for every GPU, and CUDA then takes that of the current
device. So the GPU of a stream is made the current one while DALI runs and while its tensors become torch's.
"""

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from attengait.errors import AttenGaitError, ParameterError, how_to_install, require
from attengait.kernels.chunks.gather import gather
from attengait.store.readers.base import Frames, as_one_array

if TYPE_CHECKING:
    from nvidia.dali.types import BatchInfo

Batch = list[Frames] | tuple[list[Frames], NDArray[np.int32]]
"""Clips, uint8 [T, H, W, C] each; or views of any length, with indices [N, T] of the frames that make each clip."""
RequestBatch = Callable[[int], Callable[[], Batch]]
"""Takes the index of a batch, from 0 on, and begins to read the batch. Returns a function that waits for it and
returns it."""

COPY_THREADS = 2
"""Threads that copy clips, beside the one that calls."""

DALI_MISSING = f"NVIDIA DALI is not installed: {how_to_install('cpu', 'cuda12', 'cuda13')}"


class BatchStream:
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
        _check_ahead(prefetch, read_ahead)
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
        with self._on_gpu():
            self._pipeline.build()

    def next_clips(self) -> torch.Tensor:
        """The clips of the next batch, all of one length, uint8 [N, T, H, W, C]; raises StopIteration after the last
        and when closed."""
        with self._on_gpu():
            return from_dlpack(self._run().as_tensor())

    def next_frames(self) -> torch.Tensor:
        """The frames of the next batch's sequences one after the other, uint8 [sum T, H, W, C]; raises as above."""
        with self._on_gpu():
            sequences = self._run()
            shapes: Sequence[tuple[int, ...]] = sequences.shape()
            # DALI's list of sequences lies in one piece.
            return from_dlpack(sequences.as_reshaped_tensor([sum(shape[0] for shape in shapes), *shapes[0][1:]]))

    def _run(self) -> Any:
        """The next DALI TensorList."""
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

    def _on_gpu(self) -> AbstractContextManager[Any]:
        """Makes the GPU of this stream the current one."""
        return nullcontext() if self._gpu is None else torch.cuda.device(self._gpu)

    def close(self) -> None:
        """Dropping the pipeline ends its threads."""
        self._pipeline = None
        self._requests.forget()
        self._in_use.clear()


class ArrayStream:
    """Batches of clips for the CPU in arrays of our own, which torch gets as they are.

    Clips that a reader gives as copies are not copied again. Others are gathered by compiled code, `prefetch` batches
    ahead. The parameters are those of BatchStream; a batch must be a list of clips.
    """

    def __init__(
        self,
        request_batch: RequestBatch,
        *,
        num_batches: int | None,
        gives_copies: bool,
        prefetch: int,
        read_ahead: int,
    ) -> None:
        _check_ahead(prefetch, read_ahead)
        # To take copies waits for the reader, so they are taken when they are needed.
        self._num_ahead = 0 if gives_copies else prefetch
        self._requests = _Requests(request_batch, num_batches, read_ahead + prefetch - self._num_ahead)
        self._gives_copies = gives_copies
        self._num_taken = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="attengait-gather")
        self._ready = deque[Future[NDArray[np.uint8]]]()
        self._is_closed = False

    def next_clips(self) -> torch.Tensor:
        """The clips of the next batch, uint8 [N, T, H, W, C]; raises StopIteration after the last and when closed."""
        if self._is_closed:
            raise StopIteration
        with contextlib.suppress(StopIteration):
            while len(self._ready) <= self._num_ahead:
                self._ready.append(self._begin_next())
        if not self._ready:
            raise StopIteration
        return torch.from_numpy(self._ready.popleft().result())

    def _begin_next(self) -> "Future[NDArray[np.uint8]]":
        try:
            batch = self._requests.take(self._num_taken)
        except AttenGaitError as error:
            # The traceback would keep the reader's files open.
            raise error.with_traceback(None) from error.__cause__
        assert isinstance(batch, list)
        self._num_taken += 1
        if not self._gives_copies:
            return self._thread.submit(gather, batch, COPY_THREADS)
        done = Future[NDArray[np.uint8]]()
        done.set_result(as_one_array(batch))
        return done

    def close(self) -> None:
        """End the thread and let go of what was requested."""
        self._is_closed = True
        self._thread.shutdown(cancel_futures=True)
        self._ready.clear()
        self._requests.forget()


class _Requests:
    """Batches that are being read: the next one, and `read_ahead` more."""

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


def _check_ahead(prefetch: int, read_ahead: int) -> None:
    require(prefetch >= 1, "prefetch", prefetch, "at least 1")
    require(read_ahead >= 0, "read_ahead", read_ahead, "at least 0")


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
