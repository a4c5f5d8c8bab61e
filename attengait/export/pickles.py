"""A store as OpenGait's pickles: `subject/walk/view/view.pkl`, one uint8 array for each sequence.

OpenGait reads [T, H, W] where there is one channel and [T, C, H, W] where there are several: its transforms cut the
last axis (64 columns to 44, which it does itself) and its models move the second one to the front. A sequence's
folder must hold nothing else, because OpenGait reads every file in it.

Everything is made in a folder beside the one asked for, which is renamed when it is complete. Files there are whole or
absent, so a run that was killed is continued by the same call.
"""

import json
import os
import pickle
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import Store, open_store
from attengait.store.description import FILE_NAME, Description, description_of, read_description, to_json
from attengait.store.layout import work_path
from attengait.store.location import Location, Where
from attengait.store.readers.base import ClipReader
from attengait.store.sequences import content_sha256
from attengait.store.workfolder import WorkFolder, locked, put_in_place
from attengait.system.documents import parse_document
from attengait.system.files import move_atomically, write_atomically
from attengait.system.progress import SILENT, Progress
from attengait.system.workers import run_in_workers

_TASK_FRAMES = 4096
"""Frames of one task of a worker, about a shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What an export did, or would do."""

    out: Path
    num_sequences: int
    num_frames: int
    num_bytes: int
    """Of all frames."""
    array_shape: str
    """Of one file, such as T x 3 x 64 x 64."""
    num_reused: int
    """Sequences that earlier runs had written; all where there was nothing to do."""
    seconds: float | None
    """None where nothing was done."""

    def __str__(self) -> str:
        content = (
            f"{self.out}: {self.num_sequences:,} sequences, {self.num_frames:,} frames, uint8 {self.array_shape}, "
            f"{self.num_bytes / 1e9:,.3f} GB"
        )
        if self.seconds is None:
            finished = self.num_reused == self.num_sequences
            return f"{content}; it was finished already, nothing was done" if finished else content
        reused = f", {self.num_reused:,} sequences from earlier runs" if self.num_reused else ""
        return f"{content} ({self.seconds:,.1f} s{reused})"


def export_pickles(
    where: Where,
    out: str | Path,
    *,
    workers: int = 1,
    dry_run: bool = False,
    progress: Progress = SILENT,
) -> ExportSummary:
    """Write the store at `where`, a folder or a URL, into the folder `out`, which must not exist or be empty.

    Continues a run that was stopped, and does nothing when `out` is a finished export of the same store. Raises
    ParameterError for bad `workers` and for a URL as `out`;
    AttenGaitError when the store cannot be read, when a name of it cannot be a folder's, when a sequence fails its
    checksum, when `out` is something else, and when writing fails.
    """
    if workers < 1:
        raise ParameterError(f"workers is {workers}, but must be at least 1")
    if (place := Location.parse(out)).is_remote:
        raise ParameterError(f"out is {place}, but must be a folder on this machine")
    out = Path(out)
    started = time.monotonic()
    store = open_store(where)
    paths = _paths(store)
    description = description_of(store.attributes, content_sha256(store.sequences))
    work = WorkFolder(work_path(out))
    is_finished = _check_out(out, work, description, paths)
    summary = partial(
        ExportSummary,
        out=out,
        num_sequences=len(store.sequences),
        num_frames=store.num_frames,
        num_bytes=store.num_frames * store.layout.frame_bytes,
        array_shape=" x ".join(["T", *map(str, _picture_shape(store))]),
    )
    if is_finished:
        if work.path.exists() and not dry_run:  # the run that finished was killed right after
            with locked(work):
                work.remove()
        return summary(num_reused=len(paths), seconds=None)
    if dry_run:
        return summary(num_reused=0, seconds=None)
    with locked(work):
        _begin(work, out, description)
        tree = work.path / "tree"
        try:
            tree.mkdir(exist_ok=True)
            present = {path for path in paths if (tree / path).is_file()}
            with work.temporary_folder() as temporary:
                _write(store, paths, present, tree, temporary, workers, progress)
            write_atomically(tree / FILE_NAME, to_json(description))
            move_atomically(tree, out)
        except KeyboardInterrupt as stop:
            raise type(stop)(f"stopped; {_kept(tree, paths)}") from None
        except OSError as error:
            raise AttenGaitError(f"{out} could not be written: {error}; {_kept(tree, paths)}") from error
        work.remove()
    return summary(num_reused=len(present), seconds=time.monotonic() - started)


