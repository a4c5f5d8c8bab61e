"""Reads NumPy arrays from pickles that are not trusted: nothing in such a file is executed.

A pickle is a program that may call any function it can name. An array's pickle names five things, whichever protocol
(2 to 5) and NumPy (1 or 2) wrote it. They are replaced by functions of our own that note shape, dtype and bytes, and
any other name is refused: neither NumPy nor anything else is called on the file's behalf. Python's own unpickler
written in Python is used, as the one in C can be made to take all memory by a file of a few bytes (through its table
of remembered objects).
"""

import io
import math
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.arrays import FileError
from attengait.store.skipped import Reason

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
    data = found.data.encode("latin-1") if isinstance(found.data, str) else found.data
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

    __slots__ = ("byte_order", "name")

    byte_order: Any

    def __init__(self, name: object) -> None:
        self.name, self.byte_order = name, "="

    def __setstate__(self, state: Any) -> None:
        self.byte_order = state[1]


class _Array:
    """An array being unpickled: what the file says of it, not yet checked."""

    __slots__ = ("data", "dtype", "is_fortran", "shape")

    def __init__(self, data: Any = None, dtype: Any = None, shape: Any = None, is_fortran: Any = False) -> None:
        self.data, self.dtype, self.shape, self.is_fortran = data, dtype, shape, is_fortran

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.is_fortran, self.data = state


class _Function:
    """A function that a file may call. A file cannot change it, neither for itself nor for the next file."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickleError("it tries to change a function")


def _reconstruct(subtype: object, shape: object, typecode: object) -> _Array:
    return _Array()


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    return _Array(data, dtype, shape, order == "F")


def _dtype(name: object, align: object = False, copy: object = False) -> _Dtype:
    return _Dtype(name)


def _encode(text: object, encoding: object) -> object:
    """Protocol 2 has no bytes: they are written as text, and as a call that turns it back."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickleError("it encodes text in an unusual way")
    return text


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


def _load_bytearray(unpickler: Any) -> None:
    """What protocol 5 has for the values of an array, as bytes: Python's own makes room for them before it reads."""
    unpickler.append(unpickler.read(int.from_bytes(unpickler.read(8), "little")))


class _Unpickler(pickle._Unpickler):
    """Knows the names of `_FUNCTIONS` and `numpy.ndarray`, which is only ever handed on."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: _load_bytearray,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Our function for a name that the file uses. Raises RefusedPickleError for other names."""
        if (module, name) == ("numpy", "ndarray"):
            return "numpy.ndarray"
        if (module, name) not in _FUNCTIONS:
            raise RefusedPickleError(f"it asks for {module}.{name}, which no array needs")
        return _Function(_FUNCTIONS[module, name])

    def get_extension(self, code: int) -> None:
        """Refuse what other parts of this process may have registered."""
        raise RefusedPickleError("it asks for a registered extension, which no array needs")


class _File:
    """A file that never reserves memory for more than it holds, and that may pass over large pieces."""

    def __init__(self, file: io.BufferedReader, *, is_header_wanted: bool) -> None:
        self._file, self._is_header_wanted = file, is_header_wanted
        self._size_bytes = os.fstat(file.fileno()).st_size

    def read(self, size: int) -> bytes:
        """The next `size` bytes, or zeros in their place where only the header is wanted."""
        if size > self._size_bytes - self._file.tell():
            raise EOFError("it ends too early")
        if self._is_header_wanted and size > _SKIPPED_BYTES:
            self._file.seek(size, io.SEEK_CUR)
            return bytes(size)
        return self._file.read(size)

    def readline(self) -> bytes:
        """The next line."""
        return self._file.readline()


def _load(path: str | Path, *, is_header_wanted: bool) -> _Array:
    try:
        with open(path, "rb") as file:
            found = _Unpickler(_File(file, is_header_wanted=is_header_wanted), encoding="latin-1").load()
    except OSError as error:
        raise PickleError(f"{path} cannot be read: {error.strerror or error}") from None
    except RefusedPickleError as error:
        raise RefusedPickleError(f"{path} is refused, and nothing of it was run: {error}") from None
    except Exception as error:  # a damaged or hostile file can make the unpickler trip in any way
        what = str(error) or type(error).__name__
        raise PickleError(f"{path} is damaged or no pickle of an array: {what}") from None
    if not isinstance(found, _Array):
        raise PickleError(f"{path} holds a {type(found).__name__}, not one NumPy array")
    return found


def _header(path: str | Path, found: _Array) -> ArrayHeader:
    shape, dtype = found.shape, found.dtype
    if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
        raise PickleError(f"{path} is damaged: it gives its array no shape")
    if 0 in shape:
        raise PickleError(f"{path} holds an array without values, of shape {list(shape)}")
    if not isinstance(dtype, _Dtype) or not isinstance(dtype.name, str) or dtype.byte_order not in ("|", "<", ">", "="):
        raise PickleError(f"{path} is damaged: it gives its array no dtype")
    try:
        known = np.dtype(dtype.name).newbyteorder(dtype.byte_order)
    except (TypeError, ValueError):
        known = np.dtype("O")
    if known.kind not in "biuf":
        raise PickleError(f"{path} holds an array of {dtype.name!r}, not of numbers")
    # A shape alone can ask for any amount of memory. Text has as many characters as bytes, zeros in its place no fewer.
    num_values = len(found.data) // known.itemsize if isinstance(found.data, (bytes, str)) else 0
    if math.prod(shape) > num_values:
        raise PickleError(f"{path} is damaged: its values do not fill an array of shape {list(shape)}")
    return ArrayHeader(shape=shape, dtype=known)
