"""Writing a store: shards made by other processes, committed one by one, and put together at the end.

A shard is the unit of work, of resume and of commit. A process writes it in the run's temporary folder, renames it
into the store (or uploads it), and then writes its record. When all records are there, columns and metadata follow
in the same way. The root zarr.json is written last and marks the store as finished. A run that was killed is
continued by the same call. The bytes depend neither on the number of processes nor on how often the run was killed.
"""

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.digest import with_digest
from attengait.store.frame_columns import write_frame_columns
from attengait.store.layout import report_location, shard_key, work_path
from attengait.store.location import Location, Where
from attengait.store.opening import is_finished, open_store
from attengait.store.plan import WITH_TIMES, StorePlan, first_changed, first_difference
from attengait.store.sequences import columns_of, write_sequences
from attengait.store.shards import RunShards, ShardTask
from attengait.store.skipped import NothingMadeError, Skipped, count_skipped, in_brackets, plural
from attengait.store.workfolder import ShardRecord, WorkFolder, locked, put_in_store
from attengait.system.documents import parse_document
from attengait.system.progress import SILENT, Progress

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSummary:
    """What a run did."""

    num_sequences: int
    """In the store."""
    num_frames: int
    """In the store."""
    num_shards: int
    """In the store."""
    num_shards_reused: int
    """Shards that earlier runs had finished."""
    new_frames: int
    """Frames that this run computed."""
    seconds: float
    """Duration of this run."""
    skipped: list[Skipped]
    """What was left out, in the order of the input."""
    already_finished: bool
    """Whether there was nothing to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreJob:
    """A store to be written."""

    path: Where
    """A folder, or an s3:// or gs:// URL."""
    plan: StorePlan
    inputs: Sequence[Any]
    """For each planned sequence, the description of its input that `run_shards` takes."""
    run_shards: RunShards
    """Makes the shards."""
    skipped: Sequence[Skipped] = ()
    """What was left out before; it heads the report."""
    task: str = "Preprocessing"
    """What progress calls it."""

    def __post_init__(self) -> None:
        assert len(self.inputs) == len(self.plan.sequences)

    @property
    def location(self) -> Location:
        """Where the store is to be."""
        return Location.parse(self.path)

    @property
    def work(self) -> WorkFolder:
        """The folder beside the store, or, for a URL, in the current folder."""
        return WorkFolder(work_path(self.path))


def check_path(store: Where) -> None:
    """Raise AttenGaitError unless the path or URL is free, a finished store, or a store that an earlier run began."""
    location = Location.parse(store)
    work, path = WorkFolder(work_path(location)), location.path
    location.check_writable()
    if location.name in ("", ".."):
        raise AttenGaitError(
            f"{location} is a {'folder that exists already' if path else 'bucket'}: name the store to make, such as "
            f"{location / 'w.zarr'}"
        )
    if path is not None and not path.parent.is_dir():
        raise AttenGaitError(f"{path.parent} does not exist: make this folder first, for {path.name}")
    if work.is_foreign():
        raise AttenGaitError(f"{work.path} exists, but is not the folder of an unfinished store: remove or rename it")
    if work.is_of_another(location):
        raise AttenGaitError(f"{work.path} belongs to another unfinished store, not to {location}: finish that first")
    if is_finished(location) or work.plan_file.is_file():
        return
    if path is None:
        if location.read("zarr.json", (0, 1)) is not None:
            raise AttenGaitError(f"{location} is a Zarr group or array already, not an AttenGait store: choose another")
        if location.lacks_bucket():
            raise AttenGaitError(f"{location} cannot be written: there is no such bucket")
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        kind = "a folder that is not an AttenGait store" if path.is_dir() else "a file"
        raise AttenGaitError(f"{path} exists already and is {kind}: choose another path")


def check_plan(store: Where, plan: StorePlan) -> None:
    """Raise what `write_store` raises for a store that is finished or was begun otherwise than by this plan."""
    location = Location.parse(store)
    if is_finished(location):
        _nothing_to_do(location, plan, 0.0)
    elif (begun := WorkFolder(work_path(location)).read_plan()) is not None:
        _refuse_other_plan(location, begun, plan)


