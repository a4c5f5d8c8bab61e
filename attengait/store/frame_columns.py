"""The columns beside `frames`: for each picture the number of its frame, and its time where it came from a video.

    STORE.zarr/frame_numbers    int32 [F]; -1 in the unused tails of shards
    STORE.zarr/frame_times      float64 [F], seconds from the beginning of the video; NaN where there is no time. It is
                                left out where no picture has one.

F is that of `frames`. Each is one chunk, like the columns of `sequences`. Stores of version 0.1.0 have neither.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.store.digest import check_frame_column
from attengait.store.location import Location
from attengait.store.sequences import SequenceRecord, read_column, read_column_files, write_column

NUMBERS, TIMES = "frame_numbers", "frame_times"
NO_NUMBER = -1
_DTYPES: dict[str, Any] = {NUMBERS: np.dtype("int32"), TIMES: np.dtype("float64")}


def to_runs(numbers: Sequence[int] | NDArray[np.int64]) -> list[list[int]]:
    """Numbers as runs of [first, count]: mostly they follow one another. See `from_runs`."""
    values = np.asarray(numbers, np.int64)
    begins = np.flatnonzero(np.diff(values, prepend=values[:1] - 2) != 1)
    counts = np.diff(np.append(begins, len(values)))
    return [list(pair) for pair in zip(values[begins].tolist(), counts.tolist(), strict=True)]


def from_runs(runs: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """The numbers [n] that `to_runs` made runs of."""
    parts = [np.arange(first, first + count, dtype=np.int64) for first, count in runs]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def write_frame_columns(group: zarr.Group, rows: Sequence[SequenceRecord], num_frames: int) -> dict[str, NDArray[Any]]:
    """Create the columns of a store with these sequences in a group that lacks them; returns them by name."""
    numbers = np.full(num_frames, NO_NUMBER, _DTYPES[NUMBERS])
    times = np.full(num_frames, np.nan)
    for row in rows:
        place = slice(row.start, row.start + row.length)
        numbers[place] = from_runs(row.number_runs)
        if row.times_seconds is not None:
            times[place] = row.times_seconds
    write_column(group, NUMBERS, numbers)
    if np.isnan(times).all():
        return {NUMBERS: numbers}
    write_column(group, TIMES, times)
    return {NUMBERS: numbers, TIMES: times}


def read_frame_column(
    location: Location, attributes: Mapping[str, Any], name: str, num_frames: int
) -> NDArray[Any] | None:
    """The column `frame_numbers` (int32 [F]) or `frame_times` (float64 [F]) of a store; None where it has none.

    Raises AttenGaitError where it is damaged, or is not the one that the digest in the store's attributes is of.
    """
    return frame_column(location, attributes, read_column_files(location, [name]), name, num_frames)


def frame_column(
    location: Location, attributes: Mapping[str, Any], files: Mapping[str, bytes], name: str, num_frames: int
) -> NDArray[Any] | None:
    """What `read_frame_column` returns, out of the column's files."""
    column = read_column(location, files, name, (_DTYPES[name],)) if files else None
    if column is not None and len(column) != num_frames:
        raise AttenGaitError(f"{location}: the column {name} has {len(column)} entries, but must have {num_frames}")
    check_frame_column(str(location), attributes, name, column)
    return column
