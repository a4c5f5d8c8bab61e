"""Archives (.tar, .tar.gz, .tgz, .zip) that are read where they are: nothing is unpacked to a disk.

A file in an archive has a path such as `002.tar.gz!/002/nm-01/090/002-nm-01-090-001.png`. A zip gives each file by
itself. A compressed tar can only be read from its beginning to its end: so a process unpacks it into memory, once for
as long as it works on the sequences in it. It keeps two archives, one for frames and one for silhouettes.

What a file says of itself is not trusted: an archive may have at most MAX_FILES entries and unpack to MAX_BYTES. Only
plain files are taken; links, devices, names with `..` and absolute names are refused and named.
"""

import gzip
import io
import os
import re
import tarfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Protocol

from attengait.store.skipped import Reason, Skipped
from attengait.system.files import open_regular
from attengait.system.printable import printable

INSIDE = "!/"
"""Between an archive's path and the name of a file in it."""
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
MAX_FILES = 1_000_000
MAX_BYTES = 1 << 30
"""Of all files of a tar, and of one file of a zip."""
_KEPT = 2
_PIECE_BYTES = 1 << 20
_ERRORS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError)
"""ValueError and NotImplementedError: of numbers, and of kinds of compression that the standard library refuses."""
_PATH = re.compile(r"(.+?(?:\.tar|\.tar\.gz|\.tgz|\.zip))!/(.+)", re.IGNORECASE | re.DOTALL)


class ArchiveError(Exception):
    """An archive that cannot be read to its end, or a file in it; it says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A plain file in an archive."""

    name: str
    size_bytes: int


def is_archive(name: str) -> bool:
    """Whether a file of this name can be read where it is."""
    return name.lower().endswith(SUFFIXES)


def list_archive(path: str, skipped: list[Skipped]) -> list[Member]:
    """The files of an archive, in its order; refused ones are named in `skipped`. A tar is read to its end.

    Raises ArchiveError for one that is damaged or too large, OSError for one that cannot be read.
    """
    members: dict[str, Member] = {}
    with closing(_Zip(path) if _is_zip(path) else _Tar(path)) as archive:
        for name, size, refused in archive.entries:
            if refused is None and (name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or not name):
                refused = "its name leads out of the archive's folder"
            if refused is None and not name.isprintable():
                refused = "its name is not printable"
            where = f"{path}{INSIDE}{printable(name)}"
            if refused is not None:
                skipped.append(Skipped(reason=Reason.REFUSED_MEMBER, where=where, detail=refused))
                continue
            name = _plain(name)
            if name in members:
                skipped.append(Skipped(reason=Reason.FRAME_TWICE, where=where, detail="the last of these is used"))
            members[name] = Member(name=name, size_bytes=size)
    return list(members.values())


def read_member(path: str) -> bytes | None:
    """The bytes at a path in an archive; None where the path is that of a file by itself.

    Raises ArchiveError for a file that is damaged, OSError for an archive that cannot be opened.
    """
    if INSIDE not in path or (match := _PATH.fullmatch(path)) is None:
        return None
    with _lock:
        return _opened(match[1]).read(match[2])


class _Archive(Protocol):
    entries: list[tuple[str, int, str | None]]
    """Name, size in bytes, and why it is refused, of each file."""

    def read(self, name: str) -> bytes: ...

    def close(self) -> None: ...


class _Zip:
    """A zip; its files are read one by one."""

    def __init__(self, path: str) -> None:
        self._file = open_regular(path)
        try:
            self._zip = zipfile.ZipFile(self._file)
            infos = [info for info in self._zip.infolist() if not info.is_dir()]
            _check_number(len(infos))
        except BaseException as error:
            self._file.close()
            if isinstance(error, _ERRORS):
                raise _broken(error) from None
            raise
        self.entries = [(info.filename, info.file_size, self._problem(info)) for info in infos]
        self._infos = {_plain(info.filename): info for info in infos if self._problem(info) is None}

    @staticmethod
    def _problem(info: zipfile.ZipInfo) -> str | None:
        kind = (info.external_attr >> 16) & 0o170000
        if kind not in (0, 0o100000):
            return "it is a link or a device"
        if info.flag_bits & 1:
            return "it is encrypted"
        return f"it unpacks to more than {MAX_BYTES:,} bytes" if info.file_size > MAX_BYTES else None

    def read(self, name: str) -> bytes:
        try:
            with self._zip.open(self._infos[name]) as file:
                return file.read(MAX_BYTES)
        except (*_ERRORS, KeyError) as error:
            raise _broken(error) from None

    def close(self) -> None:
        self._zip.close()
        self._file.close()


