"""Reads NumPy arrays from pickles that are not trusted: nothing in such a file is executed.

A pickle is a program that may call any function it can name. An array's pickle names five things, whichever protocol
(0 to 5) and NumPy (1 or 2) wrote it. They are replaced by functions of our own that note shape, dtype and bytes, and
any other name is refused: neither NumPy nor anything else is called on the file's behalf.

Such a program can also take all memory, or never end. So only the operations that an array's pickle has are carried
out, not more than a few hundred of them, on numbers, text, bytes and flat tuples. There are no lists, dicts, sets or
deep tuples: hashing, comparing or showing them can take any time. Python's own unpickler written in Python is used, as
the one in C can be made to take all memory by a file of a few bytes (through its table of remembered objects).
"""

import io
import math
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.arrays import FileError
from attengait.store.skipped import Reason
from attengait.system.files import open_regular
from attengait.system.printable import printable

_SKIPPED_BYTES = 1 << 16
"""If only the header is wanted, larger pieces are not read, and zeros stand for them. Protocols 4 and 5 store
smaller pieces together with the header."""

_MAX_OPERATIONS = 500
"""An array's pickle has about 60."""
_MAX_OBJECTS = 100
"""On the stack at a time. An array's pickle has about 20."""
_MAX_AXES = 32
_MAX_LENGTH = 1 << 48
"""Of an axis, in elements."""

_NUMBERS = re.compile(r"[biuf]\d{1,2}", re.ASCII)
"""The names that NumPy writes for dtypes of numbers, such as u1."""


class PickleError(FileError):
    """A file that does not hold a NumPy array of numbers."""


class _NotNumbersError(Exception):
    """What a pickle holds in place of one array of numbers: its message follows `PATH holds a(n)`."""


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
        data = None  # text with letters that stand for no byte
    expected_bytes = math.prod(header.shape) * header.dtype.itemsize
    if not isinstance(data, bytes) or len(data) != expected_bytes:
        raise PickleError(f"{path} is damaged: its values do not fill an array of shape {list(header.shape)}")
    return np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if found.is_fortran else "C")


def read_header(path: str | Path) -> ArrayHeader:
    """Shape and dtype of the array in a pickle, reading little of a large file; raises what `read_array` does.

    Whether there are too many values, or damaged ones, shows only in `read_array`.
    """
    return _header(path, _load(path, is_header_wanted=True))


def _state(state: object) -> tuple[Any, ...]:
    """What an object is filled with: a tuple, since taking long text apart would take much memory."""
    if not isinstance(state, tuple):
        raise ValueError("it fills an object with what is no tuple")
    return state


class _Dtype:
    """A dtype being unpickled."""

    __slots__ = ("byte_order", "name")

    byte_order: Any

    def __init__(self, name: str) -> None:
        self.name, self.byte_order = name, "="

    def __setstate__(self, state: Any) -> None:
        _, self.byte_order, *_ = _state(state)


class _Array:
    """An array being unpickled: what the file says of it, not yet checked."""

    __slots__ = ("data", "dtype", "is_fortran", "shape")

    def __init__(self, data: Any = None, dtype: Any = None, shape: Any = None, is_fortran: Any = False) -> None:
        self.data, self.dtype, self.shape, self.is_fortran = data, dtype, shape, is_fortran

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.is_fortran, self.data = _state(state)


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
    if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
        shown = repr(name[:40]) if isinstance(name, str) else f"a {type(name).__name__}"
        raise _NotNumbersError(f"array of {shown}, not of numbers")
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


def _load_reduce(unpickler: Any) -> None:
    """Call a function with a tuple of arguments: Python's own also takes text apart, letter by letter."""
    arguments = unpickler.stack.pop()
    if not isinstance(arguments, tuple) or not isinstance(unpickler.stack[-1], _Function):
        raise ValueError("it calls what is no function")
    unpickler.stack[-1] = unpickler.stack[-1](*arguments)


def _flat(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """Make a tuple as `load` does. It may hold tuples, as an array's state holds the shape, but no deeper ones."""

    def load_flat(unpickler: Any) -> None:
        load(unpickler)
        inner = (item for item in unpickler.stack[-1] if isinstance(item, tuple))
        if any(isinstance(item, tuple) for items in inner for item in items):
            raise ValueError("it holds tuples in tuples in tuples")

    return load_flat


_OWN = pickle._Unpickler.dispatch
_LOADS: dict[int, Callable[[Any], None]] = {
    **{
        ord(code): _OWN[ord(code)]
        for code in (
            *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.EMPTY_TUPLE),
            *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
            *(pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1),
            *(pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING),
            *(pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8),
            *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8),
            *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BUILD),
            *(pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
            *(pickle.GET, pickle.BINGET, pickle.LONG_BINGET),
        )
    },
    **{ord(code): _flat(_OWN[ord(code)]) for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)},
    ord(pickle.REDUCE): _load_reduce,
    ord(pickle.BYTEARRAY8): _load_bytearray,
}
"""All operations that are carried out, by their codes."""

