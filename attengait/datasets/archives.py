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
from contextlib import closing
from dataclasses import dataclass
from typing import IO, Protocol

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
    with closing(_Zip(path) if _is_zip(path) else _Tar(path, keep=False)) as archive:
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
        self._infos = {_plain(info.filename): info for info in infos}

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
    """A tar, read once from its beginning to its end."""

    def __init__(self, path: str, *, keep: bool) -> None:
        self.entries: list[tuple[str, int, str | None]] = []
        self._content: dict[str, bytes] = {}
        try:
            with open_regular(path) as file, _Bounded(_unzipped(file)) as bounded:
                with tarfile.open(fileobj=bounded, mode="r|", bufsize=1 << 20) as tar:
                    for info in tar:
                        if info.isdir():
                            continue
                        is_plain = info.isreg() and not info.issparse()
                        self.entries.append((info.name, info.size, None if is_plain else "it is a link or a device"))
                        _check_number(len(self.entries))
                        content = tar.extractfile(info) if keep and is_plain else None
                        if content is not None:
                            self._content[_plain(info.name)] = content.read()
                        tar.members.clear()  # type: ignore[attr-defined]  # it would keep the headers of all files
                while bounded.read(1 << 20):  # the checksum of gzip is at the end
                    pass
        except _ERRORS as error:
            raise _broken(error) from None

    def read(self, name: str) -> bytes:
        try:
            return self._content[name]
        except KeyError as error:
            raise _broken(error) from None

    def close(self) -> None:
        self._content.clear()


class _Bounded(io.RawIOBase):
    """What is unpacked, until it is too much."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._num_bytes = file, 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, 1 << 24) if size >= 0 else 1 << 24)
        self._num_bytes += len(data)
        if self._num_bytes > MAX_BYTES:
            raise ArchiveError(f"it unpacks to more than {MAX_BYTES:,} bytes: unpack it to a disk")
        return data


def _unzipped(file: io.BufferedReader) -> IO[bytes]:
    return gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file  # type: ignore[return-value]


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
        _open[key] = _Zip(path) if _is_zip(path) else _Tar(path, keep=True)
    _open.move_to_end(key)
    return _open[key]


def folders_of(members: list[Member]) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Folders of an archive, sorted, each with the names and sizes of its files."""
    folders: dict[str, list[tuple[str, int]]] = {}
    for member in members:
        folder, _, name = member.name.rpartition("/")
        folders.setdefault(folder, []).append((name, member.size_bytes))
    yield from sorted(folders.items())
