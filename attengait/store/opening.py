"""Opening a finished store, with one sentence for everything that may be wrong with it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.frame_columns import NUMBERS, TIMES, read_frame_column
from attengait.store.layout import FORMAT, VERSION, FrameLayout, frame_layout
from attengait.store.location import Location, Where
from attengait.store.readers import open_reader
from attengait.store.readers.base import ClipReader
from attengait.store.sequences import Sequences, array_in, read_files, read_sequences
from attengait.store.workfolder import progress_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A finished store: what it holds and where.

    `store[i]` are the frames of sequence i, uint8 [T, H, W, C], and `store[i, 10:40]` those of a part of it, as an
    array of one's own. So a store, which can be pickled, serves inside a torch Dataset: in spawned workers always, in
    forked ones where it is a folder on this machine. Many clips at a time are read faster through `reader()`.
    """

    location: Location
    attributes: dict[str, Any]
    """dataset, modality, encoding, recipe, versions, source; see the README."""
    layout: FrameLayout
    sequences: Sequences
    _readers: list[ClipReader] = field(default_factory=list, init=False, repr=False, compare=False)
    _columns: dict[str, NDArray[Any] | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        """Sequences."""
        return len(self.sequences)

    def __getitem__(self, key: int | tuple[int, slice]) -> NDArray[np.uint8]:
        """Frames of a sequence.

        Raises IndexError, ParameterError for a step other than 1, AttenGaitError for damage.
        """
        index, part = key if isinstance(key, tuple) else (key, slice(None))
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        start, stop, step = part.indices(int(self.sequences.length[index]))
        if step != 1:
            raise ParameterError(f"the step of the frames is {step}, but must be 1")
        if stop <= start:
            return np.empty((0, *self.frame_shape), np.uint8)
        if not self._readers:
            self._readers.append(self.reader())
        (frames,) = self._readers[0].read_clips([int(self.sequences.start[index]) + start], [stop - start])
        return frames if frames.flags.writeable else frames.copy()

    def frame_numbers(self, index: int) -> NDArray[np.int64]:
        """Frame numbers of the pictures of a sequence, int64 [T], ascending.

        They are those of the files or of the video; files of other programs are counted from 1. Raises IndexError, and
        AttenGaitError for a store that keeps none, as those of version 0.1.0.
        """
        numbers = self._frame_column(NUMBERS, index)
        if numbers is None:
            raise AttenGaitError(f"{self.location} keeps no frame numbers: it was made by version 0.1.0")
        return numbers.astype(np.int64)

    def frame_times(self, index: int) -> NDArray[np.float64] | None:
        """Times of the pictures of a sequence in seconds from the beginning of its video, float64 [T].

        None where it did not come from a video. Raises IndexError, and AttenGaitError for damage.
        """
        times = self._frame_column(TIMES, index)
        return None if times is None or np.isnan(times).any() else times

    def _frame_column(self, name: str, index: int) -> NDArray[Any] | None:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        if name not in self._columns:
            self._columns[name] = read_frame_column(self.location, name, self.layout.num_frames)
        column = self._columns[name]
        start = int(self.sequences.start[index])
        return None if column is None else column[start : start + int(self.sequences.length[index])]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.location, self.attributes, self.layout, self.sequences)

    @property
    def path(self) -> Path:
        """The folder of a store on this machine; AttenGaitError for one behind a URL."""
        if self.location.path is None:
            raise AttenGaitError(f"{self.location} is not a folder on this machine: copy the store to one first")
        return self.location.path

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.layout.frame_shape

    @property
    def num_frames(self) -> int:
        """Frames in all sequences; the array `frames` is longer, by the unused tails of its shards."""
        return int(self.sequences.length.sum())

    @property
    def chunk_frames(self) -> int:
        """Frames in one chunk, the unit of compression."""
        return self.layout.chunk_frames

    @property
    def shard_frames(self) -> int:
        """Frames in one shard file."""
        return self.layout.shard_frames

    @property
    def codec(self) -> str:
        """none, lz4 or zstd."""
        return self.layout.codec

    def reader(self) -> ClipReader:
        """The fastest reader for this store; close it after use."""
        return open_reader(self.location, self.layout)


def _rebuild(location: Location, attributes: dict[str, Any], layout: FrameLayout, sequences: Sequences) -> Store:
    return Store(location=location, attributes=attributes, layout=layout, sequences=sequences)


def is_finished(where: Where) -> bool:
    """Whether there is a finished store, of any version; AttenGaitError when a server does not answer."""
    location = Location.parse(where)
    try:
        data = location.read("zarr.json")
    except AttenGaitError:
        if location.is_remote:
            raise
        return False
    try:
        return data is not None and _root_attributes(location, data).get("format") == FORMAT
    except AttenGaitError:
        return False


def open_store(where: Where) -> Store:
    """Open a finished store: a folder, or an s3://, gs://, http:// or https:// URL.

    From a server a fixed number of small files is read, whatever the size of the store. Raises AttenGaitError when
    there is none, when it is not finished, of another version, not ours, or damaged in its metadata or columns, and
    when a server cannot be reached. Frames are not looked at: see `verify`.
    """
    location = Location.parse(where)
    head = read_files(location, ["zarr.json", "frames/zarr.json"])
    if "zarr.json" not in head:
        raise _nothing_there(location)
    attributes = _root_attributes(location, head["zarr.json"])
    if attributes.get("format") != FORMAT:
        raise AttenGaitError(f"{location} is a Zarr group, but not an AttenGait store (its format is not {FORMAT!r})")
    if attributes.get("version") != VERSION:
        raise AttenGaitError(
            f"{location} is a store of version {attributes.get('version')}, but this attengait reads version {VERSION}"
        )
    try:
        layout = frame_layout(array_in(head, "frames"))
    except AttenGaitError as error:
        raise AttenGaitError(f"{location}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AttenGaitError(f"{location}: the array frames cannot be opened: {error}") from error
    return Store(
        location=location,
        attributes=attributes,
        layout=layout,
        sequences=read_sequences(location, _own_columns(location, attributes)),
    )


def _own_columns(location: Location, attributes: dict[str, Any]) -> list[str]:
    """Names of the columns that the data set added."""
    names = attributes.get("columns", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AttenGaitError(f"{location}: the attribute columns is {names!r}, but must be a list of names")
    return names


def _nothing_there(location: Location) -> AttenGaitError:
    """What to say where there is no zarr.json."""
    progress = progress_of(location)
    if progress is not None:
        return AttenGaitError(
            f"{location} is not finished ({progress[0]} of {progress[1]} shards): "
            "run the command that began it again to continue"
        )
    if location.path is None:
        if location.lacks_bucket():
            return AttenGaitError(f"{location} does not exist: there is no such bucket")
        return AttenGaitError(f"{location} is not a store: there is no {location / 'zarr.json'}")
    if location.path.is_file():
        return AttenGaitError(f"{location} is a file, but a store is a folder")
    if not location.path.exists():
        return AttenGaitError(f"{location} does not exist")
    return AttenGaitError(f"{location} is not a store: it has no zarr.json")


def _root_attributes(location: Location, data: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(data)
    except ValueError as error:
        raise AttenGaitError(f"{location / 'zarr.json'} is damaged: {error}") from error
    attributes = metadata.get("attributes") if isinstance(metadata, dict) else None
    if not isinstance(attributes, dict) or metadata.get("node_type") != "group":
        raise AttenGaitError(f"{location} is not a Zarr v3 group")
    return attributes