def pickle_array(array: NDArray[np.uint8]) -> bytes:
    """An array as a pickle that any NumPy reads, also those before 2.0, in which a module had another name."""
    data = pickle.dumps(array, protocol=3)
    # Protocol 3 names its modules in plain lines, the first right after the two bytes of its number.
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    return data[:2] + old + data[2 + len(new) :] if data.startswith(new, 2) else data


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """Some sequences to be written by one worker."""

    store: Location
    targets: list[str]
    starts: list[int]
    lengths: list[int]
    temporary: Path


def _write(
    store: Store,
    paths: list[str],
    present: set[str],
    tree: Path,
    temporary: Path,
    workers: int,
    progress: Progress,
) -> None:
    sequences = store.sequences
    total, done = store.num_frames, 0
    tasks: list[_Task] = []
    room = 0
    for i, path in enumerate(paths):
        length = int(sequences.length[i])
        if path in present:
            done += length
            continue
        if not tasks or length > room:
            tasks.append(
                _Task(
                    store=store.location,
                    targets=[],
                    starts=[],
                    lengths=[],
                    temporary=temporary,
                )
            )
            room = max(_TASK_FRAMES, length)
        room -= length
        tasks[-1].targets.append(str(tree / path))
        tasks[-1].starts.append(int(sequences.start[i]))
        tasks[-1].lengths.append(length)
    progress.update("Exporting", done, total, unit="frames")

    def add(num_frames: int) -> None:
        nonlocal done
        done += num_frames
        progress.update("Exporting", done, total, unit="frames")

    if tasks:
        run_in_workers(_export, tasks, num_workers=min(workers, len(tasks)), on_result=add)


def _export(task: _Task) -> int:
    """Write some sequences; returns how many frames they have."""
    reader = _reader(task.store)
    for i, target in enumerate(map(Path, task.targets)):
        (frames,) = reader.read_clips([task.starts[i]], [task.lengths[i]])
        frames = frames[..., 0] if frames.shape[-1] == 1 else np.moveaxis(frames, -1, 1)
        temporary = task.temporary / f"{os.getpid()}.pkl"
        temporary.write_bytes(pickle_array(np.ascontiguousarray(frames)))
        put_in_place(temporary, target)
    return sum(task.lengths)


@lru_cache(maxsize=1)
def _reader(store: Location) -> ClipReader:
    """One for all tasks of a worker process, which ends with them."""
    return open_store(store).reader()


def _picture_shape(store: Store) -> tuple[int, ...]:
    height, width, channels = store.frame_shape
    return (height, width) if channels == 1 else (channels, height, width)


def _kept(tree: Path, paths: list[str]) -> str:
    num_kept = sum((tree / path).is_file() for path in paths)
    return f"{num_kept:,} of {len(paths):,} sequences are kept: run the same command again to continue"


def _paths(store: Store) -> list[str]:
    """Where each sequence goes, relative to the folder; raises AttenGaitError for names that are no folders'."""
    columns = (store.sequences.subject, store.sequences.walk, store.sequences.view)
    names = list(zip(*(column.tolist() for column in columns), strict=True))
    for name in names:
        if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in name):
            raise AttenGaitError(f"{store.location}: the sequence {'/'.join(name)!r} cannot be a folder")
    if len(set(names)) < len(names):
        raise AttenGaitError(f"{store.location}: a sequence occurs twice (see attengait verify)")
    return [f"{subject}/{walk}/{view}/{view}.pkl" for subject, walk, view in names]


def _check_out(out: Path, work: WorkFolder, description: Description, paths: list[str]) -> bool:
    """Whether `out` is a finished export of the same store; raises AttenGaitError when it is something else."""
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
    there = read_description(out)
    if there is None:
        raise AttenGaitError(f"{out} exists already and is not empty: choose another --out")
    if there.content_sha256 != description.content_sha256 or there.attributes != description.attributes:
        raise AttenGaitError(f"{out} holds the pickles of another store: choose another --out")
    if missing := [path for path in paths if not (out / path).is_file()]:
        raise AttenGaitError(f"{out} lacks {len(missing)} of its files, such as {missing[0]}: choose another --out")
    return True


def _begin(work: WorkFolder, out: Path, description: Description) -> None:
    """Note in the work folder whose pickles it holds; raises AttenGaitError when it holds another store's."""
    plan = {"export": json.loads(to_json(description))}
    try:
        begun = parse_document(work.plan_file.read_bytes())
    except FileNotFoundError:
        write_atomically(work.plan_file, json.dumps(plan).encode())
        return
    except ValueError as error:
        raise AttenGaitError(f"{work.plan_file} is damaged ({error}): delete {work.path} to start anew") from None
    if begun != plan:
        raise AttenGaitError(f"{out} was begun from another store: choose another --out, or delete {work.path}")
