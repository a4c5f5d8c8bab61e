"""Shards made on one device, in one process: reading, computing and writing overlap.

Threads read and decode whole sequences ahead, in order. The calling thread takes all sequences that are ready and
computes them together, so that a device gets many pairs of frames at once. Then it fills the shards. One more thread
compresses, writes and commits a shard while the next is filled. What is held is bounded: with R sequences read
ahead, at most 2 R sequences, and 2 shards.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.inputs import check_unchanged
from attengait.datasets.pictures import Pictures, read_one_by_one
from attengait.datasets.reading import FrameSizes, read_with_the_size_of_most
from attengait.datasets.source import FRAMES, Fault, ReadGrays, SourceSequence
from attengait.kernels.flow.backends import FlowBackend
from attengait.pipelines.preprocess.own_process import InOwnProcess
from attengait.preprocessing.flow import Block, FlowRecipe
from attengait.preprocessing.recipe import gather
from attengait.store.shards import MadeSequence, OpenShard, ShardTask
from attengait.store.skipped import Reason

SEQUENCES_PER_READER = 2
"""Sequences read ahead for each thread: one that it reads, and one that waits."""
READ_AHEAD_BYTES = 2 << 30
"""Limit for grey pictures read ahead. The sequence that exceeds it is still read."""

NOTHING_REFUSED: Mapping[str, str] = {}

_FIRST_FRAME_BYTES = 2 * 1920 * 1080
"""A frame and its silhouette, until the first sequence shows how large they are."""


class ReadSequence(NamedTuple):
    """A sequence read and decoded."""

    block: Block
    """All of it; without pairs where nothing can be computed."""
    faults: list[Fault]


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
) -> None:
    """Make and commit shards one after the other; `num_readers` threads read. Raises what any thread raises.

    `tasks` is asked for the next one only when its sequences are to be read. Threads and processes have ended on
    return. With `in_processes` each thread has a process read for it: a process decodes one video at a time (see
    `attengait.datasets.video`). `refused` holds the paths of pictures that `read_grays` had
    OpenCV decode, and why; it grows meanwhile.
    """
    read_here = partial(read_sequence, recipe=recipe, read_grays=read_grays, refused=refused)
    reading = InOwnProcess(read_here) if in_processes else nullcontext(read_here)
    # The processes are stopped before the threads that wait for them.
    with _threads(1) as writer, _threads(num_readers) as readers, reading as read:
        ahead = ReadAhead(tasks, read, readers, num_sequences=SEQUENCES_PER_READER * num_readers)
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


def read_sequence(
    source: SourceSequence,
    *,
    recipe: FlowRecipe,
    read_grays: ReadGrays,
    refused: Mapping[str, str] = NOTHING_REFUSED,
) -> ReadSequence:
    """Read and decode all that the flow images of one sequence are made of."""

    def attempt(sizes: FrameSizes) -> ReadSequence:
        faults: list[Fault] = []
        block = join(recipe.read_blocks(source, faults, sizes, read_grays=read_grays))
        if refused:
            faults += _decoded_otherwise(source, refused, faults)
        return ReadSequence(block, faults)

    return read_with_the_size_of_most(attempt)


def _decoded_otherwise(source: SourceSequence, refused: Mapping[str, str], faults: Sequence[Fault]) -> list[Fault]:
    """A note of each picture of a sequence that OpenCV decoded after DALI had refused it."""
    frames = source.parts[FRAMES]
    if not isinstance(frames, Pictures):
        return []
    lost = {fault.number for fault in faults if fault.reason is Reason.UNREADABLE_PICTURE}
    return [
        Fault(Reason.OTHER_DECODER, number, path, refused[path])
        for number, path in frames.by_number.items()
        if path in refused and number not in lost
    ]


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


def compute(
    sequences: Sequence[tuple[SourceSequence, ReadSequence]], recipe: FlowRecipe, backend: FlowBackend
) -> list[MadeSequence]:
    """Return what comes out of some sequences; those of one picture size are computed together."""
    pictures: list[NDArray[np.uint8]] = [np.empty((0, *recipe.frame_shape), np.uint8)] * len(sequences)
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, (_, read) in enumerate(sequences):
        if read.block.pairs:
            by_shape.setdefault(read.block.grays[0].shape, []).append(i)
    for indices in by_shape.values():
        blocks = [sequences[i][1].block for i in indices]
        made = recipe.pictures(join(blocks), backend)
        ends = np.cumsum([len(block.pairs) for block in blocks])
        for i, part in zip(indices, np.split(made, ends[:-1]), strict=True):
            pictures[i] = part
    return [
        gather(read.block.name(made), read.faults, source, recipe.frame_shape, recipe.min_frames)
        for (source, read), made in zip(sequences, pictures, strict=True)
    ]


def join(blocks: Iterable[Block]) -> Block:
    """Return several blocks as one; a frame that ends one block and begins the next is kept once."""
    whole = Block(grays=[], pairs=[], silhouettes=[], numbers=[], times_seconds=[])
    for block in blocks:
        shared = bool(whole.grays) and whole.grays[-1] is block.grays[0]
        offset = len(whole.grays) - shared
        whole.grays.extend(block.grays[shared:])
        whole.pairs.extend((offset + first, offset + second) for first, second in block.pairs)
        whole.silhouettes.extend(block.silhouettes)
        whole.numbers.extend(block.numbers)
        whole.times_seconds.extend(block.times_seconds)
    return whole


def _compute_all(ahead: ReadAhead, recipe: FlowRecipe, backend: FlowBackend) -> Iterator[tuple[_Place, MadeSequence]]:
    while taken := ahead.take():
        places = [place for place, _ in taken]
        made = compute([(place.source, read) for place, read in taken], recipe, backend)
        del taken  # their frames are not needed while the pictures are stored
        yield from zip(places, made, strict=True)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that end afterwards. Tasks that they have not begun are dropped."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
