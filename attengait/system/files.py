"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed.

And files that others bring: only a regular file is read. Opening a named pipe would wait for ever, and a device never
ends.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import IO

from attengait.errors import AttenGaitError, require

LOCK_TRIES = 10


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading bytes, as `open(path, "rb")` does, if it is a regular file or a link to one.

    Raises OSError as `open` does. A folder, named pipe, socket or device is an OSError, too: nothing is waited for.
    Its `strerror` continues a sentence such as `PATH cannot be read: it is a named pipe, not a file`.
    """
    descriptor = _open_descriptor(path)
    try:
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """A file's bytes, as `open_regular(path).read()` gives them in thrice the time: pictures are many small files."""
    descriptor = _open_descriptor(path)
    try:
        parts = []
        size = os.fstat(descriptor).st_size
        # One byte more than it has: a file that grew is read to its end, too.
        while part := os.read(descriptor, size + 1):
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(descriptor)


def _open_descriptor(path: str | os.PathLike[str]) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device without its hardware
            check_regular(path)
        raise
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError as `open_regular` does: for libraries that open a path themselves."""
    _check_mode(path, os.stat(path).st_mode)


def _check_mode(path: str | os.PathLike[str], mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "device")
        raise OSError(
            errno.EISDIR if kind == "folder" else errno.EINVAL, f"it is a {kind}, not a file", os.fspath(path)
        )


_KINDS = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "named pipe"), (stat.S_ISSOCK, "socket"))


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(file: IO[bytes], busy: AttenGaitError) -> None:
    """Hold a lock until the file is closed or the process ends, however it ends; raise `busy` where another holds it.

    The file must be open for writing: network file systems lock no others. Whoever only looks whether there is a lock,
    as `attengait runs`, has one himself for a moment, so that it is tried more than once.
    """
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.02)
        except OSError as error:
            raise AttenGaitError(f"{file.name} cannot be locked: {error.strerror or error}") from error
    raise busy


def check_target(path: Path, name: str, others: Iterable[str | Path | None] = ()) -> None:
    """Look at the file that an option `name` lets a command write. Called before long work begins.

    `others` are the files that the command reads, or also writes. Raises AttenGaitError if no file can be written at
    `path`. Raises ParameterError if it is one of `others`, if it lies in the folder of a store, and if it has the name
    of a run's own file there: what is there would be lost.
    """
    _check_place(path)
    for other in others:
        if other is not None:
            is_same = path.resolve() == Path(other).resolve()
            with contextlib.suppress(OSError):
                is_same = is_same or path.samefile(other)  # a hard link
            require(not is_same, name, str(path), f"another file than {other}, which this command needs")
    check_outside_stores(path, name)
    folder = path.resolve().parent
    is_run = (folder / "config.json").exists() and any((folder / mark).exists() for mark in _RUN_MARKS)
    is_own = is_run and path.name in _RUN_FILES
    require(not is_own, name, str(path), f"another name than those of the run's own files in {folder}")


def check_outside_stores(path: Path, name: str) -> None:
    """Raise ParameterError, for the option `name`, where a path lies in the folder of a store."""
    for folder in path.resolve().parents:
        is_store = (folder / "zarr.json").exists()
        require(not is_store, name, str(path), f"outside {folder}, which is the folder of a store")


_RUN_MARKS = {"checkpoint.pt", "environment.json", "model.safetensors"}
_RUN_FILES = {".lock", "config.json", "first_batch.png", "metrics.jsonl", "profile.json.gz", "train.log", *_RUN_MARKS}
"""What a run writes into its folder, and into those of the checkpoints that it keeps."""


def _check_place(path: Path) -> None:
    if not path.name or path.is_dir():
        raise AttenGaitError(f"{path} cannot be written: it is a folder, name a file in it")
    if not path.parent.is_dir():
        raise AttenGaitError(f"{path} cannot be written: there is no folder {path.parent}")


def write_atomically(path: Path, data: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write `data`, or what the function `data` writes, to `path`; a reader sees the old file or the new one, never a
    part.

    Raises AttenGaitError where that cannot be done (no such folder, no permission, disk full).
    """
    _check_place(path)
    remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _locked_file(temporary) as file:
            data(file) if callable(data) else file.write(data)
            file.flush()
            os.fsync(file.fileno())
            move_atomically(temporary, path)
    except OSError as error:
        raise AttenGaitError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def note_settings(path: Path, settings: Mapping[str, object], name: str) -> None:
    """Note in the file `path` what its folder is made with. Raises ParameterError, for the option `name`, where the
    folder was made with something else."""
    text = json.dumps(settings) + "\n"
    if not path.exists():
        write_atomically(path, text.encode())
        return
    before = path.read_text(encoding="utf-8", errors="replace")
    other = f"another folder for {text.strip()}: this one holds {before.strip()}"
    require(before == text, name, str(path.parent), other)


def _locked_file(path: Path) -> IO[bytes]:
    """A new file with a lock, which it has until it is closed: whoever else gets the lock knows that the writer was
    killed."""
    while True:
        file = path.open("wb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # it was removed between its opening and its lock


def remove_leftovers(path: Path) -> None:
    """Remove what `write_atomically` left beside `path` when it was killed.

    A file that another process is writing is locked, and stays. So does everything that has another form of name, and
    everything on a file system without locks.
    """
    form = re.compile(rf"\.{re.escape(path.name)}\.[0-9]+\.tmp")
    with contextlib.suppress(OSError):
        leftovers = [entry for entry in path.parent.iterdir() if form.fullmatch(entry.name)]
        for entry in leftovers:
            with contextlib.suppress(OSError), open_regular(entry) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                entry.unlink()


def move_atomically(source: Path, target: Path) -> None:
    """Rename a finished file or folder into its place on the same file system and flush the folder's entry."""
    os.replace(source, target)
    sync_folder(target.parent)
