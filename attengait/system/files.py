"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from attengait.errors import AttenGaitError


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