_OTHER_OBJECTS = {
    **dict.fromkeys(pickle.EMPTY_LIST + pickle.LIST, "list"),
    **dict.fromkeys(pickle.EMPTY_DICT + pickle.DICT, "dict"),
    **dict.fromkeys(pickle.EMPTY_SET + pickle.FROZENSET, "set"),
    **dict.fromkeys(pickle.FLOAT + pickle.BINFLOAT, "float"),
}
_CALLS = frozenset(
    pickle.INST + pickle.OBJ + pickle.NEWOBJ + pickle.NEWOBJ_EX + pickle.EXT1 + pickle.EXT2 + pickle.EXT4
)
"""Operations that call classes in other ways than an array's pickle."""


class _Operations:
    """The operations of one file, given out one after the other while they stay within the bounds."""

    def __init__(self, unpickler: "_Unpickler") -> None:
        self._unpickler, self._count = unpickler, 0

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        """The function for the next operation. Raises what is said of a file that has it."""
        self._count += 1
        unpickler: Any = self._unpickler
        if self._count > _MAX_OPERATIONS or len(unpickler.stack) + len(unpickler.metastack) > _MAX_OBJECTS:
            raise ValueError("it has more parts than any array")
        if code in _OTHER_OBJECTS and (unpickler.stack or unpickler.metastack):
            raise RefusedPickleError(f"it has a {_OTHER_OBJECTS[code]}, which no array needs")
        if code in _OTHER_OBJECTS:
            raise _NotNumbersError(f"{_OTHER_OBJECTS[code]}, not one NumPy array")
        if code in _CALLS:
            raise RefusedPickleError("it calls something in a way that no array needs")
        if code not in _LOADS:
            raise ValueError(f"it has the operation {code}, which no array needs")
        return _LOADS[code]


class _Unpickler(pickle._Unpickler):
    """Knows the names of `_FUNCTIONS` and `numpy.ndarray`, which is only ever handed on."""

    def __init__(self, file: "_File") -> None:
        super().__init__(file, encoding="latin-1")
        self.dispatch = _Operations(self)  # type: ignore[misc, assignment]  # it counts for one file

    def find_class(self, module: str, name: str) -> Any:
        """Our function for a name that the file uses. Raises RefusedPickleError for other names."""
        if (module, name) == ("numpy", "ndarray"):
            return "numpy.ndarray"
        if (module, name) not in _FUNCTIONS:
            asked = printable(f"{module}.{name}", max_letters=80)
            raise RefusedPickleError(f"it asks for {asked}, which no array needs")
        return _Function(_FUNCTIONS[module, name])


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
        with open_regular(path) as file:
            found = _Unpickler(_File(file, is_header_wanted=is_header_wanted)).load()
    except OSError as error:
        raise PickleError(f"{path} cannot be read: {error.strerror or error}") from None
    except RefusedPickleError as error:
        raise RefusedPickleError(f"{path} is refused, and nothing of it was run: {error}") from None
    except _NotNumbersError as error:
        raise PickleError(f"{path} holds a{'n' * str(error).startswith('array')} {error}") from None
    except Exception as error:  # a damaged or hostile file can make the unpickler trip in any way
        what = printable(error, max_letters=120) or type(error).__name__
        raise PickleError(f"{path} is damaged or no pickle of an array: {what}") from None
    if not isinstance(found, _Array):
        raise PickleError(f"{path} holds a {type(found).__name__}, not one NumPy array")
    return found


def _header(path: str | Path, found: _Array) -> ArrayHeader:
    shape, dtype = found.shape, found.dtype
    if not isinstance(shape, tuple) or not all(type(length) is int and 0 <= length < _MAX_LENGTH for length in shape):
        raise PickleError(f"{path} is damaged: it gives its array no shape")
    if len(shape) > _MAX_AXES:
        raise PickleError(f"{path} is damaged: its array has {len(shape)} axes")
    if 0 in shape:
        raise PickleError(f"{path} holds an array without values, of shape {list(shape)}")
    if not isinstance(dtype, _Dtype) or dtype.byte_order not in ("|", "<", ">", "="):
        raise PickleError(f"{path} is damaged: it gives its array no dtype")
    try:
        known = np.dtype(dtype.name).newbyteorder(dtype.byte_order)
    except TypeError:
        raise PickleError(f"{path} is damaged: there are no numbers {dtype.name!r}") from None
    # A shape alone can ask for any amount of memory. Text has as many characters as bytes, zeros in its place no fewer.
    num_values = len(found.data) // known.itemsize if isinstance(found.data, (bytes, str)) else 0
    if math.prod(shape) > num_values:
        raise PickleError(f"{path} is damaged: its values do not fill an array of shape {list(shape)}")
    return ArrayHeader(shape=shape, dtype=known)
