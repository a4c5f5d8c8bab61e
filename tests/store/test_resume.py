"""A run that is killed or stopped, at every point where something is renamed into place, and continued."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from attengait.errors import AttenGaitError
from attengait.store import open_store
from attengait.store.layout import report_location, work_path
from attengait.store.workfolder import WorkFolder
from attengait.store.writer import write_store

SUPPORT = Path(__file__).parents[1] / "support"
fakes, Heard = import_module("store_fakes"), import_module("heard").Heard


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The files of a store, and its report, from a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_store(fakes.job_of(folder / "s.zarr"))
    return fakes.tree(folder)


def run(out, *, compute="frames_of", num_workers=2, **environment):
    """Run `store_run.py` in a process group of its own.

    Its output is read to the end, which comes when the last process that holds it, workers included, is gone.
    """
    arguments = [sys.executable, str(SUPPORT / "store_run.py"), str(out), str(num_workers), compute]
    return subprocess.run(
        arguments,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        start_new_session=True,
    )


@pytest.mark.parametrize("whom", ["parent", "group"])
def test_killed_after_any_rename_a_run_continues_to_the_same_bytes(tmp_path, undisturbed, whom):
    out = tmp_path / "s.zarr"
    # In each run the counting starts anew: the plan, then a shard and its record, three times, then five renames that
    # finish the store; so these runs are killed once after each of the twelve.
    kept = []
    for number, last in enumerate([1, 1, 2, 1, 2, 1, 2, 1, 2, 3, 4, 5]):
        result = run(
            out, num_workers=1, STORE_KILL=f"{last} {whom}", STORE_KILL_COUNTER=str(tmp_path / f"counter {number}")
        )
        assert result.returncode == -signal.SIGKILL, result.stdout + result.stderr
        kept.append(WorkFolder(work_path(out)).num_records())
        if last < 5:
            with pytest.raises(AttenGaitError, match=rf"is not finished \({kept[-1]} of 3 shards\)"):
                open_store(out)
    assert kept == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    summary = write_store(fakes.job_of(out, compute=fakes.refusing_to_run))
    assert summary.already_finished
    for counter in tmp_path.glob("counter *"):
        counter.unlink()
    assert fakes.tree(tmp_path) == undisturbed


def test_what_earlier_runs_committed_is_not_computed_again(tmp_path, undisturbed):
    out = tmp_path / "s.zarr"
    run(out, num_workers=1, STORE_KILL="5 parent", STORE_KILL_COUNTER=str(tmp_path / "counter"))
    (tmp_path / "counter").unlink()
    heard = Heard()
    summary = write_store(fakes.job_of(out), heard)
    assert (summary.num_shards_reused, summary.num_frames, summary.new_frames) == (2, 87, 87 - 31 - 33)
    assert heard.counts[0][0] == 33 + 34
    assert fakes.tree(tmp_path) == undisturbed


@pytest.mark.parametrize("target", ["parent", "group"])
@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Terminated")])
def test_a_signal_stops_a_run_with_one_sentence_and_keeps_what_is_done(tmp_path, undisturbed, number, name, target):
    result = run(
        tmp_path / "s.zarr", compute="signalling", num_workers=1, FAKE_SIGNAL=str(int(number)), FAKE_TARGET=target
    )
    sentence = f"{name}: stopped; 1 of 3 shards are kept: run the same command again to continue\n"
    assert (result.stdout, result.stderr) == (sentence, "")
    assert not list(work_path(tmp_path / "s.zarr").glob("run-*"))
    assert write_store(fakes.job_of(tmp_path / "s.zarr")).num_shards_reused == 1
    assert fakes.tree(tmp_path) == undisturbed


def test_one_failure_stops_the_other_workers_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    result = run(tmp_path / "s.zarr", compute="failing_while_others_wait", FAKE_FIFO=str(tmp_path / "fifo"))
    assert result.returncode == 1
    assert "could not be written: [Errno 28] No space left on device" in result.stdout
    assert "0 of 3 shards are kept: run the same command again" in result.stdout
    assert result.stderr == ""


def test_temporary_files_of_killed_runs_are_removed(tmp_path):
    run(tmp_path / "s.zarr", STORE_KILL="2 group", STORE_KILL_COUNTER=str(tmp_path / "counter"))
    assert len(list(work_path(tmp_path / "s.zarr").glob("run-*"))) == 1
    run(tmp_path / "s.zarr", STORE_KILL="5 group", STORE_KILL_COUNTER=str(tmp_path / "counter"))
    assert len(list(work_path(tmp_path / "s.zarr").glob("run-*"))) == 1


def test_killed_before_the_plan_a_run_starts_anew(tmp_path, undisturbed):
    work = work_path(tmp_path / "s.zarr")
    work.mkdir()
    (work / "lock").touch()
    (work / ".plan.json.123.tmp").write_text("{")
    write_store(fakes.job_of(tmp_path / "s.zarr"))
    assert fakes.tree(tmp_path) == undisturbed


@pytest.mark.parametrize("damage", ["delete the shard", "truncate the shard", "damage the record"])
def test_a_committed_shard_that_is_not_there_any_more_is_computed_again(tmp_path, undisturbed, damage):
    out = tmp_path / "s.zarr"
    with pytest.raises(AttenGaitError, match="1 of 3 shards are kept"):
        write_store(fakes.job_of(out, compute=fakes.dying))
    shard, record = out / "frames/c/0/0/0/0", work_path(out) / "records/0.json"
    if damage == "delete the shard":
        shard.unlink()
    elif damage == "truncate the shard":
        os.truncate(shard, 100)
    else:
        record.write_text("{")
    assert write_store(fakes.job_of(out)).num_shards_reused == 0
    assert fakes.tree(tmp_path) == undisturbed


def test_a_killed_run_that_yields_nothing_ends_in_the_same_error(tmp_path):
    out = tmp_path / "s.zarr"
    run(out, compute="nothing", STORE_KILL="8 parent", STORE_KILL_COUNTER=str(tmp_path.with_suffix(".counter")))
    result = run(out, compute="nothing")
    sentence = (
        r"NothingMadeError: nothing came out of 10 sequences \(too few pictures: 10\), such as 001/nm-01/090; see .*"
    )
    assert re.match(sentence, result.stdout)
    assert sorted(tmp_path.iterdir()) == [report_location(out).path]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a run that was killed after its first shard; to be copied."""
    folder = tmp_path_factory.mktemp("begun")
    run(folder / "s.zarr", num_workers=1, STORE_KILL="3 parent", STORE_KILL_COUNTER=str(folder / "counter"))
    (folder / "counter").unlink()
    return folder