def write_store(job: StoreJob, progress: Progress = SILENT) -> WriteSummary:
    """Write the store, continue one that was begun, or do nothing when it is finished.

    Raises ParameterError when the path was made or begun with other parameters; AttenGaitError when the input or the
    versions changed, when the path is something else, when another run is writing it, when no image is made, and
    when writing fails. A KeyboardInterrupt is raised again, with a sentence that says what is kept.
    """
    started = time.monotonic()
    path, plan, work = job.location, job.plan, job.work
    check_path(path)
    if is_finished(path) and not work.path.exists():
        return _nothing_to_do(path, plan, started)
    with locked(work):
        if is_finished(path):
            work.remove()
            return _nothing_to_do(path, plan, started)
        begun = work.read_plan()
        if begun is not None:
            _refuse_other_plan(path, begun, plan)
        try:
            if begun is None:
                work.write_plan(plan, path)
            kept = work.read_records(path, plan)
            records = _write(job, kept, progress)
        except KeyboardInterrupt as stop:
            raise type(stop)(f"stopped; {_kept(work, plan)}") from None
        except (OSError, MemoryError) as error:
            raise AttenGaitError(f"{path} could not be written: {error}; {_kept(work, plan)}") from error
        except AttenGaitError as error:
            raise AttenGaitError(f"{error}; {_kept(work, plan)}") from error
        if not any(record.sequences for record in records):
            if path.path is not None:
                shutil.rmtree(path.path)
            else:
                # Others may have put something there.
                path.remove([shard_key(record.shard) for record in records])
        work.remove()
    lengths = {record.shard: sum(row.length for row in record.sequences) for record in records}
    num_sequences = sum(len(record.sequences) for record in records)
    if not num_sequences:
        skipped = _whole_report(job, records)
        what = f"nothing came out of {plural(len(plan.sequences), 'sequence')} {in_brackets(skipped)}"
        raise NothingMadeError(f"{what}; see {report_location(path)}", skipped)
    return WriteSummary(
        num_sequences=num_sequences,
        num_frames=sum(lengths.values()),
        num_shards=plan.layout.num_shards,
        num_shards_reused=len(kept),
        new_frames=sum(length for shard, length in lengths.items() if shard not in kept),
        seconds=time.monotonic() - started,
        skipped=_whole_report(job, records),
        already_finished=False,
    )


def _write(job: StoreJob, kept: dict[int, ShardRecord], progress: Progress) -> list[ShardRecord]:
    """Compute the shards that are not kept, then put the store together; returns the records of all shards."""
    plan, work = job.plan, job.work
    planned = [sum(plan.sequences[i].max_frames for i in shard) for shard in plan.shards]
    work.begin([frames if shard in kept else 0 for shard, frames in enumerate(planned)])
    if job.location.path is not None:
        job.location.path.mkdir(exist_ok=True)

    def report_progress() -> None:
        progress.update(job.task, work.frames_done(), plan.max_frames, unit="frames")

    report_progress()
    with work.temporary_folder() as temporary:
        plan.layout.create(zarr.create_group(temporary, zarr_format=3, attributes=plan.attributes), has_digest=True)
        tasks = [
            ShardTask(
                shard=shard,
                sequences=[(plan.sequences[i], job.inputs[i]) for i in members],
                layout=plan.layout,
                store=job.location,
                work=work,
                temporary=temporary,
            )
            for shard, members in enumerate(plan.shards)
            if shard not in kept
        ]
        if tasks:
            job.run_shards(tasks, report_progress)
        committed = work.read_records(job.location, plan)
        if lost := [shard for shard in range(plan.layout.num_shards) if shard not in committed]:
            raise AttenGaitError(f"shard {lost[0]} was removed during the run")
        records = [committed[shard] for shard in range(plan.layout.num_shards)]
        _finish(job, records, temporary)
    return records


def _finish(job: StoreJob, records: list[ShardRecord], temporary: Path) -> None:
    """Report, columns, metadata and last the root attributes with the digest, which mark the store finished."""
    lines = [json.dumps(each.to_dict()) + "\n" for each in _whole_report(job, records)]
    (temporary / "report").write_text("".join(lines), encoding="utf-8")
    report = report_location(job.location)
    put_in_store(temporary / "report", report.parent, report.name)
    rows = [row for record in records for row in record.sequences]
    if not rows:
        return
    sequences, group = columns_of(rows), zarr.open_group(temporary, mode="r+")
    write_sequences(group.create_group("sequences"), sequences)
    beside = write_frame_columns(group, rows, job.plan.layout.num_frames)
    attributes = job.plan.attributes | _noted(_whole_report(job, records))
    group.update_attributes(with_digest(attributes, job.plan.layout, sequences, beside))
    for name in ("sequences", *beside, "frames/zarr.json", "zarr.json"):
        put_in_store(temporary / name, job.location, name)


