"""OpenGait's pickles: `subject/type/view/*.pkl`, one array for each sequence.

In CASIA-B the type is the walk (`001/nm-01/090/090.pkl`), in OUMVLP the sequence (`00001/00/000/000.pkl`). Several
files, each another modality of the same walk, may lie side by side; a pattern says which are wanted.
"""

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from attengait.datasets.files import FoundFile, check_folder, count_files, entries, sequences_of, status_of
from attengait.datasets.source import Folders, OneFile, Scan
from attengait.datasets.unpickling import read_array, read_header
from attengait.errors import AttenGaitError, ParameterError
from attengait.store.description import FILE_NAME as DESCRIPTION
from attengait.store.description import read_description
from attengait.store.skipped import Reason, Skipped

LAYOUT = "subject/type/view/*.pkl"
_SUFFIX = ".pkl"


@dataclass(frozen=True, slots=True, kw_only=True)
class PickledArray(OneFile):
    """A pickle of one array (an ArrayFile)."""

    kind: ClassVar[str] = "pickles"
    blue_first: ClassVar[bool] = False

    shape: tuple[int, ...]

    def read(self) -> NDArray[Any]:
        """The array; raises FileError. Nothing in the file is run."""
        return read_array(self.path)


def scan(folders: Folders, *, preferred: tuple[str, ...] | None = None) -> Scan:
    """The sequences of a folder of pickles, by subject, type and view; only the headers are read.

    `folders.pattern` chooses among several files of a sequence by their names, with or without `.pkl`: `*-rgbs` or
    `1_sil.pkl`. `preferred` are names to try in turn; {walk} and {view} stand for those of the sequence, and one that
    has none of them is left out. Raises ParameterError when a pattern is needed or chooses more than one file,
    AttenGaitError when there is no sequence, and for a damaged attengait.json.
    """
    folder, pattern = check_folder(folders.files, LAYOUT), folders.pattern
    skipped: list[Skipped] = []
    found = [
        file
        for subject in _folders(folder, skipped)
        for walk in _folders(subject.path, skipped)
        for view in _folders(walk.path, skipped)
        if (file := _file_of((subject.name, walk.name, view.name), view.path, pattern, preferred, skipped)) is not None
    ]
    if not found:
        chosen = "" if pattern is None else f", with names like {pattern!r}"
        if any(each.reason is Reason.NO_SUCH_FILE for each in skipped) and preferred is not None:
            chosen = f", with a file named {' or '.join(preferred)}; choose another one with --file"
        raise AttenGaitError(f"the folder {folder} holds no sequence laid out as {LAYOUT}{chosen}")
    names = {os.path.basename(file.path) for file in found}
    description = read_description(folder, names.pop() if len(names) == 1 else None)
    sequences = sequences_of(found, _open, skipped)
    return Scan(
        sequences=tuple(sequences),
        skipped=tuple(skipped),
        description=description,
        recorded={"name": "import-pickles", "version": 1, "layout": LAYOUT}
        | ({} if pattern is None else {"file": pattern}),
    )


def _open(path: str) -> PickledArray:
    return PickledArray(path=path, shape=read_header(path).shape)


def _folders(path: str | Path, skipped: list[Skipped]) -> list[os.DirEntry[str]]:
    found, files = [], []
    for entry in entries(path, skipped):
        if entry.is_dir():
            found.append(entry)
        elif entry.name != DESCRIPTION:
            files.append(entry.name)
    count_files(files, path, LAYOUT, skipped)
    return found


def _file_of(
    name: tuple[str, str, str],
    folder: str,
    pattern: str | None,
    preferred: tuple[str, ...] | None,
    skipped: list[Skipped],
) -> FoundFile | None:
    all_files, others = [], []
    for entry in entries(folder, skipped):
        if entry.is_dir():
            skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=entry.path))
        elif entry.name.lower().endswith(_SUFFIX):
            all_files.append(entry)
        else:
            others.append(entry.name)
    count_files(others, folder, LAYOUT, skipped)
    chosen = [entry for entry in all_files if pattern is None or _fits(entry.name, pattern)]
    if preferred is not None:
        chosen = _preferred(chosen, [file.format(walk=name[1], view=name[2]) for file in preferred])
    if len(chosen) > 1:
        names = ", ".join(entry.name for entry in chosen)
        raise ParameterError(
            f"file is {pattern!r}, but must choose one of the {len(chosen)} files in {folder}: {names}"
            if pattern is not None
            else f"file is missing: {folder} holds {len(chosen)} files ({names}), of which it must choose one"
        )
    if not chosen:
        reason = Reason.NO_SUCH_FILE if all_files else Reason.NO_PICKLE
        skipped.append(Skipped(reason=reason, where="/".join(name), detail=folder))
        return None
    status = status_of(chosen[0], skipped)
    if status is None:
        return None
    subject, walk, view = name
    return FoundFile(
        subject=subject,
        walk=walk,
        view=view,
        path=chosen[0].path,
        size_bytes=status.st_size,
        changed_ns=status.st_mtime_ns,
    )


def _preferred(files: list[os.DirEntry[str]], names: list[str]) -> list[os.DirEntry[str]]:
    """The first of the names that is there, alone; else none."""
    by_name = {file.name: file for file in files}
    return [by_name[name] for name in names if name in by_name][:1]


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name[: -len(_SUFFIX)], pattern)
