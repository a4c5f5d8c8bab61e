"""One shard, from the input of its sequences to its file in the store and its record."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs.blosc
import numpy as np
import zarr
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.store.frame_columns import to_runs
from attengait.store.layout import FrameLayout, shard_key
from attengait.store.location import Location
from attengait.store.plan import PlannedSequence
from attengait.store.sequences import SequenceRecord
from attengait.store.skipped import Skipped
from attengait.store.workfolder import ShardRecord, WorkFolder, put_in_store


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeSequence:
    """What came out of one sequence."""

    pictures: NDArray[np.uint8]
    """[n, H, W, C]; n is 0 where the sequence is left out."""
    frame_numbers: NDArray[np.int64]
    """[n], ascending."""
    times_seconds: NDArray[np.float64] | None = None
    """[n], from the beginning of the video; None where there is no video."""
    skipped: tuple[Skipped, ...] = ()
    """What was left out of it, at most one entry for each reason."""


MakeSequence = Callable[[Any], MadeSequence]
"""From what describes a sequence's input to what comes out of it.

It must be picklable and deterministic; bad input is an entry in `skipped`, not an exception."""
CheckSequence = Callable[[Any], None]
"""Raises AttenGaitError where a sequence's input is no longer what was planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """What it takes to make one shard; small, as it is sent to another process."""

    shard: int
    sequences: list[tuple[PlannedSequence, Any]]
    """What was planned, and what describes its input."""
    layout: FrameLayout
    store: Location
    work: WorkFolder
    temporary: Path
    """The temporary folder of this run, a Zarr group with the array `frames`."""


RunShards = Callable[[list[ShardTask], Callable[[], None]], None]
"""Makes and commits the given shards.

Meanwhile it calls its second argument a few times a second. The bytes of a shard depend on its task only, not on
which process makes it or on how many there are. An exception, also a KeyboardInterrupt, leaves no process or thread
behind."""


class OpenShard:
    """A shard that is being filled with its sequences, one after the other."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        # The tail that no sequence fills is zeros, so that the bytes are a function of the input alone.
        self._frames = np.zeros((task.layout.shard_frames, *task.layout.frame_shape), np.uint8)
        self._records: list[SequenceRecord] = []
        self._report: list[Skipped] = []
        self._num_added = self._stop = self._frames_done = 0

    def add(self, made: MadeSequence) -> None:
        """Add what came out of the next sequence. Raises AttenGaitError when it has more pictures than planned."""
        task = self._task
        planned, _ = task.sequences[self._num_added]
        self._num_added += 1
        self._report += made.skipped
        num_pictures = len(made.pictures)
        if num_pictures > planned.max_frames:
            raise AttenGaitError(
                f"{planned.name} gives {num_pictures} frames, but {planned.max_frames} at most were expected: "
                "it changed during the run"
            )
        if num_pictures:
            start, self._stop = self._stop, self._stop + num_pictures
            self._frames[start : self._stop] = made.pictures
            self._records.append(
                SequenceRecord(
                    subject=planned.subject,
                    walk=planned.walk,
                    view=planned.view,
                    start=task.shard * task.layout.shard_frames + start,
                    length=num_pictures,
                    crc32c=google_crc32c.value(self._frames[start : self._stop].tobytes()),
                    columns=dict(planned.columns),
                    number_runs=to_runs(made.frame_numbers),
                    times_seconds=None if made.times_seconds is None else made.times_seconds.tolist(),
                )
            )
        self._frames_done += planned.max_frames
        task.work.note_progress(task.shard, self._frames_done)

    def commit(self) -> None:
        """Put the shard's file in place, then its record."""
        task = self._task
        assert self._num_added == len(task.sequences)
        # Without this, which open_array has no argument for, chunks of zeros are left out and the others move up.
        array = zarr.open_array(task.temporary / "frames", mode="r+").with_config({"write_empty_chunks": True})
        first = task.shard * task.layout.shard_frames
        with _one_blosc_thread():
            array[first : first + task.layout.shard_frames] = self._frames
        file = task.temporary / shard_key(task.shard)
        shard_bytes = file.stat().st_size
        put_in_store(file, task.store, shard_key(task.shard))
        record = ShardRecord(shard=task.shard, shard_bytes=shard_bytes, sequences=self._records, report=self._report)
        task.work.write_record(record)


def write_shard(task: ShardTask, *, make: MakeSequence, check: CheckSequence | None = None) -> None:
    """Make the sequences of one shard, check their inputs and commit it: what a worker process does.

    Raises AttenGaitError when writing fails or when a sequence gives more pictures than planned, and what `check` does.
    """
    shard = OpenShard(task)
    for _, source in task.sequences:
        shard.add(make(source))
    if check is not None:
        for _, source in task.sequences:
            check(source)
    shard.commit()


@contextmanager
def _one_blosc_thread() -> Iterator[None]:
    """With threads, Blosc orders the parts of a chunk by who finishes first."""
    before = numcodecs.blosc.use_threads
    numcodecs.blosc.use_threads = False
    try:
        yield
    finally:
        numcodecs.blosc.use_threads = before
