"""A store's sequences as files in a folder: what every export of them has in common.

Everything is made in a folder beside the one asked for, which is renamed when it is complete. Files there are whole or
absent, so a run that was killed is continued by the same call.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import Store, open_store
from attengait.store.description import FILE_NAME, MAX_BYTES
from attengait.store.layout import work_path
from attengait.store.location import Location
from attengait.store.readers.base import ClipReader, Frames
from attengait.store.workfolder import WorkFolder, locked, put_in_place
from attengait.system.documents import parse_document, read_document
from attengait.system.files import move_atomically, write_atomically
from attengait.system.progress import Progress
from attengait.system.workers import run_in_workers

_TASK_FRAMES = 4096
"""Frames of one task of a worker, about a shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceFile:
    """One file to write, and which frames of which store it holds."""

    path: str
    """Relative to the folder."""
    store: Location
    start: int
    length: int
    rows: NDArray[np.int64] | None = None
    """Frames of the sequence that are written, counted from its start; None for all."""
    details: Any = None
    """What else the encoder needs."""

    @property
    def num_frames(self) -> int:
        """Frames that are written."""
        return self.length if self.rows is None else len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What an export did, or would do."""

    out: Path
    num_sequences: int
    num_frames: int
    """Frames of each sequence's files: those of two aligned files are counted once."""
    num_bytes: int
    """Of all frames."""
    array_shape: str
    """Of one file, such as T x 3 x 64 x 64; of aligned files one after the other."""
    num_reused: int
    """Files that earlier runs had written; all where there was nothing to do."""
    num_files: int
    seconds: float | None
    """None where nothing was done."""
    left_out: tuple[str, ...] = ()
    """A line for each kind of what only one of two stores has, with its count."""

    def __str__(self) -> str:
        content = (
            f"{self.out}: {self.num_sequences:,} sequences, {self.num_frames:,} frames, uint8 {self.array_shape}, "
            f"{self.num_bytes / 1e9:,.3f} GB"
        )
        if self.seconds is not None:
            reused = f", {self.num_reused:,} files from earlier runs" if self.num_reused else ""
            content = f"{content} ({self.seconds:,.1f} s{reused})"
        elif self.num_reused == self.num_files:
            content = f"{content}; it was finished already, nothing was done"
        return "\n".join([content, *self.left_out])


Encode = Callable[[Frames, Any], bytes]
"""A file's bytes from frames uint8 [T, H, W, C] and the file's `details`; picklable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is written where."""

    out: Path
    files: list[SequenceFile]
    encode: Encode
    marker: bytes
    """The JSON document that says what was exported, written into the folder last."""
    extra: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    """What makes other small files of the folder, by their paths."""


def folder_to_make(out: str | Path, workers: int) -> Path:
    """The folder that is asked for; raises ParameterError for bad `workers` and for a URL."""
    if workers < 1:
        raise ParameterError(f"workers is {workers}, but must be at least 1")
    if (place := Location.parse(out)).is_remote:
        raise ParameterError(f"out is {place}, but must be a folder on this machine")
    return Path(out)


def names_of(store: Store) -> list[tuple[str, str, str]]:
    """Subject, walk and view of each sequence; raises AttenGaitError for a sequence that occurs twice."""
    columns = (store.sequences.subject, store.sequences.walk, store.sequences.view)
    names = list(zip(*(column.tolist() for column in columns), strict=True))
    if len(set(names)) < len(names):
        raise AttenGaitError(f"{store.location}: a sequence occurs twice (see attengait verify)")
    return names


def write_export(export: Export, *, workers: int, dry_run: bool, progress: Progress) -> tuple[int, bool]:
    """Write an export, or continue it; returns how many files earlier runs had written, and whether anything was done.

    Raises AttenGaitError when the folder is something else, when a sequence fails its checksum, and when writing fails.
    """
    out, work = export.out, WorkFolder(work_path(export.out))
    if _is_finished(export, work):
        if work.path.exists() and not dry_run:  # the run that finished was killed right after
            with locked(work):
                work.remove()
        return len(export.files), False
    if dry_run:
        return 0, False
    with locked(work):
        _begin(work, export)
        tree = work.path / "tree"
        try:
            tree.mkdir(exist_ok=True)
            present = {file.path for file in export.files if (tree / file.path).is_file()}
            with work.temporary_folder() as temporary:
                _write(export, present, tree, temporary, workers, progress)
            for path, make in export.extra.items():
                write_atomically(tree / path, make())
            write_atomically(tree / FILE_NAME, export.marker)
            move_atomically(tree, out)
        except KeyboardInterrupt as stop:
            raise type(stop)(f"stopped; {_kept(tree, export)}") from None
        except OSError as error:
            raise AttenGaitError(f"{out} could not be written: {error}; {_kept(tree, export)}") from error
        work.remove()
    return len(present), True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """Some files to be written by one worker."""

    tree: Path
    files: list[SequenceFile]
    encode: Encode
    temporary: Path