def _noted(report: list[Skipped]) -> dict[str, Any]:
    """The attribute that says what was done to some of the input; nothing where nothing was."""
    noted = {reason: count for reason, count in count_skipped(report).items() if reason.is_note}
    said = {reason.value: f"{count}, such as {count.example}" for reason, count in noted.items()}
    return {"noted": said} if said else {}


def _whole_report(job: StoreJob, records: list[ShardRecord]) -> list[Skipped]:
    return [*job.skipped, *(each for record in records for each in record.report)]


def _kept(work: WorkFolder, plan: StorePlan) -> str:
    return f"{work.num_records()} of {plan.layout.num_shards} shards are kept: run the same command again to continue"


def _nothing_to_do(path: Location, plan: StorePlan, started: float) -> WriteSummary:
    """The summary for a finished store, after making sure that it is the one asked for."""
    store = open_store(path)
    attributes = {key: store.attributes.get(key) for key in plan.parameters}
    layout = {"codec": store.codec, "chunk_frames": store.chunk_frames, "frame_shape": list(store.frame_shape)}
    _refuse_other_settings(path, {**attributes, **layout}, plan)
    _compare_sources(path, store.attributes.get("source"), plan.source)
    place = report_location(path)
    try:
        lines = (place.parent.read(place.name) or b"").decode().splitlines()
        skipped = [Skipped.from_dict(parse_document(line)) for line in lines]
    except (KeyError, TypeError, ValueError) as error:
        raise AttenGaitError(
            f"{place} cannot be read ({error}): delete it, the store does not need this report"
        ) from None
    return WriteSummary(
        num_sequences=len(store.sequences),
        num_frames=store.num_frames,
        num_shards=store.layout.num_shards,
        num_shards_reused=store.layout.num_shards,
        new_frames=0,
        seconds=time.monotonic() - started,
        skipped=skipped,
        already_finished=True,
    )


def _compare_sources(path: Location, theirs: Any, ours: dict[str, Any]) -> None:
    """Raise AttenGaitError where a finished store was made from another input; warn where its files may be others."""
    then = dict(theirs) if isinstance(theirs, dict) else {}
    now = dict(ours)
    old, new = then.pop(WITH_TIMES, None), now.pop(WITH_TIMES)
    if then != now:
        raise AttenGaitError(
            f"{path} was made from another input: {_describe(theirs)} then, {_describe(ours)} now, "
            "and names or sizes of files differ; choose another path"
        )
    if old not in (None, new):
        _log.warning(
            "%s: the input files were written again since it was made, with the same names and sizes. If their content "
            "is another, choose another --out, or remove this store",
            path,
        )


def _describe(source: Any) -> str:
    if not isinstance(source, dict):
        return "something unknown"
    return f"{source.get('sequences')} sequences of {source.get('max_frames')} frames"


def _refuse_other_settings(path: Location, theirs: dict[str, Any], plan: StorePlan) -> None:
    difference = first_difference(theirs, json.loads(json.dumps(plan.settings)))
    if difference:
        name, old, new = difference
        raise ParameterError(
            f"{name} is {new!r}, but must be {old!r}, as when {path} was begun: use this or choose another path"
        )


def _refuse_other_plan(path: Location, begun: StorePlan, plan: StorePlan) -> None:
    _refuse_other_settings(path, begun.settings, plan)
    work = work_path(path)
    difference = first_difference(begun.versions, plan.versions)
    if difference:
        name, old, new = difference
        raise AttenGaitError(
            f"{path} was begun with {name} {old}, but {name} is now {new}, which may give other bytes: "
            f"install {name} {old} again, or delete {path} and {work}"
        )
    if change := first_changed(begun.sequences, plan.sequences):
        raise AttenGaitError(
            f"the input changed since {path} was begun: {change}; restore it, or delete {path} and {work}"
        )
