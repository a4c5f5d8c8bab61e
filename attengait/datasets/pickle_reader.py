"""Follows the instructions of a pickle as far as the pickle of an array needs them, and no further.

A pickle is a program for a machine with a stack. Python's own unpickler executes all of it: it calls functions, builds
objects, fills dicts and sets, and remembers as many objects as the file asks for. A file of 87 bytes can keep it busy
for ever. An array needs few of the instructions: constants, tuples, five names, one call for each. Here are only
those, with limits on how many there are, how deep they nest and how long numbers and names are. So time and memory are
bounded by the size of the file. Nothing is hashed, compared or shown that the file has nested.

All protocols are known, 0 to 5, as Python 2 and 3 write them. (PERSID has no place in the tables below: a PNG begins
with it, and is better called no pickle.)
"""

import codecs
import pickle
from collections.abc import Callable
from typing import Any, Protocol

from attengait.system.printable import printable

MAX_INSTRUCTIONS = 1000
"""An array of 32 axes needs fewer than 200."""
MAX_NAME_LETTERS = 64
"""The longest name that an array needs has 38."""
_MAX_NUMBER_DIGITS = 20
_MAX_NUMBER_BYTES = 9
_MAX_DEPTH = 2
"""Of tuples in tuples: the shape within the state of an array."""
_MAX_ITEMS = 64
"""Of a tuple: NumPy's arrays have at most as many axes."""


class InstructionError(Exception):
    """What is wrong with a pickle, as the rest of a sentence about it."""


class OtherContentError(InstructionError):
    """A pickle of something else, as the rest of a sentence that begins with the file."""


class RefusedInstructionError(InstructionError):
    """An instruction or name that no array needs."""


class Input(Protocol):
    """Where the bytes come from."""

    def read(self, size: int) -> bytes:
        """Exactly the next `size` bytes; raises InstructionError at the end."""
        ...

    def read_values(self, size: int) -> Any:
        """As `read`, for what may be the values of an array: something else may stand for them."""
        ...

    def read_line(self, max_bytes: int | None) -> bytes:
        """The next line without its end; raises InstructionError for a longer one."""
        ...


