"""Batches from a store, by DALI: clips for training, whole sequences for evaluation.

A batch is a pure function of its index. So a stream can begin at any step, ranks need not talk to each other, and
the next batches are known. A batch is requested from the disk, the network or the decoder `read_ahead` batches
before DALI takes it, and DALI takes it `prefetch` batches before the caller does. DALI copies it out of the page
cache once. The tensors given out are DALI's memory, by DLPack, without another copy. Each batch has its own memory,
which stays valid as long as its tensor lives, also after the stream is closed (DALI's default executor allocates
each output anew). Frames stay uint8 up to the device.
"""

import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from attengait.errors import AttenGaitError, ParameterError, how_to_install, require
from attengait.pipelines.runs import subjects_of
from attengait.sampling.plan import BatchPlan, ClipBatch, PlannedBatch, ragged_batches
from attengait.sampling.rules import ClipRules
from attengait.sampling.selection import parse_subjects
from attengait.store.opening import AnyStore, open_store
from attengait.store.readers.base import ClipReader, Frames
from attengait.store.sequences import Sequences
from attengait.store.store import Store
from attengait.training.config import DataSettings

if TYPE_CHECKING:
    from nvidia.dali.types import BatchInfo

Batch = list[Frames] | tuple[list[Frames], NDArray[np.int32]]
"""Clips, uint8 [T, H, W, C] each; or views of any length, with indices [N, T] of the frames that make each clip."""
RequestBatch = Callable[[int], Callable[[], Batch]]
"""Takes the index of a batch, from 0 on, and begins to read the batch. Returns a function that waits for it and
returns it."""

READ_AHEAD = 4
"""How many batches are requested from the disk, the network or the decoder, beyond those that DALI prefetches."""

COPY_THREADS = 2
"""DALI's threads that copy clips, beside the one that calls."""

_DEFAULTS = DataSettings()

DALI_MISSING = f"NVIDIA DALI is not installed: {how_to_install('cpu', 'cuda12', 'cuda13')}"