def _write(export: Export, present: set[str], tree: Path, temporary: Path, workers: int, progress: Progress) -> None:
    total, done = sum(file.num_frames for file in export.files), 0
    tasks: list[_Task] = []
    room = 0
    for file in export.files:
        if file.path in present:
            done += file.num_frames
            continue
        if not tasks or file.length > room or tasks[-1].files[-1].store != file.store:
            tasks.append(_Task(tree=tree, files=[], encode=export.encode, temporary=temporary))
            room = max(_TASK_FRAMES, file.length)
        room -= file.length
        tasks[-1].files.append(file)
    progress.update("Exporting", done, total, unit="frames")

    def add(num_frames: int) -> None:
        nonlocal done
        done += num_frames
        progress.update("Exporting", done, total, unit="frames")

    if tasks:
        run_in_workers(_export, tasks, num_workers=min(workers, len(tasks)), on_result=add)


def _export(task: _Task) -> int:
    """Write some files; returns how many frames they have."""
    for file in task.files:
        (frames,) = _reader(file.store).read_clips([file.start], [file.length])
        if file.rows is not None:
            frames = frames[file.rows]
        temporary = task.temporary / f"{os.getpid()}.part"
        temporary.write_bytes(task.encode(frames, file.details))
        put_in_place(temporary, task.tree / file.path)
    return sum(file.num_frames for file in task.files)


@lru_cache(maxsize=2)
def _reader(store: Location) -> ClipReader:
    """One for all tasks of a worker process, which ends with them."""
    return open_store(store).reader()


def _kept(tree: Path, export: Export) -> str:
    num_kept = sum((tree / file.path).is_file() for file in export.files)
    return f"{num_kept:,} of {len(export.files):,} files are kept: run the same command again to continue"


def _is_finished(export: Export, work: WorkFolder) -> bool:
    """Whether the folder is this export, finished; raises AttenGaitError when it is something else."""
    out = export.out
    if out.name in ("", ".."):
        raise AttenGaitError(f"{out} is a folder that exists already: name the folder to make")
    if not out.parent.is_dir():
        raise AttenGaitError(f"{out.parent}, the folder to make {out.name} in, does not exist")
    if work.is_foreign():
        raise AttenGaitError(f"{work.path} is in the way: no interrupted run left it there")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        raise AttenGaitError(f"{out} exists already and is a file: choose another --out")
    try:
        there = read_document(out / FILE_NAME, max_bytes=MAX_BYTES)
    except FileNotFoundError:
        raise AttenGaitError(f"{out} exists already and is not empty: choose another --out") from None
    except (OSError, ValueError) as error:
        raise AttenGaitError(f"{out / FILE_NAME} is damaged ({error}): choose another --out") from None
    if _identity(there) != _identity(json.loads(export.marker)):
        raise AttenGaitError(f"{out} holds the export of another store, or another export: choose another --out")
    paths = [*(file.path for file in export.files), *export.extra]
    if missing := [path for path in paths if not (out / path).is_file()]:
        raise AttenGaitError(f"{out} lacks {len(missing)} of its files, such as {missing[0]}: choose another --out")
    return True


def _identity(marker: Any) -> Any:
    """A marker without the recipes, which do not say what is in the files."""
    if not isinstance(marker, dict):
        return marker
    return {key: _identity(value) for key, value in marker.items() if key != "recipe"}


def _begin(work: WorkFolder, export: Export) -> None:
    """Note in the work folder whose files it holds; raises AttenGaitError when it holds another export's."""
    plan = {"export": json.loads(export.marker)}
    try:
        begun = parse_document(work.plan_file.read_bytes())
    except FileNotFoundError:
        write_atomically(work.plan_file, json.dumps(plan).encode())
        return
    except ValueError as error:
        raise AttenGaitError(f"{work.plan_file} is damaged ({error}): delete {work.path} to start anew") from None
    if begun != plan:
        raise AttenGaitError(f"{export.out} was begun from another store: choose another --out, or delete {work.path}")