class Name:
    """Something of a module that a pickle names."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _Mark:
    """Where a tuple begins on the stack."""


Call = Callable[[str, list[Any]], Any]
"""From a name and arguments to what the call gives; raises InstructionError."""
Build = Callable[[Any, Any], None]
"""Gives an object its state; raises InstructionError."""


def follow(file: Input, *, call: Call, build: Build, is_known: Callable[[str], bool]) -> Any:
    """Follow the instructions, and return what they come to.

    Raises InstructionError where the file is damaged or no pickle; RefusedInstructionError for an instruction, a name
    or a size that no array needs.
    """
    return _Machine(file, call, build, is_known).run()


class _Machine:
    def __init__(self, file: Input, call: Call, build: Build, is_known: Callable[[str], bool]) -> None:
        self._file, self._call, self._build_object, self._is_known = file, call, build, is_known
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_INSTRUCTIONS):
            code = self._file.read(1)
            if code == pickle.STOP:
                return self._pop()
            if code in _INSTRUCTIONS:
                _INSTRUCTIONS[code](self)
            elif code in _CONTAINERS:
                self._refuse_container(_CONTAINERS[code])
            elif code in _OTHERS:
                raise RefusedInstructionError(f"it {_OTHERS[code]}, which no array needs")
            else:
                raise InstructionError(f"it has an unknown instruction, {code!r}")
        raise RefusedInstructionError(f"it has more than {MAX_INSTRUCTIONS:,} instructions, which no array needs")

    def _refuse_container(self, kind: str) -> None:
        if all(isinstance(each, _Mark) for each in self._stack):
            raise OtherContentError(f"holds a {kind}, not one NumPy array")
        raise RefusedInstructionError(f"it makes a {kind}, which no array needs")

    def _pop(self) -> Any:
        if not self._stack or isinstance(self._stack[-1], _Mark):
            raise InstructionError("an instruction finds nothing on the stack")
        return self._stack.pop()

    def _number(self, num_bytes: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._file.read(num_bytes), "little", signed=signed)

    # What puts a constant on the stack.

    def none(self) -> None:
        self._stack.append(None)

    def true(self) -> None:
        self._stack.append(True)

    def false(self) -> None:
        self._stack.append(False)

    def int4(self) -> None:
        self._stack.append(self._number(4, signed=True))

    def int2(self) -> None:
        self._stack.append(self._number(2))

    def int1(self) -> None:
        self._stack.append(self._number(1))

    def long1(self) -> None:
        num_bytes = self._number(1)
        if num_bytes > _MAX_NUMBER_BYTES:
            raise RefusedInstructionError(f"it has a number of {num_bytes} bytes, which no array needs")
        self._stack.append(self._number(num_bytes, signed=True))

    def int_line(self) -> None:
        line = self._file.read_line(_MAX_NUMBER_DIGITS)
        self._stack.append({b"00": False, b"01": True}[line] if line in (b"00", b"01") else _whole(line))

    def long_line(self) -> None:
        self._stack.append(_whole(self._file.read_line(_MAX_NUMBER_DIGITS + 1).removesuffix(b"L")))

    def values1(self) -> None:
        self._stack.append(self._file.read_values(self._number(1)))

    def values4(self) -> None:
        self._stack.append(self._file.read_values(self._number(4)))

    def values8(self) -> None:
        self._stack.append(self._file.read_values(self._number(8)))

    def text1(self) -> None:
        self._text(self._number(1))

    def text4(self) -> None:
        self._text(self._number(4))

    def text8(self) -> None:
        self._text(self._number(8))

    def _text(self, num_bytes: int) -> None:
        values = self._file.read_values(num_bytes)
        self._stack.append(_decoded(values, "utf-8") if isinstance(values, bytes) else values)

    def text_line(self) -> None:
        self._stack.append(_decoded(self._file.read_line(None), "raw-unicode-escape"))

    def quoted_line(self) -> None:
        line = self._file.read_line(None)
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise InstructionError("it has a text without quotation marks")
        try:
            self._stack.append(codecs.escape_decode(line[1:-1])[0])
        except ValueError as error:
            raise InstructionError(f"it has a damaged text: {error}") from None

    # Tuples.

    def mark(self) -> None:
        self._stack.append(_Mark())

    def tuple_from_mark(self) -> None:
        for i in reversed(range(len(self._stack))):
            if isinstance(self._stack[i], _Mark):
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return self._push_tuple(items)
        raise InstructionError("an instruction finds no mark on the stack")

    def tuple0(self) -> None:
        self._push_tuple([])

    def tuple1(self) -> None:
        self._push_tuple([self._pop()])

    def tuple2(self) -> None:
        second = self._pop()
        self._push_tuple([self._pop(), second])

    def tuple3(self) -> None:
        third, second = self._pop(), self._pop()
        self._push_tuple([self._pop(), second, third])

    def _push_tuple(self, items: list[Any]) -> None:
        if len(items) > _MAX_ITEMS:
            raise RefusedInstructionError(f"it has a tuple of {len(items)}, which no array needs")
        made = tuple(items)
        if _depth(made) > _MAX_DEPTH:
            raise RefusedInstructionError(f"its tuples nest more than {_MAX_DEPTH} deep, which no array needs")
        self._stack.append(made)

    # Names, calls and states.

    def name_lines(self) -> None:
        module, name = (_decoded(self._file.read_line(MAX_NAME_LETTERS), "utf-8") for _ in range(2))
        self._push_name(module, name)

    def name_from_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise InstructionError("it has a name that is no text")
        self._push_name(module, name)

    def _push_name(self, module: str, name: str) -> None:
        whole = f"{module}.{name}"
        if not self._is_known(whole):
            raise RefusedInstructionError(
                f"it asks for {printable(whole, max_letters=MAX_NAME_LETTERS)}, which no array needs"
            )
        self._stack.append(Name(whole))

    def reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise RefusedInstructionError("it calls something that is no function of an array")
        self._stack.append(self._call(function.name, list(arguments)))

    def build(self) -> None:
        state, made = self._pop(), self._pop()
        if isinstance(made, Name):
            raise RefusedInstructionError("it tries to change a function")
        self._build_object(made, state)
        self._stack.append(made)

    # What it remembers.

    def put1(self) -> None:
        self._put(self._number(1))

    def put4(self) -> None:
        self._put(self._number(4))

    def put_line(self) -> None:
        self._put(_whole(self._file.read_line(_MAX_NUMBER_DIGITS)))

    def memoize(self) -> None:
        self._put(len(self._memo))

    def _put(self, number: int) -> None:
        self._memo[number] = self._pop()
        self._stack.append(self._memo[number])

    def get1(self) -> None:
        self._get(self._number(1))

    def get4(self) -> None:
        self._get(self._number(4))

    def get_line(self) -> None:
        self._get(_whole(self._file.read_line(_MAX_NUMBER_DIGITS)))

    def _get(self, number: int) -> None:
        if number not in self._memo:
            raise InstructionError(f"it asks for object {number}, which it has not made")
        self._stack.append(self._memo[number])

    # What says something of the file.

    def protocol(self) -> None:
        if (number := self._number(1)) > 5:
            raise InstructionError(f"its protocol is {number}, not one from 0 to 5")

    def frame(self) -> None:
        self._file.read(8)  # a hint for those who read ahead


_INSTRUCTIONS: dict[bytes, Callable[[_Machine], None]] = {
    pickle.PROTO: _Machine.protocol,
    pickle.FRAME: _Machine.frame,
    pickle.NONE: _Machine.none,
    pickle.NEWTRUE: _Machine.true,
    pickle.NEWFALSE: _Machine.false,
    pickle.BININT: _Machine.int4,
    pickle.BININT1: _Machine.int1,
    pickle.BININT2: _Machine.int2,
    pickle.LONG1: _Machine.long1,
    pickle.INT: _Machine.int_line,
    pickle.LONG: _Machine.long_line,
    pickle.SHORT_BINBYTES: _Machine.values1,
    pickle.BINBYTES: _Machine.values4,
    pickle.BINBYTES8: _Machine.values8,
    pickle.BYTEARRAY8: _Machine.values8,
    pickle.SHORT_BINSTRING: _Machine.values1,
    pickle.BINSTRING: _Machine.values4,
    pickle.STRING: _Machine.quoted_line,
    pickle.SHORT_BINUNICODE: _Machine.text1,
    pickle.BINUNICODE: _Machine.text4,
    pickle.BINUNICODE8: _Machine.text8,
    pickle.UNICODE: _Machine.text_line,
    pickle.MARK: _Machine.mark,
    pickle.TUPLE: _Machine.tuple_from_mark,
    pickle.EMPTY_TUPLE: _Machine.tuple0,
    pickle.TUPLE1: _Machine.tuple1,
    pickle.TUPLE2: _Machine.tuple2,
    pickle.TUPLE3: _Machine.tuple3,
    pickle.GLOBAL: _Machine.name_lines,
    pickle.STACK_GLOBAL: _Machine.name_from_stack,
    pickle.REDUCE: _Machine.reduce,
    pickle.BUILD: _Machine.build,
    pickle.PUT: _Machine.put_line,
    pickle.BINPUT: _Machine.put1,
    pickle.LONG_BINPUT: _Machine.put4,
    pickle.MEMOIZE: _Machine.memoize,
    pickle.GET: _Machine.get_line,
    pickle.BINGET: _Machine.get1,
    pickle.LONG_BINGET: _Machine.get4,
}

_CONTAINERS = {
    pickle.EMPTY_LIST: "list",
    pickle.LIST: "list",
    pickle.EMPTY_DICT: "dict",
    pickle.DICT: "dict",
    pickle.EMPTY_SET: "set",
    pickle.FROZENSET: "set",
}

_OTHERS = {
    **dict.fromkeys((pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX), "makes an object"),
    **dict.fromkeys((pickle.EXT1, pickle.EXT2, pickle.EXT4), "asks for a registered extension"),
    pickle.BINPERSID: "asks for an object outside the file",
    **dict.fromkeys((pickle.NEXT_BUFFER, pickle.READONLY_BUFFER), "asks for values outside the file"),
    **dict.fromkeys((pickle.APPEND, pickle.APPENDS), "fills a list"),
    **dict.fromkeys((pickle.SETITEM, pickle.SETITEMS), "fills a dict"),
    pickle.ADDITEMS: "fills a set",
    pickle.LONG4: "has a number of many bytes",
    **dict.fromkeys((pickle.FLOAT, pickle.BINFLOAT), "has a number with a fraction outside its values"),
    **dict.fromkeys((pickle.POP, pickle.POP_MARK, pickle.DUP), "moves objects about"),
}


def _whole(line: bytes) -> int:
    if not line.removeprefix(b"-").isdigit():
        raise InstructionError(f"it has a number {printable(line)}")
    return int(line)


def _decoded(text: bytes, encoding: str) -> str:
    try:
        # Python writes lone surrogates, too.
        return text.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError:
        raise InstructionError(f"it has a text that is not {encoding}") from None


def _depth(items: tuple[Any, ...]) -> int:
    """How deep tuples nest. All that `items` hold were checked already, so this ends soon."""
    return 1 + max((_depth(item) for item in items if isinstance(item, tuple)), default=0)
