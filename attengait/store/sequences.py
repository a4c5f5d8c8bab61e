"""The columns of a store: whose walk lies where in `frames`. One Zarr array per column in the group `sequences`."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import cpu
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from attengait.errors import AttenGaitError
from attengait.store.location import Location

DTYPES: dict[str, Any] = {
    "subject": np.dtypes.StringDType(),
    "walk": np.dtypes.StringDType(),
    "view": np.dtypes.StringDType(),
    "start": np.dtype("int64"),
    "length": np.dtype("int64"),
    "crc32c": np.dtype("uint32"),
}


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

    def __len__(self) -> int:
        return len(self.start)

    def name(self, index: int) -> str:
        """Such as 001/nm-01/090."""
        return f"{self.subject[index]}/{self.walk[index]}/{self.view[index]}"


def columns_of(records: Sequence[SequenceRecord]) -> Sequences:
    """Records as columns."""
    return Sequences(**{name: np.array([getattr(r, name) for r in records], dtype) for name, dtype in DTYPES.items()})


def content_sha256(sequences: Sequences) -> str:
    """Digest over every sequence's name, length and checksum."""
    columns = (getattr(sequences, name).tolist() for name in ("subject", "walk", "view", "length", "crc32c"))
    digest = hashlib.sha256()
    for subject, walk, view, length, crc32c in zip(*columns, strict=True):
        digest.update(f"{subject}/{walk}/{view} {length} {crc32c}\n".encode())
    return digest.hexdigest()


def write_sequences(group: zarr.Group, sequences: Sequences) -> None:
    """Create the columns in an empty group; each is one chunk that ends in its CRC-32C."""
    for field in fields(sequences):
        column = getattr(sequences, field.name)
        array = group.create_array(
            field.name,
            shape=column.shape,
            dtype=column.dtype,
            chunks=(max(1, len(column)),),
            compressors=(ZstdCodec(level=3), Crc32cCodec()),
            config={"write_empty_chunks": True},
        )
        array[:] = column


def read_sequences(location: Location) -> Sequences:
    """Read the columns of a store; raises AttenGaitError, naming the column that is missing or damaged.

    Their files are asked for all at once: two of each column, however many sequences there are.
    """
    columns: dict[str, Any] = {}
    files = read_files(location, [f"sequences/{name}/{file}" for name in DTYPES for file in ("zarr.json", "c/0")])
    for name, dtype in DTYPES.items():
        try:
            array = array_in(files, f"sequences/{name}")
            if array.shape > array.chunks:
                raise ValueError(f"it has chunks of {array.chunks}, but must be one")
            if array.size and f"sequences/{name}/c/0" not in files:
                raise OSError("its values are missing")
            columns[name] = np.asarray(array[:])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise AttenGaitError(f"{location}: the column sequences/{name} cannot be read: {error}") from error
        if columns[name].dtype != dtype or columns[name].ndim != 1:
            raise AttenGaitError(
                f"{location}: the column sequences/{name} is {columns[name].dtype}, but must be {dtype}"
            )
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise AttenGaitError(f"{location}: the columns of sequences differ in length: {lengths}")
    return Sequences(**columns)


def read_files(location: Location, keys: Sequence[str]) -> dict[str, bytes]:
    """Those of some files of a store that are there, by key."""
    found = zip(keys, location.read_all([(key, None) for key in keys]), strict=True)
    return {key: data for key, data in found if data is not None}


def array_in(files: Mapping[str, bytes], path: str) -> zarr.Array[Any]:
    """The array at `path` among files that were read already; raises what zarr-python does for damaged ones."""
    return zarr.open_array(
        MemoryStore({key: cpu.Buffer.from_bytes(data) for key, data in files.items()}, read_only=True),
        path=path,
        mode="r",
        zarr_format=3,
    )
