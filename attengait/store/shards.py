"""One shard, from the input of its sequences to its file in the store and its record: what a worker process does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs.blosc
import numpy as np
import zarr
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.store.layout import FrameLayout, shard_path
from attengait.store.plan import PlannedSequence
from attengait.store.sequences import SequenceRecord
from attengait.store.workfolder import ShardRecord, WorkFolder, put_in_place

Compute = Callable[[Any], tuple[NDArray[np.uint8], list[dict[str, Any]]]]
"""From what describes a sequence's input to its frames, uint8 [n, H, W, C], and one entry for each thing skipped.

It must be picklable and deterministic; bad input is an entry, not an exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """What a worker needs for one shard; small, as it is sent to another process."""

    shard: int
    sequences: list[tuple[PlannedSequence, Any]]
    """What was planned, and the input for `compute`."""
    compute: Compute
    layout: FrameLayout
    store: Path
    work: WorkFolder
    temporary: Path
    """The temporary folder of this run, a Zarr group with the array `frames`."""


def write_shard(task: ShardTask) -> None:
    """Compute the sequences of one shard, put its file in place, and commit it by its record.

    Raises AttenGaitError when writing fails or when a sequence yields more frames than planned.
    """
    layout = task.layout
    # The tail that no sequence fills is zeros, so that the bytes are a function of the input alone.
    frames = np.zeros((layout.shard_frames, *layout.frame_shape), np.uint8)
    first = task.shard * layout.shard_frames
    records: list[SequenceRecord] = []
    report: list[dict[str, Any]] = []
    stop = frames_done = 0
    for planned, source in task.sequences:
        images, entries = task.compute(source)
        report += entries
        if len(images) > planned.max_frames:
            raise AttenGaitError(
                f"{planned.name} gives {len(images)} frames, but {planned.max_frames} at most were expected: "
                "it changed during the run"
            )
        if len(images):
            start, stop = stop, stop + len(images)
            frames[start:stop] = images
            records.append(
                SequenceRecord(
                    subject=planned.subject,
                    walk=planned.walk,
                    view=planned.view,
                    start=first + start,
                    length=len(images),
                    crc32c=google_crc32c.value(frames[start:stop].tobytes()),
                )
            )
        frames_done += planned.max_frames
        task.work.note_progress(task.shard, frames_done)
    # With threads, Blosc orders the parts of a chunk by who finishes first.
    numcodecs.blosc.use_threads = False
    # Without this, which open_array has no argument for, chunks of zeros are left out and the others move up.
    array = zarr.open_array(task.temporary / "frames", mode="r+").with_config({"write_empty_chunks": True})
    array[first : first + layout.shard_frames] = frames
    file, target = shard_path(task.temporary, task.shard), shard_path(task.store, task.shard)
    shard_bytes = file.stat().st_size
    put_in_place(file, target)
    record = ShardRecord(shard=task.shard, shard_bytes=shard_bytes, sequences=records, report=report)
    task.work.write_record(record)
