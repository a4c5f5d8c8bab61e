"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        move_atomically(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move_atomically(source: Path, target: Path) -> None:
    """Rename a finished file or folder into its place on the same file system and flush the folder's entry."""
    os.replace(source, target)
    sync_folder(target.parent)
