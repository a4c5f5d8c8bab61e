"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed."""

import contextlib
import os
from pathlib import Path

from attengait.errors import AttenGaitError


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_folder_of(path: Path) -> None:
    """Raise AttenGaitError where the folder to write `path` into is missing: said before the work, not after it."""
    if not path.parent.is_dir():
        raise AttenGaitError(f"{path} cannot be written: there is no folder {path.parent}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old file or the new one, never a part.

    Raises AttenGaitError where that cannot be done (no such folder, no permission, disk full).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        move_atomically(temporary, path)
    except OSError as error:
        raise AttenGaitError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def move_atomically(source: Path, target: Path) -> None:
    """Rename a finished file or folder into its place on the same file system and flush the folder's entry."""
    os.replace(source, target)
    sync_folder(target.parent)
