"""One shard, from the input of its sequences to its file in the store and its record."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs.blosc
import numpy as np
import zarr
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.layout import FrameLayout, shard_key
from attengait.store.location import Location
from attengait.store.plan import PlannedSequence
from attengait.store.sequences import SequenceRecord
from attengait.store.workfolder import ShardRecord, WorkFolder, put_in_store
from attengait.system.workers import run_in_workers

Compute = Callable[[Any], tuple[NDArray[np.uint8], list[dict[str, Any]]]]
"""From what describes a sequence's input to its frames, uint8 [n, H, W, C], and one entry for each thing skipped.

It must be picklable and deterministic; bad input is an entry, not an exception."""


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
"""Makes and commits all of some shards, calling its second argument a few times a second meanwhile.

Whoever does it, and in however many processes: the bytes of a shard are a function of its task. An exception, also a
KeyboardInterrupt, leaves no process or thread behind."""


class OpenShard:
    """A shard that is being filled with its sequences, one after the other."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        # The tail that no sequence fills is zeros, so that the bytes are a function of the input alone.
        self._frames = np.zeros((task.layout.shard_frames, *task.layout.frame_shape), np.uint8)
        self._records: list[SequenceRecord] = []
        self._report: list[dict[str, Any]] = []
        self._num_added = self._stop = self._frames_done = 0

    def add(self, images: NDArray[np.uint8], entries: list[dict[str, Any]]) -> None:
        """Add what came out of the next sequence: its frames, uint8 [n, H, W, C], and its report.

        Raises AttenGaitError when it has more frames than planned.
        """
        task = self._task
        planned, _ = task.sequences[self._num_added]
        self._num_added += 1
        self._report += entries
        if len(images) > planned.max_frames:
            raise AttenGaitError(
                f"{planned.name} gives {len(images)} frames, but {planned.max_frames} at most were expected: "
                "it changed during the run"
            )
        if len(images):
            start, self._stop = self._stop, self._stop + len(images)
            self._frames[start : self._stop] = images
            self._records.append(
                SequenceRecord(
                    subject=planned.subject,
                    walk=planned.walk,
                    view=planned.view,
                    start=task.shard * task.layout.shard_frames + start,
                    length=len(images),
                    crc32c=google_crc32c.value(self._frames[start : self._stop].tobytes()),
                )
            )
        self._frames_done += planned.max_frames
        task.work.note_progress(task.shard, self._frames_done)

    def commit(self) -> None:
        """Put the shard's file in place, then its record."""
        task = self._task
        assert self._num_added == len(task.sequences)
        # With threads, Blosc orders the parts of a chunk by who finishes first.
        numcodecs.blosc.use_threads = False
        # Without this, which open_array has no argument for, chunks of zeros are left out and the others move up.
        array = zarr.open_array(task.temporary / "frames", mode="r+").with_config({"write_empty_chunks": True})
        first = task.shard * task.layout.shard_frames
        array[first : first + task.layout.shard_frames] = self._frames
        file = task.temporary / shard_key(task.shard)
        shard_bytes = file.stat().st_size
        put_in_store(file, task.store, shard_key(task.shard))
        record = ShardRecord(shard=task.shard, shard_bytes=shard_bytes, sequences=self._records, report=self._report)
        task.work.write_record(record)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPool:
    """Makes shards in worker processes, each of which computes one shard at a time (a RunShards)."""

    compute: Compute
    num_workers: int

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ParameterError(f"workers is {self.num_workers}, but must be at least 1")

    def __call__(self, tasks: list[ShardTask], on_poll: Callable[[], None]) -> None:
        """See RunShards. Raises AttenGaitError when a worker dies, and what one of them raises."""
        function = partial(write_shard, compute=self.compute)
        run_in_workers(function, tasks, num_workers=min(self.num_workers, len(tasks)), on_poll=on_poll)


def write_shard(task: ShardTask, *, compute: Compute) -> None:
    """Compute the sequences of one shard and commit it: what a worker process does.

    Raises AttenGaitError when writing fails or when a sequence yields more frames than planned.
    """
    shard = OpenShard(task)
    for _, source in task.sequences:
        shard.add(*compute(source))
    shard.commit()
