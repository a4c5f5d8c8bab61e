"""Files of other programs, one for each sequence, as they are found in folders."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from attengait.datasets.source import Problem, digest
from attengait.errors import AttenGaitError


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file that holds one sequence, by its place and name; it was not opened."""

    subject: str
    walk: str
    view: str
    path: str
    size_bytes: int
    changed_ns: int
    """Time of last change."""

    @property
    def name(self) -> str:
        """Such as 001/nm-01/090."""
        return f"{self.subject}/{self.walk}/{self.view}"

    @property
    def content_digest(self) -> str:
        """Hexadecimal digest of the file's name and size: equal for a copy elsewhere."""
        return digest([os.path.basename(self.path), str(self.size_bytes)])

    @property
    def scan_digest(self) -> str:
        """The same with the time of last change: differs when the file was written again."""
        return digest([os.path.basename(self.path), str(self.size_bytes), str(self.changed_ns)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a folder holds."""

    files: tuple[FoundFile, ...]
    """By subject, walk and view."""
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Another program's files: how to find and to read them. The functions are picklable."""

    find: Callable[[Path, str | None], Found]
    """Given the folder and a pattern of file names, or None. Raises AttenGaitError when there is no sequence."""
    read_shape: Callable[[str], tuple[int, ...]]
    """The shape of a file's array, reading little of it; raises FileError."""
    read_array: Callable[[str], NDArray[Any]]
    """A file's array; raises FileError."""
    packages: tuple[str, ...]
    """Which have a hand in the bytes, beside NumPy and the store's own."""
    layout: str
    """How the files lie in the folder."""
    modality: str | None
    """What they show where nobody says; None where their channels decide."""


def check_folder(folder: Path, layout: str) -> None:
    """Raise AttenGaitError for a folder that is missing or is none."""
    if not folder.exists():
        raise AttenGaitError(f"the folder {folder} does not exist")
    if not folder.is_dir():
        raise AttenGaitError(f"{folder} is a file: a folder laid out as {layout} is expected")


def entries(path: str | Path, problems: list[Problem]) -> list[os.DirEntry[str]]:
    """A folder's entries by name, without hidden ones and those whose names no store can hold."""
    try:
        with os.scandir(path) as found:
            listed = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        problems.append(Problem(reason="unreadable folder", where=str(path), detail=error.strerror or ""))
        return []
    sound = [entry for entry in listed if _is_text(entry.name)]
    if len(sound) < len(listed):
        detail = f"{len(listed) - len(sound)} names are not UTF-8"
        problems.append(Problem(reason="foreign names", where=str(path), detail=detail))
    return sound


def status_of(entry: os.DirEntry[str], problems: list[Problem]) -> os.stat_result | None:
    """A file's size and times; None, and a problem, where there are none."""
    try:
        return entry.stat()
    except OSError as error:
        problems.append(Problem(reason="unreadable file", where=entry.path, detail=error.strerror or ""))
        return None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
