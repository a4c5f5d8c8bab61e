"""The folder NAME.zarr.work of an unfinished store, beside it (of a store behind a URL in the current folder): what
makes a killed run resumable.

    lock             held (flock) by the one run at work; the kernel lets go of it when that run dies
    plan.json        the plan, written before the first frame
    target           the URL of a store that is not on this machine
    records/I.json   shard I is in its place and what it holds; written after the shard
    progress         one int64 per shard: frames done, for the progress bar only
    run-XXXX/        temporary files of one run, on the same file system as a local store

Everything in the store itself is made in run-XXXX/, flushed to disk and renamed into place, or uploaded.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from attengait.errors import AttenGaitError
from attengait.store.layout import shard_key, work_path
from attengait.store.location import Location, Where
from attengait.store.plan import StorePlan
from attengait.store.sequences import SequenceRecord
from attengait.store.skipped import Skipped
from attengait.system.documents import parse_document
from attengait.system.files import lock, move_atomically, sync_folder, write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """What a finished shard holds."""

    shard: int
    shard_bytes: int
    """Size of its file."""
    sequences: list[SequenceRecord]
    report: list[Skipped]
    """What was left out of its sequences."""


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """Paths and records in a work folder."""

    path: Path

    @property
    def plan_file(self) -> Path:
        """The stored plan."""
        return self.path / "plan.json"

    @property
    def progress_file(self) -> Path:
        """The frames done of each shard."""
        return self.path / "progress"

    def is_foreign(self) -> bool:
        """Whether the folder holds something that no run wrote."""
        if not self.path.is_dir():
            return self.path.exists()
        return not self.plan_file.is_file() and any(
            entry.name not in ("lock", "target") and not entry.name.startswith((".plan.json.", ".target."))
            for entry in self.path.iterdir()
        )

    def read_plan(self) -> StorePlan | None:
        """The stored plan, or None when the run was killed before there was one."""
        try:
            return StorePlan.from_json(self.plan_file.read_bytes())
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise AttenGaitError(
                f"{self.plan_file} is damaged or of another version ({error}): delete {self.path} to start anew"
            ) from error

    def write_plan(self, plan: StorePlan, store: Location | None = None) -> None:
        """Store the plan of `store`; from here on the run can be continued, and the folder is known to be ours."""
        if store is not None and store.is_remote:
            write_atomically(self.path / "target", str(store).encode())
        else:
            (self.path / "target").unlink(missing_ok=True)
        write_atomically(self.plan_file, plan.to_json())

    def is_of_another(self, store: Location) -> bool:
        """Whether the folder belongs to a run that makes another store of the same name."""
        try:
            target = (self.path / "target").read_text()
        except OSError:
            target = None
        return self.plan_file.is_file() and target != (str(store) if store.is_remote else None)

    def write_record(self, record: ShardRecord) -> None:
        """Commit a shard that is in its place."""
        content = json.dumps(asdict(record) | {"report": [each.to_dict() for each in record.report]}).encode()
        write_atomically(self.path / "records" / f"{record.shard}.json", content)

    def num_records(self) -> int:
        """Shards committed so far."""
        return sum(1 for _ in _record_files(self.path))

    def read_records(self, store: Location, plan: StorePlan) -> dict[int, ShardRecord]:
        """The committed shards that are those of the plan and whose files are still there in full."""
        records = []
        for file in _record_files(self.path):
            try:
                content = parse_document(file.read_bytes())
                rows = [SequenceRecord(**row) for row in content["sequences"]]
                report = [Skipped.from_dict(entry) for entry in content["report"]]
                record = ShardRecord(**{**content, "sequences": rows, "report": report})
            except (KeyError, TypeError, ValueError):
                continue
            if _is_of_plan(record, plan):
                records.append(record)
        are_there = store.has([(shard_key(record.shard), record.shard_bytes) for record in records])
        return {record.shard: record for record, is_there in zip(records, are_there, strict=True) if is_there}

    def begin(self, frames_done: list[int]) -> None:
        """Make room for the records and the progress of a run; `frames_done` has one entry per shard."""
        (self.path / "records").mkdir(exist_ok=True)
        self.progress_file.write_bytes(np.array(frames_done, np.int64).tobytes())

    def note_progress(self, shard: int, num_frames: int) -> None:
        """Say how many frames of a shard are done."""
        with self.progress_file.open("r+b") as file:
            os.pwrite(file.fileno(), np.int64(num_frames).tobytes(), 8 * shard)

    def frames_done(self) -> int:
        """Frames done in all shards."""
        return int(np.frombuffer(self.progress_file.read_bytes(), np.int64).sum())

    @contextmanager
    def temporary_folder(self) -> Iterator[Path]:
        """A fresh folder for one run's temporary files; those of killed runs are removed."""
        for left in self.path.glob("run-*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.path))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Delete the folder. The plan is deleted late, because it says whose folder this is; the lock is last,
        because it keeps others out."""
        last = ("plan.json", "target", "lock")
        for entry in [entry for entry in self.path.iterdir() if entry.name not in last]:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        for name in last:
            (self.path / name).unlink(missing_ok=True)
        self.path.rmdir()
        sync_folder(self.path.parent)


@contextmanager
def locked(work: WorkFolder) -> Iterator[None]:
    """Hold the folder's lock; make the folder if it does not exist. Raises AttenGaitError when another run holds the
    lock."""
    busy = AttenGaitError(f"another run is at work on {work.path.with_suffix('')} (it holds {work.path / 'lock'})")
    try:
        work.path.mkdir(exist_ok=True)
        file = (work.path / "lock").open("wb")
    except FileNotFoundError:
        raise busy from None
    except OSError as error:
        raise AttenGaitError(f"{work.path} cannot be made: {error.strerror}") from error
    with file:
        lock(file, busy)
        try:
            held, named = os.fstat(file.fileno()), os.stat(work.path / "lock")
        except FileNotFoundError:
            raise busy from None
        # The other run may have finished, and removed the file, between our open and our lock.
        if held.st_ino != named.st_ino:
            raise busy
        yield


def progress_of(store: Where) -> tuple[int, int] | None:
    """Shards committed and shards planned of an unfinished store; None where there is no plan."""
    work = WorkFolder(work_path(store))
    if work.is_of_another(Location.parse(store)):
        return None
    try:
        num_shards = parse_document(work.plan_file.read_bytes())["num_shards"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return work.num_records(), num_shards


def put_in_store(source: Path, store: Location, key: str) -> None:
    """Put a finished file or folder in its place in a store: rename it, or upload it, file by file, and delete it.

    Raises AttenGaitError when a server does not take it.
    """
    if store.path is not None:
        put_in_place(source, store.path / key)
        return
    files = [source] if source.is_file() else sorted(file for file in source.rglob("*") if file.is_file())
    for file in files:
        store.write("/".join([key, *file.relative_to(source).parts]), file.read_bytes())
        file.unlink()


def put_in_place(source: Path, target: Path) -> None:
    """Flush a finished file or folder to disk and rename it to `target`, making the folders above that are missing."""
    for entry in [source, *source.rglob("*")]:
        sync_folder(entry)
    missing = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    move_atomically(source, target)
    for folder in missing:
        sync_folder(folder.parent)


def _is_of_plan(record: ShardRecord, plan: StorePlan) -> bool:
    """Whether a shard holds sequences that the plan puts there, in its order and within the shard."""
    if not 0 <= record.shard < plan.layout.num_shards:
        return False
    frames = plan.layout.shard_frames
    planned = {plan.sequences[i].name: i for i in plan.shards[record.shard]}
    order = [planned.get(row.name, -1) for row in record.sequences]
    end = record.shard * frames
    for row in record.sequences:
        if row.start != end or row.length < 1 or sum(count for _, count in row.number_runs) != row.length:
            return False
        end += row.length
    return -1 not in order and order == sorted(set(order)) and end <= (record.shard + 1) * frames


def _record_files(work_folder: Path) -> Iterator[Path]:
    return (work_folder / "records").glob("[0-9]*.json")
