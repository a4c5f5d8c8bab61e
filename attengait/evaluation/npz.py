"""Plain arrays of an `.npz` file that a stranger may have written or a disk damaged.

`numpy.load` trusts such a file: it allocates what a header claims, does not check the CRC of what it leaves unread, and
lets errors of the zip file's and the header's parsers out as they are. Here every size is compared with the bytes that
are there before anything is allocated, each array is read to its end, where its CRC is checked, and whatever is wrong
is an NpzError.
"""

import ast
import errno
import logging
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from attengait.system.files import open_regular

_log = logging.getLogger(__name__)

MOST_LETTERS = 1024
"""Of one text in an array."""
_MOST_UNPACKED_BYTES = 2**30
_MOST_SHRUNK = 200
"""More than a gibibyte is not unpacked from an array that is compressed to less than a 200th: real features are not."""
_MOST_HEADER_BYTES = 10_000
_MOST_AXES = 8
_READ_BYTES = 2**20
_MAGIC = b"\x93NUMPY"
_LENGTHS = {1: "<H", 2: "<I", 3: "<I"}
_DTYPE = re.compile(r"[<>=|]?(?:[biufU]\d{1,9}|\?)", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SURROGATES = (0xD800, 0xDFFF)
_MOST_CODE_POINT = 0x10FFFF
_DAMAGE = (
    ValueError,  # with UnicodeDecodeError
    TypeError,
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,  # with NotImplementedError and RecursionError
    SyntaxError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class NpzError(Exception):
    """The file is damaged, or holds something else than plain arrays. Its text continues a sentence about the file."""


def read_arrays(path: Path, wanted: Iterable[str], *, prefix: str | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of these names that the file has, and those whose names begin with `prefix`: numbers and text.

    What follows the prefix must be a name such as Camera_2. The log says which arrays are left out for theirs.

    Raises NpzError, or OSError where the file cannot be read at all.
    """
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = [info.filename for info in archive.infolist()]
                names = [*wanted, *_beginning_with(prefix, members, path)]
                counts = {name: members.count(f"{name}.npy") for name in names}
                if twice := [name for name, count in counts.items() if count > 1]:
                    raise NpzError(f"hold {twice[0]} twice")
                size = os.fstat(file.fileno()).st_size
                return {name: _read(archive, name, size) for name, count in counts.items() if count}
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the file's beginning
                raise
            raise NpzError(
                "are damaged or not an .npz of plain arrays (numbers and text, no Python objects)"
            ) from error


def check_readable(name: str, array: NDArray[Any], *, prefix: str = "") -> None:
    """Raise NpzError unless `read_arrays` would read this array from a file that `numpy.savez` writes."""
    if not _NAME.fullmatch(name.removeprefix(prefix)):
        raise NpzError(f"hold {name}, whose name must be of letters, digits and _ after {prefix!r}")
    if not _DTYPE.fullmatch(array.dtype.str):
        raise NpzError(f"hold {name}, which is {array.dtype}, but must be numbers or text")
    _check_letters(name, array.dtype)
    if array.dtype.kind == "U":
        try:
            _check_text(_code_points(np.ascontiguousarray(array).reshape(-1), array.dtype))
        except ValueError:
            raise NpzError(f"hold {name}, whose texts are not all Unicode") from None


def _beginning_with(prefix: str | None, members: Iterable[str], path: Path) -> list[str]:
    """The names of arrays, each once, that can be names of columns behind the prefix."""
    if prefix is None:
        return []
    names = [name.removesuffix(".npy") for name in dict.fromkeys(members) if name.startswith(prefix)]
    known = [name for name in names if _NAME.fullmatch(name.removeprefix(prefix))]
    if others := [name for name in names if name not in known]:
        _log.warning(
            "%s: %s are not read: what follows %s must be of letters, digits and _", path, ", ".join(others), prefix
        )
    return known


def _read(archive: zipfile.ZipFile, name: str, file_bytes: int) -> NDArray[Any]:
    info = archive.getinfo(f"{name}.npy")
    if info.compress_size > file_bytes:
        raise ValueError("more than the file")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"compression {info.compress_type}")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise ValueError("sizes that differ")
    if info.file_size > max(_MOST_UNPACKED_BYTES, _MOST_SHRUNK * info.compress_size):
        raise NpzError(
            f"hold {name}, which would take {info.file_size:,} bytes of {info.compress_size:,} compressed ones"
        )
    with archive.open(info) as member:
        shape, dtype, is_fortran = _read_header(member)
        begin = member.tell()
        _check_letters(name, dtype)
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes != info.file_size - begin:
            raise NpzError(
                f"hold {name} of shape {list(shape)} and {dtype}, which are {num_bytes:,} bytes, but "
                f"{info.file_size - begin:,} bytes are there"
            )
        data = _read_bytes(member, num_bytes)
    if dtype.kind == "U":
        _check_text(_code_points(data, dtype))
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def _read_bytes(member: IO[bytes], num_bytes: int) -> NDArray[np.uint8]:
    """The rest of a member, which is so long, to its end, where the CRC is checked. Nothing of it is held twice."""
    data = np.empty(num_bytes, np.uint8)
    done = 0
    while some := member.read(_READ_BYTES):
        data[done : done + len(some)] = np.frombuffer(some, np.uint8)
        done += len(some)
    if done != num_bytes:
        raise EOFError
    return data


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, dtype and whether the values are in Fortran's order; as `numpy.lib.format` describes it."""
    start = member.read(8)
    if start[:6] != _MAGIC or start[6] not in _LENGTHS:
        raise ValueError("no array")
    length_format = _LENGTHS[start[6]]
    (length,) = struct.unpack(length_format, member.read(struct.calcsize(length_format)))
    if length > _MOST_HEADER_BYTES:
        raise ValueError("a long header")
    text = member.read(length)
    if len(text) != length:
        raise EOFError
    header = ast.literal_eval(text.decode("ascii").strip())
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise ValueError("another header")
    descr, is_fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    if not isinstance(descr, str) or not _DTYPE.fullmatch(descr) or not isinstance(is_fortran, bool):
        raise ValueError("no plain numbers or text")
    if not isinstance(shape, tuple) or len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("no shape")
    return shape, np.dtype(descr), is_fortran


def _check_letters(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.kind == "U" and dtype.itemsize > 4 * MOST_LETTERS:
        raise NpzError(f"hold {name}, whose texts have up to {dtype.itemsize // 4:,} letters (at most {MOST_LETTERS})")


def _code_points(data: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.uint32]:
    return np.frombuffer(data, np.dtype(np.uint32).newbyteorder(dtype.byteorder))


def _check_text(code_points: NDArray[np.uint32]) -> None:
    """Raise ValueError where Python would not make a text of these, or could not show it."""
    first, last = _SURROGATES
    if ((code_points > _MOST_CODE_POINT) | ((code_points >= first) & (code_points <= last))).any():
        raise ValueError("no text")
