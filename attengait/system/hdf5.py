"""HDF5 files that others bring: only numbers that lie in the file itself are read, and no more than the file can hold.

An HDF5 file can say that its values lie in any other file of the user's: by external storage, by external links, by
virtual datasets. It can claim a shape of any size, compress a gigabyte of zeros into a megabyte, name filters that are
programs of their own, and link groups in a circle. All that is refused here, before values are read. What is left is
compact, contiguous and chunked storage, plain or with gzip, lzf, shuffle and fletcher32.

h5py is an extra: it is imported when a file is opened.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attengait.errors import AttenGaitError
from attengait.system.files import check_regular
from attengait.system.printable import printable

if TYPE_CHECKING:
    import h5py

MAX_BYTES = 4 << 30
"""Of one dataset, which must fit into memory: 350,000 pictures of 64 x 64 x 3."""
MAX_OBJECTS = 10_000
"""Of one file's groups and datasets; the weights of AttenGait have some 700."""
MAX_DEPTH = 16
"""Of groups in groups; Keras needs 4."""
_GZIP_RATIO = 1032
"""Deflate cannot compress better."""
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_OVERHEAD_BYTES = 4096

_FAULTS = (OSError, RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, MemoryError)
"""What h5py raises at a damaged file."""


class Hdf5RefusedError(AttenGaitError):
    """An HDF5 file that asks for what is not in it, or for more than it can hold."""


@contextmanager
def open_hdf5(path: str | Path) -> Iterator["h5py.File"]:
    """Open a regular file for reading. Whatever h5py raises meanwhile becomes an AttenGaitError that names the file."""
    import h5py

    try:
        check_regular(path)
    except OSError as error:
        raise AttenGaitError(f"{printable(path)} cannot be read: {error.strerror or error}") from None
    try:
        with h5py.File(path, "r") as file:
            yield file
    except _FAULTS as error:
        what = printable(str(error) or type(error).__name__)
        raise AttenGaitError(f"{printable(path)} is damaged or not a readable HDF5 file: {what}") from None


def member(group: "h5py.Group", name: str) -> Any:
    """The group or dataset of that name, None where there is none; Hdf5RefusedError for a link to elsewhere."""
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        kind = "an external" if isinstance(link, h5py.ExternalLink) else "a soft"
        raise _refused(group, name, f"is {kind} link, but must lie in the file itself")
    return group[name]


def datasets(group: "h5py.Group") -> Iterator[tuple[str, "h5py.Dataset"]]:
    """Every dataset of a group and of those in it, with its path from there; they are not checked.

    Raises Hdf5RefusedError for links to elsewhere, and where there are more objects, or deeper groups, than a file of
    weights has: groups may hold themselves.
    """
    import h5py

    num_objects = 0
    waiting: list[tuple[str, h5py.Group, int]] = [("", group, 1)]
    while waiting:
        prefix, present, depth = waiting.pop()
        for name in present:
            num_objects += 1
            if num_objects > MAX_OBJECTS:
                raise _refused(present, name, f"is one of more than {MAX_OBJECTS:,} objects")
            found = member(present, name)
            if isinstance(found, h5py.Dataset):
                yield f"{prefix}{name}", found
            elif isinstance(found, h5py.Group):
                if depth >= MAX_DEPTH:
                    raise _refused(present, name, f"is a group more than {MAX_DEPTH} deep in others")
                waiting.append((f"{prefix}{name}/", found, depth + 1))


def check_numbers(dataset: "h5py.Dataset") -> None:
    """Raise Hdf5RefusedError unless a dataset's numbers all lie in the file itself, in a size that is possible."""
    import h5py

    if dataset.dtype.kind not in "biuf":
        raise _refused(dataset, "", f"holds {printable(dataset.dtype, max_letters=40)}, not numbers")
    if dataset.is_virtual or dataset.external:
        kind = "a virtual dataset" if dataset.is_virtual else "kept in other files (external storage)"
        raise _refused(dataset, "", f"is {kind}, but must lie in the file itself")
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if layout not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise _refused(dataset, "", "has an unknown layout, not compact, contiguous or chunked")
    for i in range(properties.get_nfilters()):
        number, *_, name = properties.get_filter(i)
        if number not in _FILTERS:
            what = printable(name.decode(errors="replace"), max_letters=40)
            raise _refused(dataset, "", f"needs the filter {number} ({what}), not only {', '.join(_FILTERS.values())}")
    num_bytes = math.prod(dataset.shape) * dataset.dtype.itemsize
    if num_bytes > MAX_BYTES:
        raise _refused(dataset, "", f"has {num_bytes:,} bytes, but at most {MAX_BYTES:,} are read")
    if layout == h5py.h5d.CHUNKED:
        _check_chunks(dataset)
    elif layout == h5py.h5d.CONTIGUOUS and num_bytes:
        offset = dataset.id.get_offset()
        if offset is None or offset + num_bytes > _file_bytes(dataset):
            raise _refused(dataset, "", f"claims {num_bytes:,} bytes that are not in the file")


def _check_chunks(dataset: "h5py.Dataset") -> None:
    """That every chunk is there: those that are missing would be read as zeros."""
    wanted = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    file_bytes = _file_bytes(dataset)
    # Each chunk needs a byte, and is unpacked into memory as a whole.
    if wanted > file_bytes or chunk_bytes > min(MAX_BYTES, _GZIP_RATIO * file_bytes):
        raise _refused(
            dataset, "", f"claims {wanted:,} chunks of {chunk_bytes:,} bytes, which {file_bytes:,} cannot hold"
        )
    num_chunks = dataset.id.get_num_chunks()
    if num_chunks != wanted:
        raise _refused(dataset, "", f"has {num_chunks:,} chunks, but must have {wanted:,}")
    stored_bytes = 0

    def count(chunk: Any) -> None:
        nonlocal stored_bytes
        stored_bytes += chunk.size
        # Whatever a chunk unpacks to, HDF5 unpacks it.
        if chunk.size > chunk_bytes + chunk_bytes // 8 + _OVERHEAD_BYTES or chunk.byte_offset + chunk.size > file_bytes:
            raise _refused(dataset, "", f"has a chunk of {chunk.size:,} bytes that is not in the file, or too large")

    dataset.id.chunk_iter(count)
    if stored_bytes > file_bytes or wanted * chunk_bytes > _GZIP_RATIO * stored_bytes:
        raise _refused(
            dataset, "", f"claims {wanted * chunk_bytes:,} bytes in {stored_bytes:,}, which no compression can do"
        )


def _file_bytes(item: Any) -> int:
    return os.stat(item.file.filename).st_size


def _refused(place: Any, name: str, why: str) -> Hdf5RefusedError:
    path = f"{(place.name or '').rstrip('/')}/{name}".rstrip("/").lstrip("/")
    return Hdf5RefusedError(f"{printable(place.file.filename)} is refused: its {printable(path)} {why}")
