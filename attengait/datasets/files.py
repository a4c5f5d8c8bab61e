"""Files of other programs, one for each sequence: how they are found in folders and become sequences."""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attengait.datasets.arrays import FileError
from attengait.datasets.inputs import pack_stamps
from attengait.datasets.source import ARRAY, ArrayFile, SourceSequence, digest
from attengait.errors import AttenGaitError, ParameterError
from attengait.store.skipped import Reason, Skipped

MakeArray = Callable[[str], ArrayFile]
"""From a path to what reads it; reads the file's header only. Raises FileError where it holds no array."""


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


def check_folder(folder: Path | None, layout: str) -> Path:
    """The folder; ParameterError where none was given, AttenGaitError for one that is missing or is a file."""
    if folder is None:
        raise ParameterError(f"files is missing, but must be a folder laid out as {layout}")
    if not folder.exists():
        raise AttenGaitError(f"the folder {folder} does not exist")
    if not folder.is_dir():
        raise AttenGaitError(f"{folder} is a file: a folder laid out as {layout} is expected")
    return folder


def sequences_of(found: Iterable[FoundFile], make_array: MakeArray, skipped: list[Skipped]) -> list[SourceSequence]:
    """Read the header of every file; one that holds no array is skipped."""
    sequences = []
    for file in found:
        try:
            array = make_array(file.path)
        except FileError as error:
            skipped.append(skipped_file(file.name, file.path, error))
            continue
        lines = [os.path.basename(file.path), str(file.size_bytes)]
        sequences.append(
            SourceSequence(
                subject=file.subject,
                walk=file.walk,
                view=file.view,
                parts={ARRAY: array},
                content_digest=digest(lines),
                scan_digest=digest([*lines, str(file.changed_ns)]),
                stamps=pack_stamps([(file.size_bytes, file.changed_ns)]),
            )
        )
    return sequences


def skipped_file(name: str, path: str, error: FileError) -> Skipped:
    """What to say of a sequence whose file gives no pictures."""
    sentence = str(error)
    detail = sentence if path in sentence else f"{path} cannot be imported: {sentence}"
    return Skipped(reason=error.reason, where=name, detail=detail)


def entries(path: str | Path, skipped: list[Skipped]) -> list[os.DirEntry[str]]:
    """A folder's entries by name, without hidden ones and those whose names no store can hold."""
    try:
        with os.scandir(path) as found:
            listed = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        skipped.append(Skipped(reason=Reason.UNREADABLE_FOLDER, where=str(path), detail=error.strerror or ""))
        return []
    listed = [entry for entry in listed if leads_somewhere(entry, skipped)]
    sound = [entry for entry in listed if _is_text(entry.name)]
    if len(sound) < len(listed):
        detail = f"{len(listed) - len(sound)} names are not UTF-8"
        skipped.append(Skipped(reason=Reason.FOREIGN_NAMES, where=str(path), detail=detail))
    return sound


def leads_somewhere(entry: os.DirEntry[str], skipped: list[Skipped]) -> bool:
    """Whether an entry is no link, or one to something; else it is named in `skipped`."""
    try:
        if entry.is_symlink():
            entry.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            skipped.append(Skipped(reason=Reason.LINK_IN_CIRCLE, where=entry.path, detail="it leads to itself"))
        else:
            why = f"it is a link, and what it leads to cannot be read: {error.strerror}"
            skipped.append(Skipped(reason=Reason.UNREADABLE_FILE, where=entry.path, detail=why))
        return False
    return True


def leads_back(entry: os.DirEntry[str], path: str, skipped: list[Skipped]) -> bool:
    """Whether a folder is a link to `path` or to a folder above it; if so, it is named in `skipped`."""
    if not entry.is_symlink():
        return False
    there, here = (os.path.join(os.path.realpath(each), "") for each in (entry.path, path))
    way = (os.path.join(os.path.realpath(each), "") for each in Path(path).parents)
    if not here.startswith(there) and there not in way:
        return False
    skipped.append(Skipped(reason=Reason.LINK_IN_CIRCLE, where=entry.path, detail=f"it leads to {there}"))
    return True


def count_files(names: Sequence[str], folder: str | Path, layout: str, skipped: list[Skipped]) -> None:
    """Count the files in a folder that are none of those looked for."""
    if names:
        detail = f"{len(names)} files are not laid out as {layout}; the first is {names[0]}"
        skipped.append(Skipped(reason=Reason.FOREIGN_FILE, where=str(folder), detail=detail))


def status_of(entry: os.DirEntry[str], skipped: list[Skipped]) -> os.stat_result | None:
    """A file's size and times; None where there are none, which is noted in `skipped`."""
    try:
        return entry.stat()
    except OSError as error:
        skipped.append(Skipped(reason=Reason.UNREADABLE_FILE, where=entry.path, detail=error.strerror or ""))
        return None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
