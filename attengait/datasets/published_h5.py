"""The HDF5 files of the published AttenGait: one for each sequence, in one folder.

Each holds `data`, uint8 [T, 64, 64, 3], and says more in attributes of the root; the names tell who walks:

    001_nm-01_090.h5    CASIA-B: subject, walk, view (older: 001-nm-01-090.h5)
    00001_090_01.h5     OUMVLP: subject, view, sequence
    00001_4XPn5Z28.h5   GREW: subject, sequence; there are no views, which is written 000
    4XPn5Z28.h5         GREW's probes: sequence; nobody knows the subject, which is written unknown

Beside each such folder is a file that lists them. It is ignored. The published program keeps the flow that it computes,
CASIA-B's, as red, green, blue, and the ready flow images of GREW and OUMVLP as blue, green, red. A folder that
`export h5` wrote says what its pictures show, and has red, green, blue for each data set.
"""

import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.arrays import FileError
from attengait.datasets.files import FoundFile, check_folder, count_files, entries, leads_back, sequences_of, status_of
from attengait.datasets.source import Folders, OneFile, Scan
from attengait.errors import AttenGaitError, how_to_install
from attengait.store.description import FILE_NAME as DESCRIPTION
from attengait.store.description import Description, read_description
from attengait.store.skipped import Reason, Skipped
from attengait.system.hdf5 import check_numbers, member, open_hdf5

LAYOUT = "one .h5 file for each sequence, such as 001_nm-01_090.h5"
_SUFFIXES = (".h5", ".hdf5")
_NAMES = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"(?P<subject>\d{3})[_-](?P<walk>[a-z]{2}-\d{2})[_-](?P<view>\d{3})",
        r"(?P<subject>\d{5})_(?P<view>\d{3})_(?P<walk>\d{2})",
        r"(?P<subject>\d{3,5})_(?P<walk>[0-9A-Za-z]+)",
        r"(?P<walk>[0-9A-Za-z]+)",
    )
)
_OF_CASIA_B = _NAMES[0]


class Hdf5Error(FileError):
    """A file that is no HDF5 file of a sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdf5Array(OneFile):
    """The array `data` of an HDF5 file (an ArrayFile)."""

    kind: ClassVar[str] = "h5"

    shape: tuple[int, ...]
    blue_first: bool = False

    def read(self) -> NDArray[Any]:
        """The array; raises Hdf5Error."""
        with _opened(self.path) as data:
            return np.asarray(data[()])


def scan(folders: Folders) -> Scan:
    """The sequences of the HDF5 files in a folder and those below, by subject, walk and view; only headers are read.

    Raises AttenGaitError when h5py is not installed and when there is no sequence.
    """
    if importlib.util.find_spec("h5py") is None:
        raise AttenGaitError(f"reading HDF5 files needs h5py: {how_to_install()}")
    folder = check_folder(folders.files, LAYOUT)
    skipped: list[Skipped] = []
    found: dict[tuple[str, str, str], FoundFile] = {}
    for entry in _files(folder, skipped):
        name = sequence_name(os.path.splitext(entry.name)[0])
        if name is None:
            detail = "its name is not a sequence's"
            skipped.append(Skipped(reason=Reason.FOREIGN_FILE, where=entry.path, detail=detail))
        elif name in found:
            detail = f"{found[name].path} is used"
            skipped.append(Skipped(reason=Reason.SEQUENCE_TWICE, where=entry.path, detail=detail))
        elif (status := status_of(entry, skipped)) is not None:
            subject, walk, view = name
            found[name] = FoundFile(
                subject=subject,
                walk=walk,
                view=view,
                path=entry.path,
                size_bytes=status.st_size,
                changed_ns=status.st_mtime_ns,
            )
    if not found:
        raise AttenGaitError(f"the folder {folder} does not hold {LAYOUT}")
    # A part of an export lies in a folder of its own.
    description = read_description(folder) or read_description(Path(os.path.abspath(folder)).parent)
    open_file = partial(_open, is_published=description is None)
    sequences = sequences_of((file for _, file in sorted(found.items())), open_file, skipped)
    return Scan(
        sequences=tuple(sequences),
        skipped=tuple(skipped),
        description=description
        or Description(attributes={"dataset": "imported", "modality": "flow", "encoding": "colour"}),
        recorded={"name": "import-h5", "version": 1, "layout": LAYOUT},
    )


def _open(path: str, *, is_published: bool) -> Hdf5Array:
    stem = os.path.splitext(os.path.basename(path))[0]
    blue_first = is_published and _OF_CASIA_B.fullmatch(stem) is None
    with _opened(path) as data:
        return Hdf5Array(path=path, shape=tuple(data.shape), blue_first=blue_first)


def sequence_name(stem: str) -> tuple[str, str, str] | None:
    """Subject, walk and view from a file's name without its suffix; None for the name of no sequence."""
    for pattern in _NAMES:
        if match := pattern.fullmatch(stem):
            found = match.groupdict()
            return found.get("subject", "unknown"), found["walk"], found.get("view", "000")
    return None


def stem_of(subject: str, walk: str, view: str) -> str | None:
    """The name of a sequence's file without its suffix: the inverse of `sequence_name`; None where there is none."""
    stems = (f"{subject}_{walk}_{view}", f"{subject}_{view}_{walk}", f"{subject}_{walk}", walk)
    return next((stem for stem in stems if sequence_name(stem) == (subject, walk, view)), None)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The array `data` of a file. Errors of h5py while it is used become Hdf5Error, too."""
    import h5py

    try:
        with open_hdf5(path) as file:
            data = member(file, "data")
            if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "biuf" or not data.shape or 0 in data.shape:
                raise Hdf5Error(f"{path} holds no array of numbers named data")
            check_numbers(data)
            factor = _number(file, "compressFactor")
            if factor:
                raise Hdf5Error(f"{path} holds values that were scaled by compressFactor {factor}, not pictures")
            yield data
    except Hdf5Error:
        raise
    except AttenGaitError as error:
        raise Hdf5Error(str(error)) from None


def _number(file: Any, name: str) -> float:
    """An attribute of the root that is one number; 0 where there is none."""
    if name not in file.attrs:
        return 0
    kept = file.attrs.get_id(name)
    if kept.dtype.kind not in "biuf" or np.prod(kept.shape, dtype=float) != 1:
        raise ValueError(f"its attribute {name} is no number")
    return float(np.asarray(file.attrs[name]).ravel()[0])


def _files(folder: str | Path, skipped: list[Skipped]) -> Iterator[os.DirEntry[str]]:
    others = []
    for entry in entries(folder, skipped):
        if entry.is_dir():
            if not leads_back(entry, str(folder), skipped):
                yield from _files(entry.path, skipped)
        elif not entry.name.lower().endswith(_SUFFIXES):
            others += [entry.name] if entry.name != DESCRIPTION else []
        elif not entry.name.startswith("tfimdb_"):
            yield entry
    count_files(others, folder, LAYOUT, skipped)
