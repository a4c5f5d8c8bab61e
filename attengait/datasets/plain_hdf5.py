"""HDF5 files that are not trusted: only values that lie within the file itself are read, and not more than it can hold.

HDF5 can take the values of an array from any other file that the user may read, by external storage, external links
and virtual datasets. A file of 3 KB can claim an array of any size, as chunks that were never written count as zeros,
and a group can hold itself. So groups are walked with bounds, links are followed only within the file, and an array is
checked before it is read.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attengait.errors import AttenGaitError
from attengait.system.files import check_regular
from attengait.system.printable import printable

MAX_OBJECTS = 20_000
"""Groups and arrays of a file that are looked at. The largest published network has fewer than 2,000."""
MAX_DEPTH = 16
MAX_RATIO = 2_000
"""Bytes of an array for one byte of its chunks in the file: deflate gives at most 1,032, and a little is for lzf."""

_LARGE_CHUNK_BYTES = 64 << 20
"""A chunk is decompressed as a whole. A larger one is refused if it has room for more than the array."""

_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""By HDF5's numbers. Others need code that a user may have installed for quite other files."""


class PlainHdf5Error(AttenGaitError):
    """A file that is refused or damaged: one sentence that names it and the array."""


@contextmanager
def open_plain(path: str | Path) -> Iterator[Any]:
    """An h5py.File, for reading.

    Raises PlainHdf5Error where it is no regular file, or no whole HDF5 file; so do errors of h5py while it is used.
    """
    import h5py

    try:
        check_regular(path)
        with h5py.File(path, "r") as file:
            yield file
    except AttenGaitError:
        raise
    except OSError as error:
        if error.errno:
            raise PlainHdf5Error(f"{path} cannot be read: {error.strerror}") from None
        raise _damaged(path, error) from None
    # What h5py raises for damage depends on where it meets it.
    except (RuntimeError, LookupError, TypeError, ValueError, MemoryError, AttributeError) as error:
        raise _damaged(path, error) from None


def child(group: Any, name: str) -> Any:
    """The group or array `name` of a group, by a hard link; None where there is none.

    Raises PlainHdf5Error for a link by name: it may lead to another file, or in a circle.
    """
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        where = printable(f"{group.name.rstrip('/')}/{name}")
        raise PlainHdf5Error(f"{group.file.filename} is refused: {where} is a link to another place")
    return group.get(name)


def arrays(group: Any) -> Iterator[tuple[str, Any]]:
    """Every array in a group and those below, with its path from there. None is checked yet; see `check_array`.

    Raises PlainHdf5Error for links by name, and beyond MAX_OBJECTS and MAX_DEPTH.
    """
    import h5py

    todo = [("", group, 0)]
    num_objects = 0
    while todo:
        place, inner, depth = todo.pop()
        for name in inner:
            num_objects += 1
            if depth > MAX_DEPTH or num_objects > MAX_OBJECTS:
                raise PlainHdf5Error(
                    f"{group.file.filename} is refused: its groups hold too many others, or themselves"
                )
            found = child(inner, name)
            if isinstance(found, h5py.Dataset):
                yield f"{place}{name}", found
            elif isinstance(found, h5py.Group):
                todo.append((f"{place}{name}/", found, depth + 1))


def check_array(array: Any) -> None:
    """Raise PlainHdf5Error unless an array's values are numbers within the file, and as many as it can hold.

    Nothing is read or allocated for that but the places of its chunks.
    """
    import h5py

    path = array.file.filename
    name = f"{path} is refused: its array {printable(array.name, max_letters=100)}"
    if array.dtype.kind not in "biuf" or array.shape is None:
        raise PlainHdf5Error(f"{name} does not hold numbers")
    settings = array.id.get_create_plist()
    layout = settings.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise PlainHdf5Error(f"{name} takes its values from other arrays (a virtual dataset)")
    if settings.get_external_count():
        raise PlainHdf5Error(f"{name} takes its values from another file (external storage)")
    if layout not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise PlainHdf5Error(f"{name} is stored in an unknown layout")
    for i in range(settings.get_nfilters()):
        code = settings.get_filter(i)[0]
        if code not in _FILTERS:
            raise PlainHdf5Error(f"{name} has the filter {code}, not one of {', '.join(_FILTERS.values())}")
    size_bytes = math.prod(array.shape) * array.dtype.itemsize
    stored_bytes, file_bytes = array.id.get_storage_size(), os.stat(path).st_size
    chunk_bytes = math.prod(array.chunks or ()) * array.dtype.itemsize
    ratio = MAX_RATIO if settings.get_nfilters() else 1
    if chunk_bytes > max(size_bytes, _LARGE_CHUNK_BYTES):
        raise PlainHdf5Error(f"{name} of {size_bytes:,} bytes has chunks of {chunk_bytes:,} bytes")
    if stored_bytes > file_bytes or not _is_whole(array) or size_bytes > ratio * stored_bytes:
        raise PlainHdf5Error(
            f"{name} of shape {list(array.shape)} needs {size_bytes:,} bytes, of which the file of {file_bytes:,} "
            f"bytes holds {stored_bytes:,}"
        )


def _is_whole(array: Any) -> bool:
    """Whether all values were written: what was not counts as zeros, and no published file has such."""
    if array.chunks is None:
        size_bytes: int = math.prod(array.shape) * array.dtype.itemsize
        return bool(array.id.get_storage_size() == size_bytes)
    chunks = zip(array.shape, array.chunks, strict=True)
    return bool(array.id.get_num_chunks() == math.prod(-(-length // chunk) for length, chunk in chunks))


def _damaged(path: str | Path, error: Exception) -> PlainHdf5Error:
    return PlainHdf5Error(f"{path} is damaged or no readable HDF5 file: {printable(error, max_letters=200)}")
