"""What a checkpoint's file may hold, checked before torch reads it.

`torch.save` writes a zip archive: `data.pkl`, a pickle of the values, and one record for each tensor's storage. Torch
does not look at the archive's checksums, believes the sizes that the pickle names, and follows it wherever it leads.
So the archive is checked here: the pickle, step by step, without running it, and the records against their sizes and,
where a checkpoint has no better checksums, against their own.
"""

import itertools
import pickletools
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from attengait.system.files import open_regular

MAX_PICKLE_BYTES = 4 << 20
_END_OF_ARCHIVE_BYTES = 22
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def check_archive(path: Path) -> None:
    """Raise ValueError or OSError unless a file is an archive that torch can be given.

    A compressed record, a record outside the file, and a pickle that holds something else than plain
    values and tensors within their storages are refused.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            num_bytes = file.seek(0, 2)
            file.seek(max(0, num_bytes - _END_OF_ARCHIVE_BYTES))
            if not file.read().startswith(b"PK\x05\x06"):
                raise ValueError("it does not end as an archive does")
            pickled, records = _records(archive, num_bytes)
            check_pickle(pickled, records)
    except _BROKEN as error:
        raise ValueError(f"it is not a whole archive: {error}") from None


def check_records(path: Path) -> None:
    """Raise ValueError or OSError unless each record of an archive has its checksum."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            if (broken := archive.testzip()) is not None:
                raise ValueError(f"the checksum of its record {broken} is wrong")
    except _BROKEN as error:
        raise ValueError(f"it is not a whole archive: {error}") from None


def _records(archive: zipfile.ZipFile, num_bytes: int) -> tuple[bytes, dict[str, int]]:
    """The pickle, and the sizes of the storages by their key."""
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise ValueError("it has compressed or encrypted records")
    if len(names) < len(entries) or sum(entry.file_size for entry in entries) > num_bytes:
        raise ValueError("its records do not fit into the file")
    top = entries[0].filename.partition("/")[0] if entries else ""
    if f"{top}/data.pkl" not in names:
        raise ValueError("it has no data.pkl")
    if archive.getinfo(f"{top}/data.pkl").file_size > MAX_PICKLE_BYTES:
        raise ValueError(f"its data.pkl is larger than {MAX_PICKLE_BYTES >> 20} MiB")
    data = f"{top}/data/"
    sizes = {entry.filename.removeprefix(data): entry.file_size for entry in entries if entry.filename.startswith(data)}
    return archive.read(f"{top}/data.pkl"), sizes


class _Named(NamedTuple):
    """Something that a pickle names, such as a function."""

    name: str


class _Storage(NamedTuple):
    """The numbers of a tensor, in one record."""

    num_values: int


_MARK, _VALUE = object(), object()
_DICTIONARY, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_VALUE_BYTES = {
    f"torch {kind}Storage": num_bytes
    for num_bytes, kinds in {
        1: ("Bool", "Byte", "Char"),
        2: ("BFloat16", "Half", "Short"),
        4: ("Float", "Int"),
        8: ("Double", "Long"),
    }.items()
    for kind in kinds
}
_PUSHED = {
    "EMPTY_DICT": _VALUE,
    "EMPTY_LIST": _VALUE,
    "EMPTY_TUPLE": (),
    "NEWFALSE": False,
    "NEWTRUE": True,
    "NONE": None,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def check_pickle(pickled: bytes, records: Mapping[str, int]) -> None:
    """Raise ValueError unless a pickle holds only what a checkpoint has.

    These are numbers, texts, lists, tuples, dictionaries with texts and numbers as keys, and tensors within storages
    whose sizes are those of `records`.
    """
    try:
        _Stack(records).run(pickled)
    except (LookupError, ValueError, TypeError) as error:
        raise ValueError(f"its data.pkl holds something else than a checkpoint: {error}") from None


class _Stack:
    """What a pickle would build, as far as it matters: texts, numbers, tuples, names and storages; all else is one
    value."""

    def __init__(self, records: Mapping[str, int]) -> None:
        self.records = records
        self.items: list[Any] = []
        self.memo: dict[Any, Any] = {}

    def run(self, pickled: bytes) -> None:
        for opcode, argument, _ in pickletools.genops(pickled):
            self.step(opcode.name, argument)

    def step(self, name: str, argument: Any) -> None:
        items = self.items
        match name:
            case "PROTO" | "STOP":
                pass
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                items.append(argument)
            case "GLOBAL":
                if argument not in (_DICTIONARY, _TENSOR) and argument not in _VALUE_BYTES:
                    raise ValueError(f"the name {argument[:80]!r}")
                items.append(_Named(argument))
            case "MARK":
                items.append(_MARK)
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = items[-1]
            case "BINGET" | "LONG_BINGET":
                items.append(self.memo[argument])
            case "TUPLE":
                items.append(tuple(self.since_mark()))
            case "APPEND":
                items.pop()
            case "APPENDS":
                self.since_mark()
            case "SETITEM":
                items.pop()
                self.check_keys([items.pop()])
            case "SETITEMS":
                pairs = self.since_mark()
                self.check_keys(pairs[::2])
            case "BUILD":
                items.pop()
                if items[-1] is not _VALUE:
                    raise ValueError("attributes of something that has none")
            case "BINPERSID":
                items.append(self.storage(items.pop()))
            case "REDUCE":
                arguments, called = items.pop(), items.pop()
                check_call(called, arguments)
                items.append(_VALUE)
            case _ if name in _PUSHED:
                items.append(_PUSHED[name])
            case _ if name in _TUPLES:
                parts = [items.pop() for _ in range(_TUPLES[name])]
                items.append(tuple(reversed(parts)))
            case _:
                raise ValueError(f"the step {name}")

    def since_mark(self) -> list[Any]:
        since = list(itertools.takewhile(lambda item: item is not _MARK, reversed(self.items)))
        del self.items[-len(since) - 1 :]
        return since[::-1]

    def check_keys(self, keys: list[Any]) -> None:
        if any(type(key) not in (str, int) for key in keys):
            raise ValueError("a key that is neither a text nor a number")

    def storage(self, identity: Any) -> _Storage:
        kind, storage, key, _, num_values = identity
        if kind != "storage" or type(storage) is not _Named or type(key) is not str or type(num_values) is not int:
            raise ValueError("a storage without a size")
        if num_values < 0 or self.records[key] != num_values * _VALUE_BYTES[storage.name]:
            raise ValueError("a storage of another size than its record")
        return _Storage(num_values)


def check_call(called: Any, arguments: Any) -> None:
    """Raise ValueError unless a call makes an empty dictionary or a tensor that lies within its storage."""
    if type(called) is _Named and called.name == _DICTIONARY and arguments == ():
        return
    if type(called) is not _Named or called.name != _TENSOR:
        raise ValueError("a call of something else than a tensor")
    storage, offset, size, stride = arguments[:4]
    numbers = (offset, *size, *stride)
    if type(storage) is not _Storage or len(size) != len(stride) or any(type(n) is not int for n in numbers):
        raise ValueError("a tensor without sizes")
    if min(numbers) < 0 or max(numbers) > 2**62 or len(size) > 16:
        raise ValueError("a tensor of impossible sizes")
    num_values, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        num_values *= length
        last += (length - 1) * step
    if num_values > storage.num_values or (num_values and last >= storage.num_values):
        raise ValueError("a tensor that is larger than its storage")
