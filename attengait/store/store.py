"""A finished store in memory: what it holds, where, and how its sequences are read."""

import operator
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError
from attengait.sampling.selection import Spec, distinct, parse_subjects, parse_views, parse_walks, some_of
from attengait.store.frame_columns import NUMBERS, TIMES, read_frame_column
from attengait.store.layout import FrameLayout
from attengait.store.location import Location
from attengait.store.readers import open_reader
from attengait.store.readers.base import ClipReader, Frames
from attengait.store.readers.checked import CheckedReader
from attengait.store.sequences import Sequences, content_sha256
from attengait.system.lookup import check_name

Name = tuple[str, str, str]
"""Subject, walk and view, such as ("075", "nm-01", "090")."""
Rows = slice | list[int] | NDArray[Any]


class _Opened:
    """What a store opens when it is first needed; shared by all selections of its sequences."""

    def __init__(self) -> None:
        self.reader: ClipReader | None = None
        self.columns: dict[str, NDArray[Any] | None] = {}
        self.is_closed = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Store:
    """A finished store, or some of its sequences. `attengait.open_store` opens one.

    A store is a sequence of walks. What stands in the brackets says what is read:

        store[7]                         the images of sequence 7, uint8 [T, H, W, C]
        store[7, 10:40]                  30 of them, uint8 [30, H, W, C]
        store[7, 10]                     one of them, uint8 [H, W, C]
        store["075", "nm-01", "090"]     the images of the sequence of this subject, walk and view
        store[3:9], store[[3, 7]]        a store of these sequences; nothing is read yet

    Negative indices count from the end. An array is a copy that may be written. A store can be pickled, so it can be
    used in a torch Dataset: with spawned workers always, with forked ones where it is a folder on this machine. Many
    clips at a time are read faster through `reader()` or `attengait.ClipStream`.

    Raises IndexError where there is no such sequence or image, ParameterError for a name that there is not and for an
    index of another form, AttenGaitError for damaged files and for a store that is closed.

    >>> store = attengait.open_store("walkers.zarr")
    >>> store[0].shape == (int(store.sequences.length[0]), *store.frame_shape)
    True
    >>> len(store.select(views=["090"])) < len(store)
    True
    """

    location: Location
    attributes: dict[str, Any]
    """dataset, modality, encoding, recipe, versions, source; see docs/store.md."""
    layout: FrameLayout
    sequences: Sequences
    """Those of this store, or those that were selected."""
    whole: Sequences | None = field(default=None, repr=False)
    """All sequences of the files where some were selected, else None."""
    _opened: _Opened = field(default_factory=_Opened, init=False, repr=False)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.frame_shape))
        what = f"{len(self)} sequences, {self.num_frames} images of {size}"
        return f"Store({str(self.location)!r}, {what}{'' if self.whole is None else ', selected'})"

    def __len__(self) -> int:
        """Sequences."""
        return len(self.sequences)

    def __iter__(self) -> Iterator[Frames]:
        """The images of each sequence, uint8 [T, H, W, C]."""
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, key: int | Name | tuple[int, int | slice]) -> Frames: ...
    @overload
    def __getitem__(self, key: Rows) -> Self: ...
    def __getitem__(self, key: Any) -> Any:
        """See the class."""
        if isinstance(key, slice):
            return self._selected(np.arange(len(self))[key])
        if isinstance(key, (list, np.ndarray)) and np.ndim(key):
            return self._selected(_rows_of(key, len(self)))
        if isinstance(key, tuple) and len(key) == 3 and all(isinstance(part, str) for part in key):
            return self._read(self.index(*key), slice(None))
        row, part = key if isinstance(key, tuple) and len(key) == 2 else (key, slice(None))
        try:
            row, part = operator.index(row), part if isinstance(part, slice) else operator.index(part)
        except TypeError:
            raise ParameterError(
                f"index is {key!r}, but must be as in store[7], store[7, 10:40], store[3:9] or "
                "store['075', 'nm-01', '090']"
            ) from None
        row = _position(row, len(self), "sequence")
        if isinstance(part, slice):
            return self._read(row, part)
        image = _position(part, int(self.sequences.length[row]), f"image of sequence {row}")
        return self._read(row, slice(image, image + 1))[0]

    def index(self, subject: str, walk: str, view: str) -> int:
        """The position of the sequence of this subject, walk and view. Raises ParameterError where there is none."""
        rows = np.arange(len(self))
        whose = ""
        for what, name in (("subject", subject), ("walk", walk), ("view", view)):
            column = getattr(self.sequences, what)[rows]
            names = distinct(column)[0].tolist()
            check_name(names, name, what + whose, known_in_words=f"the {len(names)} that there are: {some_of(names)}")
            rows = rows[column == name]
            whose = f"{whose or ' of'} {name}"
        return int(rows[0])

    def select(self, *, subjects: Spec = (), walks: Spec = (), views: Spec = ()) -> Self:
        """A store of some of the sequences, in the same order; nothing is read.

        Args:
            subjects: names, numbers and ranges, such as "001-074"; empty means all.
            walks: names or kinds, such as "nm" or "nm-01"; empty means all.
            views: names, numbers and ranges, such as "000-090"; empty means all.

        Raises:
            ParameterError: something that is not understood or that matches nothing.
        """
        keep = np.ones(len(self), bool)
        for spec, column, what in (
            (subjects, self.sequences.subject, "subjects"),
            (walks, self.sequences.walk, "walks"),
            (views, self.sequences.view, "views"),
        ):
            # An empty list asks for all; an array or a number has a length of its own, or none.
            if not (isinstance(spec, Sized) and len(spec) == 0):
                names, codes = distinct(column)
                chosen = set(_PARSERS[what](spec, names.tolist()))
                keep &= np.array([name in chosen for name in names.tolist()], bool)[codes]
        return self._selected(np.flatnonzero(keep))

    def table(self) -> Any:
        """One row for each sequence: subject, walk, view, length in images, and the columns of the data set.

        Returns a pandas DataFrame where pandas is installed, else a dict of NumPy arrays [n] by name.
        """
        columns = {name: column for name, column in self.sequences.columns.items() if name not in ("start", "crc32c")}
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError:
            return columns
        return pandas.DataFrame({name: column.tolist() for name, column in columns.items()})

    def frame_numbers(self, index: int) -> NDArray[np.int64]:
        """Frame numbers of the images of a sequence, int64 [T], ascending.

        They are those of the files or of the video; files of other programs are counted from 1. Raises IndexError, and
        AttenGaitError for a store that keeps none, as those of version 0.1.0.
        """
        numbers = self._frame_column(NUMBERS, index)
        if numbers is None:
            raise AttenGaitError(f"{self.location} keeps no frame numbers: it was made by version 0.1.0")
        return numbers.astype(np.int64)

    def frame_times(self, index: int) -> NDArray[np.float64] | None:
        """Times of the images of a sequence in seconds from the beginning of its video, float64 [T].

        None where it did not come from a video. Raises IndexError, and AttenGaitError for damage.
        """
        times = self._frame_column(TIMES, index)
        return None if times is None or np.isnan(times).any() else times

    def reader(self, *, check_frames: bool = True) -> ClipReader:
        """The fastest reader for this store; close it after use.

        It checks the checksum of each sequence when it first reads a part of it, unless `check_frames` is false.

        Raises AttenGaitError for a store that is closed, and for a sequence that does not lie within one shard.
        """
        self._check_open()
        reader = open_reader(self.location, self.layout)
        if not check_frames:
            return reader
        return CheckedReader(reader, self.sequences if self.whole is None else self.whole, self.location, self.layout)

    def close(self) -> None:
        """Let go of all files; arrays that were read stay valid.

        The store cannot be read any more, nor can the stores of some of its sequences, or the one that it was selected
        from: they share their open files.
        """
        self._opened.is_closed = True
        self._opened.columns.clear()
        if self._opened.reader is not None:
            self._opened.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The folder of a store on this machine; AttenGaitError for one behind a URL."""
        if self.location.path is None:
            raise AttenGaitError(f"{self.location} is not a folder on this machine: copy the store to one first")
        return self.location.path

    @property
    def content_sha256(self) -> str:
        """Digest of the names, lengths and checksums of all sequences of the files, also of those not selected."""
        return content_sha256(self.sequences if self.whole is None else self.whole)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.layout.frame_shape

    @property
    def num_frames(self) -> int:
        """Images in all sequences; the array `frames` is longer, by the unused tails of its shards."""
        return int(self.sequences.length.sum())

    @property
    def chunk_frames(self) -> int:
        """Images in one chunk, the unit of compression."""
        return self.layout.chunk_frames

    @property
    def shard_frames(self) -> int:
        """Images in one shard file."""
        return self.layout.shard_frames

    @property
    def codec(self) -> str:
        """none, lz4 or zstd."""
        return self.layout.codec

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.location, self.attributes, self.layout, self.sequences, self.whole)

    def _selected(self, rows: NDArray[np.int64]) -> Self:
        selected = type(self)(
            location=self.location,
            attributes=self.attributes,
            layout=self.layout,
            sequences=self.sequences.select(rows),
            whole=self.sequences if self.whole is None else self.whole,
        )
        object.__setattr__(selected, "_opened", self._opened)
        return selected

    def _read(self, row: int, part: slice) -> Frames:
        start, stop, step = part.indices(int(self.sequences.length[row]))
        if step != 1:
            raise ParameterError(f"the step of the images is {step}, but must be 1")
        self._check_open()
        if stop <= start:
            return np.empty((0, *self.frame_shape), np.uint8)
        if self._opened.reader is None:
            self._opened.reader = self.reader()
        (frames,) = self._opened.reader.read_clips([int(self.sequences.start[row]) + start], [stop - start])
        return frames if frames.flags.writeable else frames.copy()

    def _frame_column(self, name: str, index: int) -> NDArray[Any] | None:
        row = _position(operator.index(index), len(self), "sequence")
        self._check_open()
        columns = self._opened.columns
        if name not in columns:
            columns[name] = read_frame_column(self.location, self.attributes, name, self.layout.num_frames)
        column = columns[name]
        start = int(self.sequences.start[row])
        return None if column is None else column[start : start + int(self.sequences.length[row])]

    def _check_open(self) -> None:
        if self._opened.is_closed:
            raise AttenGaitError(f"{self.location} was closed: open the store again to read from it")


_PARSERS: dict[str, Callable[[Spec, Sequence[str]], list[str]]] = {
    "subjects": parse_subjects,
    "walks": lambda spec, names: parse_walks(spec, names, what="walks"),
    "views": lambda spec, names: parse_views(spec, names, what="views"),
}


def _rebuild(
    location: Location,
    attributes: dict[str, Any],
    layout: FrameLayout,
    sequences: Sequences,
    whole: Sequences | None = None,
) -> Store:
    return Store(location=location, attributes=attributes, layout=layout, sequences=sequences, whole=whole)


def _position(index: int, count: int, what: str) -> int:
    """An index from the beginning or, where negative, from the end, as one from the beginning; else IndexError."""
    if not -count <= index < count:
        raise IndexError(f"{what} is {index}, but there are {count}")
    return index % count


def _rows_of(key: Any, count: int) -> NDArray[np.int64]:
    """Positions that a list or array asks for: a mask [n] or indices."""
    rows = np.asarray(key)
    if rows.dtype == bool and rows.shape == (count,):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ParameterError(
            f"index is {rows.dtype} {list(rows.shape)}, but must be bool [{count}] or a list of whole numbers"
        )
    return np.array([_position(row, count, "sequence") for row in rows.tolist()], np.int64)