def repack(begun, out, change):
    """Leave a begun run of one shard, whose plan or record is then changed."""
    shutil.copytree(begun, out.parent, dirs_exist_ok=True)
    work = work_path(out)
    for file, edit in change.items():
        content = json.loads((work / file).read_bytes())
        edit(content)
        (work / file).write_text(json.dumps(content))


def test_a_plan_whose_shards_are_packed_otherwise_is_refused(tmp_path, begun):
    """Records of another packing must not be taken for those of this one."""

    def two_shards(plan):
        plan.update(num_shards=2, shard_frames=2 * plan["shard_frames"])

    repack(begun, tmp_path / "s.zarr", {"plan.json": two_shards})
    with pytest.raises(
        AttenGaitError, match=r"plan\.json is damaged or of another version \(it has 2 shards of 72 frames"
    ):
        write_store(fakes.job_of(tmp_path / "s.zarr"))


@pytest.mark.parametrize(
    "edit",
    [
        lambda record: record.update(shard=1),
        lambda record: record["sequences"].reverse(),
        lambda record: record["sequences"].pop(0),
        lambda record: record["sequences"][0].update(subject="009"),
        lambda record: record["sequences"][0].update(length=1),
        lambda record: record["sequences"][0].update(number_runs=[]),
    ],
)
def test_a_record_that_is_not_of_the_plan_is_made_again(tmp_path, begun, undisturbed, edit):
    repack(begun, tmp_path / "s.zarr", {"records/0.json": edit})
    summary = write_store(fakes.job_of(tmp_path / "s.zarr"))
    assert summary.num_shards_reused == 0
    assert fakes.tree(tmp_path) == undisturbed
