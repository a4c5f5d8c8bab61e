"""Reads NumPy arrays from pickles that are not trusted: nothing in such a file is executed.

A pickle is a program that may call any function it can name. An array's pickle names five things, whichever protocol
(0 to 5) and NumPy (1 or 2) wrote it. They are replaced by functions of our own that note shape, dtype and bytes, and
any other name is refused: neither NumPy nor anything else is called on the file's behalf. Which instructions are
followed at all is in `attengait.datasets.pickle_reader`.
"""

import io
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.arrays import FileError
from attengait.datasets.pickle_reader import InstructionError, OtherContentError, RefusedInstructionError, follow
from attengait.store.skipped import Reason
from attengait.system.files import open_regular
from attengait.system.printable import printable

MAX_BYTES = 4 << 30
"""Of the values of one array, which must fit into memory: 350,000 pictures of 64 x 64 x 3."""
MAX_AXES = 32
"""NumPy 1 has no more."""

_SKIPPED_BYTES = 1 << 16
"""If only the header is wanted, larger pieces are not read, and zeros stand for them. Protocols 4 and 5 store
smaller pieces together with the header."""


class PickleError(FileError):
    """A file that does not hold a NumPy array of numbers."""


class RefusedPickleError(PickleError):
    """A file that would run something."""

    reason = Reason.REFUSED_PICKLE


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayHeader:
    """What an array is, without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_array(path: str | Path) -> NDArray[Any]:
    """The array in a pickle: bool, whole or floating-point numbers; it may be read-only.

    Raises PickleError, in one sentence with the path, when the file cannot be read, is damaged, or holds something
    else; RefusedPickleError when it names anything that an array's pickle does not.
    """
    found = _load(path, is_header_wanted=False)
    header = _header(path, found)
    try:
        data = found.data.encode("latin-1") if isinstance(found.data, str) else found.data
    except UnicodeEncodeError:
        raise PickleError(f"{path} is damaged: its values are text that stands for no bytes") from None
    expected_bytes = math.prod(header.shape) * header.dtype.itemsize
    if not isinstance(data, bytes) or len(data) != expected_bytes:
        raise PickleError(f"{path} is damaged: its values do not fill an array of shape {list(header.shape)}")
    return np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if found.is_fortran else "C")


def read_header(path: str | Path) -> ArrayHeader:
    """Shape and dtype of the array in a pickle, reading little of a large file; raises what `read_array` does.

    Whether there are too many values, or damaged ones, shows only in `read_array`.
    """
    return _header(path, _load(path, is_header_wanted=True))


class _Dtype:
    """A dtype being unpickled."""

    __slots__ = ("known",)

    def __init__(self, known: np.dtype[Any]) -> None:
        self.known = known


class _Array:
    """An array being unpickled: what the file says of it, not yet checked."""

    __slots__ = ("data", "dtype", "is_fortran", "shape")

    def __init__(self, data: Any = None, dtype: Any = None, shape: Any = None, is_fortran: Any = False) -> None:
        self.data, self.dtype, self.shape, self.is_fortran = data, dtype, shape, is_fortran


class _Skipped:
    """Stands for values that are not read."""

    __slots__ = ("num_bytes",)

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes

    def __len__(self) -> int:
        return self.num_bytes


_ARRAY = "numpy.ndarray"
_FUNCTIONS = {
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    **{f"numpy.{core}.multiarray._reconstruct": "reconstruct" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": "from_buffer" for core in ("core", "_core")},
}


def _is_known(name: str) -> bool:
    return name == _ARRAY or name in _FUNCTIONS


def _call(name: str, arguments: list[Any]) -> Any:
    match _FUNCTIONS.get(name), arguments:
        case "reconstruct", [_, _, _]:
            return _Array()
        case "from_buffer", [data, dtype, shape, order]:
            return _Array(data, dtype, shape, _text(order) == "F")
        case "dtype", [dtype, *rest] if len(rest) <= 2:
            return _Dtype(_numbers(_text(dtype)))
        case "encode", [str() | _Skipped() as text, encoding]:
            # Protocols 0 to 2 have no bytes: they are written as text, and as a call that turns it back.
            if _text(encoding) not in ("latin1", "latin-1"):
                raise RefusedInstructionError("it encodes text in an unusual way")
            return text
    raise RefusedInstructionError(f"it calls {name} in an unusual way")


def _build(made: Any, state: Any) -> None:
    match made, state:
        case _Array(), (_, shape, dtype, is_fortran, data):
            made.shape, made.dtype, made.is_fortran, made.data = shape, dtype, is_fortran, data
        case _Dtype(), (_, byte_order, *_) if _text(byte_order) in ("|", "<", ">", "="):
            made.known = made.known.newbyteorder(_text(byte_order))  # type: ignore[arg-type]  # it is one of the four
        case _Dtype(), _:
            raise InstructionError("it is damaged: it gives its array no dtype")
        case _:
            raise RefusedInstructionError("it changes something that is no array")


def _text(text: Any) -> str:
    """Text as Python 3 or 2 writes it; nothing for anything else."""
    if isinstance(text, bytes):
        return text.decode("latin-1")
    return text if isinstance(text, str) else ""


def _numbers(name: str) -> np.dtype[Any]:
    # NumPy evaluates other names, such as those of records. It writes these and no synonyms.
    if re.fullmatch(r"b1|[iu][1248]|f(2|4|8|12|16)", name, re.ASCII):
        try:
            return np.dtype(name)
        except TypeError:  # a machine that lacks it
            pass
    raise OtherContentError(f"holds an array of {printable(repr(name), max_letters=40)}, not of numbers")


class _File:
    """A file that never reserves memory for more than it holds, and that may pass over large pieces."""

    def __init__(self, file: io.BufferedReader, *, is_header_wanted: bool) -> None:
        self._file, self._is_header_wanted = file, is_header_wanted
        self._size_bytes = os.fstat(file.fileno()).st_size

    def read(self, size: int) -> bytes:
        """The next `size` bytes."""
        self._check(size)
        return self._file.read(size)

    def read_values(self, size: int) -> bytes | _Skipped:
        """The next `size` bytes, or what stands for them where only the header is wanted."""
        self._check(size)
        if self._is_header_wanted and size > _SKIPPED_BYTES:
            self._file.seek(size, io.SEEK_CUR)
            return _Skipped(size)
        return self._file.read(size)

    def read_line(self, max_bytes: int | None) -> bytes:
        """The next line without its end."""
        line = self._file.readline(MAX_BYTES if max_bytes is None else max_bytes + 1)
        if not line.endswith(b"\n"):
            self._check(1)
            raise RefusedInstructionError("it has a line that is longer than any array needs")
        return line[:-1]

    def num_rest_bytes(self) -> int:
        """How many bytes follow."""
        return self._size_bytes - self._file.tell()

    def _check(self, size: int) -> None:
        if size > self.num_rest_bytes():
            raise InstructionError("it ends too early")
        if size > MAX_BYTES:
            raise RefusedInstructionError(f"it holds {size:,} bytes, but at most {MAX_BYTES:,} are read")


def _load(path: str | Path, *, is_header_wanted: bool) -> _Array:
    try:
        with open_regular(path) as opened:
            file = _File(opened, is_header_wanted=is_header_wanted)
            found = follow(file, call=_call, build=_build, is_known=_is_known)
            num_rest_bytes = file.num_rest_bytes()
    except OSError as error:
        raise PickleError(f"{path} cannot be read: {error.strerror or error}") from None
    except RefusedInstructionError as error:
        raise RefusedPickleError(f"{path} is refused, and nothing of it was run: {error}") from None
    except OtherContentError as error:
        raise PickleError(f"{path} {error}") from None
    except InstructionError as error:
        raise PickleError(f"{path} is damaged or no pickle of an array: {error}") from None
    except MemoryError:
        raise PickleError(f"{path} does not fit into memory") from None
    if not isinstance(found, _Array):
        raise PickleError(f"{path} is damaged or no pickle of an array: it holds something else")
    if num_rest_bytes:
        raise PickleError(f"{path} is damaged: {num_rest_bytes:,} bytes follow its array")
    return found


def _header(path: str | Path, found: _Array) -> ArrayHeader:
    shape, dtype = found.shape, found.dtype
    if not isinstance(shape, tuple) or not all(type(length) is int and 0 <= length < 2**63 for length in shape):
        raise PickleError(f"{path} is damaged: it gives its array no shape")
    if len(shape) > MAX_AXES:
        raise PickleError(f"{path} is damaged: its array has {len(shape)} axes, not at most {MAX_AXES}")
    if 0 in shape:
        raise PickleError(f"{path} holds an array without values, of shape {list(shape)}")
    if not isinstance(dtype, _Dtype):
        raise PickleError(f"{path} is damaged: it gives its array no dtype")
    # A shape alone can ask for any amount of memory. Text has as many letters as bytes, before it is read no fewer.
    num_bytes = len(found.data) if isinstance(found.data, (bytes, str, _Skipped)) else 0
    if math.prod(shape) > num_bytes // dtype.known.itemsize:
        raise PickleError(f"{path} is damaged: its values do not fill an array of shape {list(shape)}")
    return ArrayHeader(shape=shape, dtype=dtype.known)
