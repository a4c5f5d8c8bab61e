"""The columns of a store: for each sequence, who walks, and where its images are in `frames`. One Zarr array per
column in the group `sequences`.

The six columns of `DTYPES` are in every store. A data set may add its own, such as camera, clothing or date. The
attribute `columns` of the store names them.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numcodecs.vlen
import numcodecs.zstd
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.location import Location
from attengait.store.metadata import MAX_COLUMN_BYTES, MAX_METADATA_BYTES, parse_column
from attengait.store.packed import zstd_content_bytes

DTYPES: dict[str, Any] = {
    "subject": np.dtypes.StringDType(),
    "walk": np.dtypes.StringDType(),
    "view": np.dtypes.StringDType(),
    "start": np.dtype("int64"),
    "length": np.dtype("int64"),
    "crc32c": np.dtype("uint32"),
}


EXTRA_DTYPES: dict[type, Any] = {str: np.dtypes.StringDType(), int: np.dtype("int64"), float: np.dtype("float64")}
"""What a data set's own columns may hold."""
_VLEN_UTF8 = numcodecs.vlen.VLenUTF8()


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRecord:
    """One sequence of a store."""

    subject: str
    walk: str
    view: str
    start: int
    """Absolute index of the first frame."""
    length: int
    """Frames."""
    crc32c: int
    """CRC-32C of the frames' bytes in C order."""
    columns: dict[str, str | int | float] = field(default_factory=dict)
    """The data set's own."""
    number_runs: list[list[int]] = field(default_factory=list)
    """The frame numbers of its pictures as runs of [first, count] (attengait.store.frame_columns)."""
    times_seconds: list[float] | None = None
    """The times of its pictures, where they came from a video."""

    @property
    def name(self) -> str:
        """Such as 001/nm-01/090."""
        return f"{self.subject}/{self.walk}/{self.view}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """All sequences of a store, in order of start: numpy columns of one length."""

    subject: NDArray[Any]
    """str"""
    walk: NDArray[Any]
    """str, such as nm-01"""
    view: NDArray[Any]
    """str, such as 090"""
    start: NDArray[np.int64]
    """Absolute index of the first frame."""
    length: NDArray[np.int64]
    """Frames."""
    crc32c: NDArray[np.uint32]
    """CRC-32C of the frames' bytes in C order."""
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """The data set's own columns by name: str, int64 or float64."""

    def __len__(self) -> int:
        return len(self.start)

    def name(self, index: int) -> str:
        """Such as 001/nm-01/090."""
        return f"{self.subject[index]}/{self.walk[index]}/{self.view[index]}"

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """All columns by name, the data set's own ones last."""
        return {name: getattr(self, name) for name in DTYPES} | dict(self.extra)

    def select(self, rows: NDArray[Any]) -> "Sequences":
        """Those that `rows` picks: a boolean mask [n] or indices."""
        return Sequences(
            **{name: getattr(self, name)[rows] for name in DTYPES},
            extra={name: column[rows] for name, column in self.extra.items()},
        )


def columns_of(records: Sequence[SequenceRecord]) -> Sequences:
    """Records as columns; all must have the same ones."""
    own = list(records[0].columns) if records else []
    extra = {name: [record.columns[name] for record in records] for name in own}
    return Sequences(
        **{name: np.array([getattr(r, name) for r in records], dtype) for name, dtype in DTYPES.items()},
        extra={name: np.array(values, EXTRA_DTYPES[type(values[0])]) for name, values in extra.items()},
    )