class ClipStream:
    """The batches of a training plan from `start_step` on: an iterator of ClipBatch and a context manager.

    A batch has `clips`, uint8 [N, T, H, W, C], and `labels`, int64 [N], on `device`; also `step`, and `sequences`, the
    position of each clip's sequence in the store. `len` is the number of batches. `state_dict` and `load_state_dict`
    continue a stream at the very next batch, also in another process.

    Most users call `ClipStream.from_store`, which makes the plan. On a CPU a stream is faster after
    `attengait.system.memory.keep_freed_memory()`, which changes malloc for the whole process; the command line calls
    it, the stream does not.

    Args:
        store_or_reader: a store, which the stream opens and closes, or a reader, which it leaves open.
        plan: which clips make each batch.
        start_step: the first batch, counted from 0 over all epochs.
        num_steps: how many batches; None never ends.
        device: cpu, cuda or cuda:INDEX.
        rank: which of the `world_size` processes this is; it gets its slice of each batch.
        world_size: processes that share each batch.
        prefetch: batches that DALI holds ready.
        read_ahead: batches that are being read beyond those.

    Raises:
        ParameterError: a parameter that is out of range.
        AttenGaitError: DALI is not installed, or a shard is damaged.

    >>> settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 16}
    >>> with attengait.ClipStream.from_store(store, **settings) as stream:
    ...     shapes = [batch.clips.shape for batch in stream]
    >>> len(shapes) == len(stream)
    True
    >>> list(shapes[0])
    [4, 16, 64, 64, 3]
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
        require(start_step >= 0, "start_step", start_step, "at least 0")
        require(num_steps is None or num_steps >= 0, "num_steps", num_steps, "at least 0")
        self._plan, self._num_steps = plan, num_steps
        self._start_step, self._next_step = start_step, start_step
        self._rank, self._world_size = rank, world_size
        self._settings: dict[str, Any] = {"device": device, "prefetch": prefetch, "read_ahead": read_ahead}
        self._own_reader = store_or_reader.reader() if isinstance(store_or_reader, Store) else None
        reader = self._own_reader or store_or_reader
        assert not isinstance(reader, Store)
        self._reader = reader
        self._begin()

    @classmethod
    def from_store(
        cls,
        store: AnyStore,
        *,
        subjects: str | Sequence[str] = (),
        subjects_per_batch: int = _DEFAULTS.subjects_per_batch,
        clips_per_subject: int = _DEFAULTS.clips_per_subject,
        clip_frames: int = _DEFAULTS.clip_frames,
        rules: ClipRules | None = None,
        seed: int = 0,
        epochs: int | None = 1,
        **settings: Any,
    ) -> Self:
        """Stream P x K batches from a store.

        Args:
            store: a path, a URL, an open store (also some of its sequences), or what `attengait.preprocess` returned.
            subjects: names, numbers and ranges, such as "001-074"; empty means all.
            subjects_per_batch: P.
            clips_per_subject: K.
            clip_frames: images of each clip; shorter sequences are not used, unless the rules say so.
            rules: which sequences are used and how clips are drawn from them.
            seed: what the random choices depend on, beside the step.
            epochs: how often each subject is visited; None never ends.
            **settings: the other parameters of ClipStream, such as device, start_step, rank and world_size.

        Raises:
            ParameterError: a parameter that is out of range or does not fit the store.
            AttenGaitError: a store that cannot be opened.
        """
        require(epochs is None or epochs >= 0, "epochs", epochs, "at least 0")
        opened = open_store(store)
        names = parse_subjects([subjects] if isinstance(subjects, str) else subjects, subjects_of(opened))
        plan = BatchPlan(
            opened.sequences,
            names,
            subjects_per_batch=subjects_per_batch,
            clips_per_subject=clips_per_subject,
            clip_frames=clip_frames,
            seed=seed,
            rules=rules,
        )
        if epochs is not None:
            steps = epochs * plan.steps_per_epoch - settings.get("start_step", 0)
            settings = {"num_steps": max(0, steps)} | settings
        return cls(opened, plan, **settings)

    @property
    def plan(self) -> BatchPlan:
        """Which clips make each batch; its `subjects` are what the labels count."""
        return self._plan

    def __len__(self) -> int:
        """Batches from the first to the last. Raises TypeError for a stream that never ends."""
        if self._num_steps is None:
            raise TypeError("the stream has no length: num_steps is None, so it never ends")
        return self._num_steps

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ClipBatch:
        clips = _as_torch(self._frames.next_batch().as_tensor())
        planned = self._ahead.popleft()
        self._next_step = planned.step + 1
        return ClipBatch(
            step=planned.step,
            clips=clips,
            labels=torch.from_numpy(planned.labels).to(clips.device),
            sequences=planned.sequences,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what continues this stream: the step of the next batch, and what the plan depends on."""
        return {"step": self._next_step, "plan": self._plan.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at the step of a state that `state_dict` returned; the last batch stays the same.

        Raises ParameterError for the state of another plan, and for a step that this stream does not have.
        """
        here, there = self._plan.state(), dict(state["plan"])
        for name in here:
            require(there.get(name) == here[name], name, here[name], f"{there.get(name)!r} as in the state")
        step, first = int(state["step"]), self._start_step
        last = None if self._num_steps is None else first + self._num_steps
        known = f"at least {first}" if last is None else f"from {first} to {last}"
        require(first <= step and (last is None or step <= last), "step", step, known)
        self._frames.close()
        self._next_step = step
        self._begin()

    def close(self) -> None:
        """Stop prefetching, end all threads and close all files. Batches given out stay valid."""
        self._frames.close()
        if self._own_reader is not None:
            self._own_reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin(self) -> None:
        """Start to read at the next step."""
        plan, reader, rank, world_size = self._plan, self._reader, self._rank, self._world_size
        begin = self._next_step
        first = plan.batch(begin, rank, world_size)
        lengths = np.full(len(first.labels), plan.clip_frames)
        self._ahead = ahead = deque[PlannedBatch]()  # read, but not given out yet

        def request_batch(index: int) -> Callable[[], Batch]:
            planned = plan.batch(begin + index, rank, world_size)
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
            num_batches=None if self._num_steps is None else self._start_step + self._num_steps - begin,
            batch_size=len(lengths),
            ordered=first.frames is not None,
            **self._settings,
        )


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
        require(prefetch >= 1, "prefetch", prefetch, "at least 1")
        require(read_ahead >= 0, "read_ahead", read_ahead, "at least 0")
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
