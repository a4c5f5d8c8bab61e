"""What streams from a store: clips for training, whole sequences for evaluation.

A batch is a pure function of its index. So a stream can begin at any step, ranks need not talk to each other, and the
next batches are known. How they are read ahead is in `attengait.pipelines.batches`.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, require
from attengait.kernels.chunks.gather import can_gather
from attengait.pipelines.batches import ArrayStream, Batch, BatchStream
from attengait.pipelines.runs import subjects_of
from attengait.sampling.plan import BatchPlan, ClipBatch, PlannedBatch
from attengait.sampling.rules import ClipRules
from attengait.sampling.selection import Spec, parse_subjects
from attengait.store.opening import AnyStore, open_store
from attengait.store.readers.base import ClipReader
from attengait.store.sequences import Sequences
from attengait.store.store import Store
from attengait.training.config import DataSettings

READ_AHEAD = 4
"""How many batches are requested from the disk, the network or the decoder, beyond those that DALI prefetches."""

_DEFAULTS = DataSettings()


class ClipStream:
    """The batches of a training plan from `start_step` on: an iterator of ClipBatch and a context manager.

    A batch has `clips`, uint8 [N, T, H, W, C], and `labels`, int64 [N], on `device`; also `step`, and `sequences`, the
    position of each clip's sequence in the store. A loop gives `len(stream)` batches. The next loop goes on with the
    steps that follow, so that a stream of one epoch gives another epoch in each loop. A loop that was left early is
    continued. `state_dict` and `load_state_dict` continue a stream at the very next batch, also in another process.

    Most users call `ClipStream.from_store`, which makes the plan. On a CPU a stream is faster after
    `attengait.system.memory.keep_freed_memory()`, which changes malloc for the whole process; the command line calls
    it, the stream does not.

    Args:
        store_or_reader: a store, which the stream opens and closes, or a reader, which it leaves open.
        plan: which clips make each batch.
        start_step: the first batch, counted from 0 over all epochs.
        num_steps: how many batches a loop gives; None never ends.
        device: cpu, cuda or cuda:INDEX.
        rank: which of the `world_size` processes this is; it gets its slice of each batch.
        world_size: processes that share each batch.
        prefetch: batches that DALI holds ready.
        read_ahead: batches that are being read beyond those.

    Raises:
        ParameterError: a parameter that is out of range.
        AttenGaitError: DALI is not installed, a shard is damaged, or a loop begins over a stream that is closed.

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
        self._start_step, self._next_step = start_step, start_step  # of this loop, and of the next batch
        self._is_over = self._is_closed = False
        self._rank, self._world_size = rank, world_size
        self._device, self._ahead_settings = device, {"prefetch": prefetch, "read_ahead": read_ahead}
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
        subjects: Spec = (),
        subjects_per_batch: int = _DEFAULTS.subjects_per_batch,
        clips_per_subject: int = _DEFAULTS.clips_per_subject,
        clip_frames: int = _DEFAULTS.clip_frames,
        rules: ClipRules | None = None,
        seed: int = 0,
        epochs: int | None = 1,
        start_step: int = 0,
        device: str = "cpu",
        rank: int = 0,
        world_size: int = 1,
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
            epochs: how often a loop visits each subject; None never ends.
            start_step: the first batch, counted from 0 over all epochs.
            device: cpu, cuda or cuda:INDEX.
            rank: which of the `world_size` processes this is; it gets its slice of each batch.
            world_size: processes that share each batch.

        Raises:
            ParameterError: a parameter that is out of range or does not fit the store.
            AttenGaitError: a store that cannot be opened.
        """
        require(epochs is None or epochs >= 0, "epochs", epochs, "at least 0")
        opened = open_store(store)
        names = parse_subjects(subjects, subjects_of(opened))
        plan = BatchPlan(
            opened.sequences,
            names,
            subjects_per_batch=subjects_per_batch,
            clips_per_subject=clips_per_subject,
            clip_frames=clip_frames,
            seed=seed,
            rules=rules,
        )
        num_steps = None if epochs is None else max(0, epochs * plan.steps_per_epoch - start_step)
        return cls(
            opened,
            plan,
            start_step=start_step,
            num_steps=num_steps,
            device=device,
            rank=rank,
            world_size=world_size,
        )

    @property
    def plan(self) -> BatchPlan:
        """Which clips make each batch; its `subjects` are what the labels count."""
        return self._plan

    def __len__(self) -> int:
        """Batches that a loop gives. Raises TypeError for a stream that never ends."""
        if self._num_steps is None:
            raise TypeError("the stream has no length: num_steps is None, so it never ends")
        return self._num_steps

    def __iter__(self) -> Self:
        self._check_open()
        if self._is_over:
            self._restart(self._next_step, self._next_step)
        return self

    def __next__(self) -> ClipBatch:
        if self._is_over:
            raise StopIteration
        try:
            clips = self._frames.next_clips()
        except StopIteration:
            self._is_over = True
            raise
        planned = self._ahead.popleft()
        self._next_step = planned.step + 1
        return ClipBatch(
            step=planned.step,
            clips=clips,
            labels=torch.from_numpy(planned.labels).to(clips.device),
            sequences=planned.sequences,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what continues this stream: the step of the next batch, the first of its loop, and what the plan
        depends on.

        A state that was taken within a loop continues this loop. One that was taken after a loop begins the next.
        """
        first = self._next_step if self._is_over else self._start_step
        return {"first_step": first, "step": self._next_step, "plan": self._plan.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was taken that `state_dict` returned.

        Raises ParameterError for the state of another plan, and for a step that a loop of this stream does not have,
        AttenGaitError for a stream that is closed.
        """
        self._check_open()
        here, there = self._plan.state(), dict(state["plan"])
        for name in here:
            require(there.get(name) == here[name], name, here[name], f"{there.get(name)!r} as in the state")
        first, step = int(state["first_step"]), int(state["step"])
        last = None if self._num_steps is None else first + self._num_steps
        known = f"at least {first}" if last is None else f"from {first} to {last}"
        require(first <= step and (last is None or step <= last), "step", step, known)
        self._restart(first, step)

    def close(self) -> None:
        """Stop prefetching, end all threads and close all files. Batches given out stay valid."""
        self._is_closed = True
        self._frames.close()
        if self._own_reader is not None:
            self._own_reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise AttenGaitError("the stream was closed: make another")

    def _restart(self, first: int, step: int) -> None:
        """Read from `step` on, in a loop that began at `first`."""
        self._frames.close()
        self._start_step, self._next_step, self._is_over = first, step, False
        self._begin()

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

        num_batches = None if self._num_steps is None else self._start_step + self._num_steps - begin
        self._frames: BatchStream | ArrayStream
        if self._device == "cpu" and first.frames is None and (reader.gives_copies or can_gather()):
            self._frames = ArrayStream(
                request_batch, num_batches=num_batches, gives_copies=reader.gives_copies, **self._ahead_settings
            )
        else:
            self._frames = BatchStream(
                request_batch,
                num_batches=num_batches,
                batch_size=len(lengths),
                device=self._device,
                ordered=first.frames is not None,
                **self._ahead_settings,
            )


class SequenceStream:
    """Whole sequences, several at a time, as `batches` says: an iterator and a context manager.

    Yields (indices int64 [n], frames uint8 [sum T, H, W, C] on `device`, lengths int64 [n] in frames). `batches` has
    the indices of each batch, as `attengait.sampling.plan.sequence_batches` makes them. The reader is left open.

    Raises ParameterError for parameters out of range, AttenGaitError without DALI or for a damaged shard.
    """

    def __init__(
        self,
        reader: ClipReader,
        sequences: Sequences,
        batches: Sequence[NDArray[np.int64]],
        *,
        device: str = "cpu",
        prefetch: int = 2,
        read_ahead: int = READ_AHEAD,
    ) -> None:
        starts, lengths = sequences.start, sequences.length
        self._batches = iter([(batch, lengths[batch]) for batch in batches])

        def request_batch(index: int) -> Callable[[], Batch]:
            return reader.request_clips(starts[batches[index]], lengths[batches[index]])

        self._frames = BatchStream(
            request_batch,
            num_batches=len(batches),
            batch_size=max(map(len, batches), default=1),
            device=device,
            prefetch=prefetch,
            read_ahead=read_ahead,
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[NDArray[np.int64], torch.Tensor, NDArray[np.int64]]:
        frames = self._frames.next_frames()
        indices, lengths = next(self._batches)
        return indices, frames, lengths

    def close(self) -> None:
        """Stop prefetching and let go of all threads; batches given out stay valid."""
        self._frames.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
