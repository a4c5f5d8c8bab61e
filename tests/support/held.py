"""What this process holds of a folder, whatever other tests left to the garbage collector; and what it has anew."""

import os
from pathlib import Path


def open_files(folder: Path) -> int:
    """How many files below a folder (or how often one file) are open."""
    return sum(_is_below(each, folder) for each in _descriptors().values())


def maps(folder: Path) -> int:
    """How many maps of files below a folder there are."""
    lines = os.fsdecode(Path("/proc/self/maps").read_bytes()).splitlines()
    return sum(_is_below(line.split(maxsplit=5)[-1], folder) for line in lines)


def threads() -> set[str]:
    """The threads there are. To be compared with those of another moment."""
    return set(os.listdir("/proc/self/task"))


def descriptors() -> set[tuple[str, str]]:
    """The files, sockets and pipes that are open. To be compared with those of another moment."""
    return set(_descriptors().items())


def _descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # such as that of the listing itself
            continue
    return found


def _is_below(path: str, folder: Path) -> bool:
    return Path(path.removesuffix(" (deleted)")).is_relative_to(folder.resolve())
