"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed."""

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import IO

from attengait.errors import AttenGaitError


def regular_file(path: Path) -> IO[bytes]:
    """Open a file to read bytes. Raises OSError as `open` does, AttenGaitError where it is no regular file.

    A FIFO is not waited for, and a device is not read: it may never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "something else")
            raise AttenGaitError(f"{path} is {kind}, but must be a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(file: IO[bytes], busy: AttenGaitError) -> None:
    """Hold a lock until the file is closed or the process ends, however it ends; raise `busy` where another holds it.

    The file must be open for writing: network file systems lock no others.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    except OSError as error:
        raise AttenGaitError(f"{file.name} cannot be locked: {error.strerror or error}") from error


def check_target(path: Path) -> None:
    """Raise AttenGaitError if no file can be written at `path`. Called before long work begins."""
    if not path.name or path.is_dir():
        raise AttenGaitError(f"{path} cannot be written: it is a folder, name a file in it")
    if not path.parent.is_dir():
        raise AttenGaitError(f"{path} cannot be written: there is no folder {path.parent}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old file or the new one, never a part.

    Raises AttenGaitError where that cannot be done (no such folder, no permission, disk full).
    """
    check_target(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        move_atomically(temporary, path)
    except OSError as error:
        raise AttenGaitError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def move_atomically(source: Path, target: Path) -> None:
    """Rename a finished file or folder into its place on the same file system and flush the folder's entry."""
    os.replace(source, target)
    sync_folder(target.parent)
