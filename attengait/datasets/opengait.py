"""OpenGait's pickles: `subject/type/view/*.pkl`, one array for each sequence.

In CASIA-B the type is the walk (`001/nm-01/090/090.pkl`), in OUMVLP the sequence (`00001/00/000/000.pkl`). Several
files, each another modality of the same walk, may lie side by side; a pattern says which are wanted.
"""

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from attengait.datasets.found import Found, FoundFile, Source, check_folder, entries, status_of
from attengait.datasets.source import Problem
from attengait.datasets.unpickling import read_array, read_header
from attengait.errors import AttenGaitError, ParameterError

LAYOUT = "subject/type/view/*.pkl"


def find_pickles(folder: Path, pattern: str | None) -> Found:
    """The pickles in a folder, one for each sequence, by subject, type and view; none is opened.

    `pattern` chooses among several files of a sequence by their names, with or without `.pkl`: `*-rgbs` or `1_sil.pkl`.
    Raises ParameterError when one is needed or chooses more than one file, AttenGaitError when there is no sequence.
    """
    check_folder(folder, LAYOUT)
    problems: list[Problem] = []
    files = [
        file
        for subject in _folders(folder, problems)
        for walk in _folders(subject.path, problems)
        for view in _folders(walk.path, problems)
        if (file := _file_of((subject.name, walk.name, view.name), view.path, pattern, problems)) is not None
    ]
    if not files:
        chosen = "" if pattern is None else f", with names like {pattern!r}"
        raise AttenGaitError(f"the folder {folder} holds no sequence laid out as {LAYOUT}{chosen}")
    return Found(files=tuple(files), problems=tuple(problems))


def _folders(path: str | Path, problems: list[Problem]) -> list[os.DirEntry[str]]:
    return [entry for entry in entries(path, problems) if entry.is_dir()]


def _file_of(name: tuple[str, str, str], folder: str, pattern: str | None, problems: list[Problem]) -> FoundFile | None:
    all_files = [entry for entry in entries(folder, problems) if entry.name.endswith(".pkl") and not entry.is_dir()]
    chosen = [entry for entry in all_files if pattern is None or _fits(entry.name, pattern)]
    if len(chosen) > 1:
        names = ", ".join(entry.name for entry in chosen)
        raise ParameterError(
            f"file is {pattern!r}, but must choose one of the {len(chosen)} files in {folder}: {names}"
            if pattern is not None
            else f"file is missing: {folder} holds {len(chosen)} files ({names}), of which it must choose one"
        )
    if not chosen:
        reason = "no such file" if all_files else "no pickle"
        problems.append(Problem(reason=reason, where="/".join(name), detail=folder))
        return None
    status = status_of(chosen[0], problems)
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


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.removesuffix(".pkl"), pattern)


def _read_shape(path: str) -> tuple[int, ...]:
    return read_header(path).shape


def _read_array(path: str) -> NDArray[Any]:
    return read_array(path)


PICKLES = Source(
    find=find_pickles, read_shape=_read_shape, read_array=_read_array, packages=(), layout=LAYOUT, modality=None
)