def check_columns(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise ParameterError where the data set's own columns are not the same for all sequences, or cannot be kept."""
    if not rows:
        return
    kinds = {name: type(value) for name, value in rows[0].items()}
    for name, kind in kinds.items():
        if name in DTYPES or not re.fullmatch(r"[a-z][a-z0-9_]*", name, re.ASCII):
            raise ParameterError(f"column is {name!r}, but must be a new name of letters, digits and _, such as camera")
        if kind not in EXTRA_DTYPES:
            raise ParameterError(f"column {name} holds {kind.__name__}, but must hold str, int or float")
    for row in rows:
        if {name: type(value) for name, value in row.items()} != kinds:
            raise ParameterError(
                f"columns of a sequence are {dict(row)}, but must be {', '.join(kinds) or 'none'} of the same types as "
                "the first sequence has"
            )


def content_sha256(sequences: Sequences) -> str:
    """Digest over every sequence's name, length and checksum."""
    columns = (getattr(sequences, name).tolist() for name in ("subject", "walk", "view", "length", "crc32c"))
    digest = hashlib.sha256()
    for subject, walk, view, length, crc32c in zip(*columns, strict=True):
        digest.update(f"{subject}/{walk}/{view} {length} {crc32c}\n".encode())
    return digest.hexdigest()


def write_sequences(group: zarr.Group, sequences: Sequences) -> None:
    """Create the columns in an empty group; each is one chunk that ends in its CRC-32C."""
    for name, column in sequences.columns.items():
        write_column(group, name, column)


def write_column(group: zarr.Group, name: str, column: NDArray[Any]) -> None:
    """Create a column, one chunk that ends in its CRC-32C."""
    array = group.create_array(
        name,
        shape=column.shape,
        dtype=column.dtype,
        chunks=(max(1, len(column)),),
        compressors=(ZstdCodec(level=3), Crc32cCodec()),
        config={"write_empty_chunks": True},
    )
    array[:] = column


def read_sequences(location: Location, extra: Sequence[str] = ()) -> Sequences:
    """Read the columns of a store and those that the data set added, `extra`.

    All files are requested at once: two for each column, whatever the number of sequences. Raises AttenGaitError,
    naming the column that is missing or damaged.
    """
    wanted: dict[str, tuple[Any, ...]] = {name: (dtype,) for name, dtype in DTYPES.items()}
    wanted |= {name: tuple(EXTRA_DTYPES.values()) for name in extra}
    files = read_column_files(location, [f"sequences/{name}" for name in wanted])
    columns = {name: read_column(location, files, f"sequences/{name}", dtypes) for name, dtypes in wanted.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise AttenGaitError(f"{location}: the columns of sequences differ in length: {lengths}")
    return Sequences(**{name: columns[name] for name in DTYPES}, extra={name: columns[name] for name in extra})


def read_column_files(location: Location, paths: Sequence[str]) -> dict[str, bytes]:
    """The files of columns, by key, without those that do not exist; all are requested at once."""
    limits = {f"{path}/zarr.json": MAX_METADATA_BYTES for path in paths}
    limits |= {f"{path}/c/0": MAX_COLUMN_BYTES for path in paths}
    return read_files(location, limits)


def read_column(location: Location, files: Mapping[str, bytes], path: str, dtypes: tuple[Any, ...]) -> NDArray[Any]:
    """The column at `path` among files that were read already, of one of some types.

    Raises AttenGaitError, naming the column, where it is missing or damaged, or claims to be larger than its file says.
    """
    metadata, values = f"{path}/zarr.json", f"{path}/c/0"
    if metadata not in files:
        raise AttenGaitError(f"{location}: the column {path} cannot be read: its zarr.json is missing")
    dtype, length = parse_column(location / metadata, files[metadata], dtypes)
    if values not in files:
        raise AttenGaitError(f"{location}: the column {path} cannot be read: its values are missing")
    try:
        return _unpack(files[values], dtype, length)
    except (ValueError, RuntimeError, MemoryError) as error:
        raise AttenGaitError(f"{location}: the column {path} cannot be read: {error}") from error


def _unpack(data: bytes, dtype: Any, length: int) -> NDArray[Any]:
    """The values of a column's one chunk; raises ValueError or RuntimeError for damage."""
    packed, checksum = data[:-4], data[-4:]
    if len(data) < 4 or google_crc32c.value(packed) != int.from_bytes(checksum, "little"):
        raise ValueError("its values fail their checksum")
    num_bytes = zstd_content_bytes(packed)
    is_text = isinstance(dtype, np.dtypes.StringDType)
    fits = num_bytes >= 4 + 4 * length if is_text else num_bytes == length * np.dtype(dtype).itemsize
    if not fits or num_bytes > MAX_COLUMN_BYTES:
        raise ValueError(f"its values are {num_bytes} bytes, which is not what {length} entries take")
    plain = bytes(numcodecs.zstd.decompress(packed))
    if len(plain) != num_bytes:
        raise ValueError(f"its values are {len(plain)} bytes instead of {num_bytes}")
    if not is_text:
        return np.frombuffer(plain, np.dtype(dtype).newbyteorder("<")).astype(dtype)
    if int.from_bytes(plain[:4], "little") != length:
        raise ValueError(f"it has {int.from_bytes(plain[:4], 'little')} entries instead of {length}")
    return np.array(_VLEN_UTF8.decode(plain), dtype)


def read_files(location: Location, limits: Mapping[str, int]) -> dict[str, bytes]:
    """The contents of files of a store, by key, without those that do not exist; `limits` gives their most bytes.

    Raises AttenGaitError, naming the file, for one that cannot be read or is larger.
    """
    found = zip(limits, location.read_all([(key, None) for key in limits], list(limits.values())), strict=True)
    return {key: data for key, data in found if data is not None}
