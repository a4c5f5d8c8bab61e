"""Shards made on one device, by one process and those that read for it: reading, computing and writing overlap.

Whole sequences are read and decoded ahead, in order, by processes or by threads. The calling thread takes all sequences
that are ready and gives them to the device together, so that it gets many pairs of frames at once. While the device
computes these, the thread takes the next ones and gives them to the device, too. Only then it waits for the first, and
fills the shards. One more thread compresses, writes and commits a shard while the next is filled. What is held is
bounded: with R sequences read ahead, at most 3 R sequences, and 2 shards.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.inputs import check_unchanged
from attengait.datasets.pictures import read_one_by_one
from attengait.datasets.source import ReadGrays, SourceSequence
from attengait.kernels.flow.backends import FlowBackend
from attengait.pipelines.preprocess.reading import NOTHING_REFUSED, ReadSequence, join, read_sequence
from attengait.pipelines.preprocess.shared_pictures import Pin, SharedReaders, pin_nothing
from attengait.preprocessing.flow import FlowRecipe
from attengait.preprocessing.recipe import gather
from attengait.store.shards import MadeSequence, OpenShard, ShardTask

SEQUENCES_PER_READER = 2
"""Sequences read ahead for each thread: one that it reads, and one that waits."""
HELD_OF_EACH = 3
"""Of each sequence read ahead, one that waits, one that is given to the device, and one that it computes."""
READ_AHEAD_BYTES = 2 << 30
"""Limit for grey pictures read ahead. The sequence that exceeds it is still read."""

_FIRST_FRAME_BYTES = 2 * 1920 * 1080
"""A frame and its silhouette, until the first sequence shows how large they are."""


class _Place(NamedTuple):
    """A sequence, and the shard that it belongs to."""

    task: ShardTask
    source: SourceSequence
    max_frames: int


def make_shards(
    tasks: Iterable[ShardTask],
    recipe: FlowRecipe,
    backend: FlowBackend,
    *,
    num_readers: int,
    in_processes: bool = False,
    read_grays: ReadGrays = read_one_by_one,
    refused: Mapping[str, str] = NOTHING_REFUSED,
    pin: Pin = pin_nothing,
) -> None:
    """Make and commit shards one after the other; `num_readers` read. Raises what any thread or process raises.

    `tasks` is asked for the next one only when its sequences are to be read. Threads and processes have ended on
    return. Readers are processes with `in_processes`, whose memory `pin` registers with the device, else threads.
    `read_grays` and `refused`: see `read_sequence`.
    """
    num_ahead = SEQUENCES_PER_READER * num_readers
    read_here = partial(read_sequence, recipe=recipe, read_grays=read_grays, refused=refused)
    reading: AbstractContextManager[Callable[[SourceSequence], ReadSequence]] = nullcontext(read_here)
    if in_processes:
        reading = SharedReaders(read_here, num_sequences=HELD_OF_EACH * num_ahead, pin=pin)
    # The processes are stopped before the threads that wait for them.
    with _threads(1) as writer, _threads(num_readers) as readers, reading as read:
        ahead = ReadAhead(tasks, read, readers, num_sequences=num_ahead)
        written: Future[None] | None = None
        for _, computed in groupby(_compute_all(ahead, recipe, backend), key=lambda each: each[0].task.shard):
            shard: OpenShard | None = None
            for place, made in computed:
                shard = shard or OpenShard(place.task)
                shard.add(made)
            assert shard is not None
            if written is not None:
                written.result()
            written = writer.submit(_commit, shard, place.task)
        if written is not None:
            written.result()


def _commit(shard: OpenShard, task: ShardTask) -> None:
    for _, source in task.sequences:
        check_unchanged(source)
    shard.commit()


class ReadAhead:
    """The sequences of some shards, in order, read before they are asked for."""

    def __init__(
        self,
        tasks: Iterable[ShardTask],
        read: Callable[[SourceSequence], ReadSequence],
        readers: Executor,
        *,
        num_sequences: int,
    ) -> None:
        self._places = (
            _Place(task, source, planned.max_frames) for task in tasks for planned, source in task.sequences
        )
        self._read = read
        self._readers = readers
        self._num_sequences = num_sequences
        self._frame_bytes = 0
        self._waiting: deque[tuple[_Place, Future[ReadSequence]]] = deque()

    def take(self) -> list[tuple[_Place, ReadSequence]]:
        """Return the next sequence, when it is read, and those after it that are read already; nothing at the end."""
        self._fill()
        taken: list[tuple[_Place, ReadSequence]] = []
        while self._waiting and (not taken or self._waiting[0][1].done()):
            place, reading = self._waiting.popleft()
            read = reading.result()
            if read.block.grays:
                height, width = read.block.grays[0].shape
                self._frame_bytes = max(self._frame_bytes, 2 * height * width)
            taken.append((place, read))
        self._fill()
        return taken

    def _fill(self) -> None:
        while len(self._waiting) < self._num_sequences and self._waiting_bytes() < READ_AHEAD_BYTES:
            place = next(self._places, None)
            if place is None:
                return
            self._waiting.append((place, self._readers.submit(self._read, place.source)))

    def _waiting_bytes(self) -> int:
        return sum(place.max_frames for place, _ in self._waiting) * (self._frame_bytes or _FIRST_FRAME_BYTES)


def begin(
    sequences: Sequence[tuple[SourceSequence, ReadSequence]], recipe: FlowRecipe, backend: FlowBackend
) -> Callable[[], list[MadeSequence]]:
    """Give some sequences to the device, those of one picture size together.

    What is returned waits for it, gives the sequences' memory back and returns what comes out of them.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, (_, read) in enumerate(sequences):
        if read.block.pairs:
            by_shape.setdefault(read.block.grays[0].shape, []).append(i)
    begun = [
        (indices, recipe.begin(join(sequences[i][1].block for i in indices), backend)) for indices in by_shape.values()
    ]

    def finish() -> list[MadeSequence]:
        pictures: list[NDArray[np.uint8]] = [np.empty((0, *recipe.frame_shape), np.uint8)] * len(sequences)
        for indices, wait in begun:
            ends = np.cumsum([len(sequences[i][1].block.pairs) for i in indices])
            for i, part in zip(indices, np.split(wait(), ends[:-1]), strict=True):
                pictures[i] = part
        for _, read in sequences:
            read.give_back()
        return [
            gather(read.block.name(made), read.faults, source, recipe.frame_shape, recipe.min_frames)
            for (source, read), made in zip(sequences, pictures, strict=True)
        ]

    return finish


def _compute_all(ahead: ReadAhead, recipe: FlowRecipe, backend: FlowBackend) -> Iterator[tuple[_Place, MadeSequence]]:
    begun: deque[tuple[list[_Place], Callable[[], list[MadeSequence]]]] = deque()
    while taken := ahead.take():
        begun.append(
            ([place for place, _ in taken], begin([(place.source, read) for place, read in taken], recipe, backend))
        )
        del taken  # their frames are not needed while the pictures are stored
        if len(begun) == 2:
            yield from _end(*begun.popleft())
    while begun:
        yield from _end(*begun.popleft())


def _end(places: list[_Place], finish: Callable[[], list[MadeSequence]]) -> Iterator[tuple[_Place, MadeSequence]]:
    yield from zip(places, finish(), strict=True)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that end afterwards. Tasks that they have not begun are dropped."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