class _Tar:
    """A tar, unpacked into memory: the standard library reads its entries from there in a third of the time."""

    def __init__(self, path: str) -> None:
        self.entries: list[tuple[str, int, str | None]] = []
        self._places: dict[str, tuple[int, int]] = {}
        """Where each file begins and ends in the content."""
        try:
            with open_regular(path) as file:
                self._content = _unpacked(file)
            with tarfile.open(fileobj=io.BytesIO(self._content), mode="r:") as tar:
                for info in tar:
                    if info.isdir():
                        continue
                    is_plain = info.isreg() and not info.issparse()
                    self.entries.append((info.name, info.size, None if is_plain else "it is a link or a device"))
                    _check_number(len(self.entries))
                    if is_plain:
                        self._places[_plain(info.name)] = info.offset_data, info.offset_data + info.size
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep the headers of all files
                _check_end(self._content, tar.offset)
        except _ERRORS as error:
            raise _broken(error) from None

    def read(self, name: str) -> bytes:
        try:
            begin, end = self._places[name]
        except KeyError as error:
            raise _broken(error) from None
        return self._content[begin:end]

    def close(self) -> None:
        self._content = b""


def _unpacked(file: io.BufferedReader) -> bytes:
    """All bytes of a file, unpacked if it is packed by gzip; its checksum is at the end. Raises ArchiveError."""
    with gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else nullcontext(file) as unpacking:
        parts: list[bytes] = []
        num_bytes = 0
        while part := unpacking.read(_PIECE_BYTES):
            parts.append(part)
            num_bytes += len(part)
            if num_bytes > MAX_BYTES:
                raise ArchiveError(f"it unpacks to more than {MAX_BYTES:,} bytes: unpack it to a disk")
    return b"".join(parts)


def _check_end(content: bytes, end: int) -> None:
    """Raise ArchiveError unless a tar's files end with its end mark, and nothing follows.

    The standard library stops without a word at a header that is damaged, and where the file was cut between two files.
    """
    rest = memoryview(content)[end:]
    if len(rest) < tarfile.BLOCKSIZE or any(rest[: tarfile.BLOCKSIZE]):
        raise ArchiveError(f"the archive is damaged: after {end:,} bytes comes neither a file nor the tar's end")
    if bytes(rest).strip(b"\0"):
        raise ArchiveError(f"the tar ends after {end:,} bytes, but something follows, such as another tar: unpack it")


def _is_zip(path: str) -> bool:
    return path.lower().endswith(".zip")


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _check_number(number: int) -> None:
    if number > MAX_FILES:
        raise ArchiveError(f"it holds more than {MAX_FILES:,} files: unpack it to a disk")


def _broken(error: BaseException) -> Exception:
    """ArchiveError, or the OSError itself where the disk is at fault."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    what = "it is not there" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return ArchiveError(f"the archive is damaged: {what}")


_lock = threading.Lock()
_open: OrderedDict[tuple[str, int, int, int], _Archive] = OrderedDict()


def _opened(path: str) -> _Archive:
    status = os.stat(path)
    key = (path, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _open:
        while len(_open) >= _KEPT:
            _open.popitem(last=False)[1].close()
        _open[key] = _Zip(path) if _is_zip(path) else _Tar(path)
    _open.move_to_end(key)
    return _open[key]


def folders_of(members: list[Member]) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Folders of an archive, sorted, each with the names and sizes of its files."""
    folders: dict[str, list[tuple[str, int]]] = {}
    for member in members:
        folder, _, name = member.name.rpartition("/")
        folders.setdefault(folder, []).append((name, member.size_bytes))
    yield from sorted(folders.items())
