"""A store written whole: what is in it, whoever computes it, and what is refused."""

import fcntl
import json
import shutil
from functools import partial
from importlib import import_module
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tensorstore
import zarr

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import open_store, workfolder
from attengait.store.layout import CODECS, FORMAT, VERSION, report_location, work_path
from attengait.store.plan import WITH_TIMES, StorePlan
from attengait.store.skipped import Reason, Skipped
from attengait.store.workfolder import WorkFolder
from attengait.store.writer import write_store
from attengait.system import files

fakes, Heard = import_module("store_fakes"), import_module("heard").Heard


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished store of each codec, made by one worker; to be read only."""
    folder = tmp_path_factory.mktemp("stores")
    for codec in CODECS:
        write_store(fakes.job_of(folder / f"{codec}.zarr", fakes.plan_of(codec=codec)))
    return folder


def begin(path, plan):
    """Leave behind what a run killed right after planning leaves."""
    work = WorkFolder(work_path(path))
    work.path.mkdir()
    work.write_plan(plan)


def expected():
    """Frames of all sequences, by index, from the source itself."""
    return {i: fakes.frames_of((i, length)).pictures for i, length in enumerate(fakes.LENGTHS) if length}


@pytest.mark.parametrize("codec", CODECS)
def test_plain_zarr_python_reads_every_frame(finished, codec):
    group = zarr.open_group(finished / f"{codec}.zarr", mode="r")
    frames, columns = group["frames"], group["sequences"]
    names = [f"{s}/{w}" for s, w in zip(columns["subject"][:], columns["walk"][:], strict=True)]
    wanted = expected()
    assert names == [f"{i // 4 + 1:03d}/nm-{i % 4 + 1:02d}" for i in wanted]
    for start, length, crc, images in zip(
        columns["start"][:], columns["length"][:], columns["crc32c"][:], wanted.values(), strict=True
    ):
        np.testing.assert_array_equal(frames[start : start + length], images)
        assert google_crc32c.value(images.tobytes()) == crc


@pytest.mark.parametrize("codec", CODECS)
def test_tensorstore_reads_the_same_as_zarr_python(finished, codec):
    path = finished / f"{codec}.zarr" / "frames"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    array = tensorstore.open(spec, open=True).result()
    np.testing.assert_array_equal(array.read().result(), zarr.open_array(path, mode="r")[:])


def test_a_raw_shard_is_its_frames_back_to_back_then_the_index(finished):
    store = open_store(finished / "none.zarr")
    frames = zarr.open_array(store.path / "frames", mode="r")[:]
    for shard in range(store.layout.num_shards):
        data = (store.path / f"frames/c/{shard}/0/0/0").read_bytes()
        raw = frames[shard * store.shard_frames : (shard + 1) * store.shard_frames].tobytes()
        assert data[: len(raw)] == raw
        assert len(data) == len(raw) + 16 * store.layout.chunks_per_shard + 4
    tail = store.sequences.start[-1] + store.sequences.length[-1]
    assert not frames[tail:].any()


def test_no_sequence_crosses_a_shard_and_shards_are_filled_in_order(finished):
    sequences, shard_frames = (
        open_store(finished / "none.zarr").sequences,
        open_store(finished / "none.zarr").shard_frames,
    )
    last = sequences.start + sequences.length - 1
    np.testing.assert_array_equal(sequences.start // shard_frames, last // shard_frames)
    assert (np.diff(sequences.start) >= sequences.length[:-1]).all()


def test_the_attributes_say_how_it_was_made(finished):
    plan = fakes.plan_of()
    attributes = open_store(finished / "none.zarr").attributes
    assert attributes == {
        "format": "attengait-store",
        "version": 1,
        **plan.parameters,
        "versions": plan.versions,
        "source": plan.source,
        "digest": attributes["digest"],
    }


def test_what_was_skipped_stands_beside_the_store_in_the_order_of_the_input(finished):
    lines = [json.loads(line) for line in report_location(finished / "none.zarr").path.read_text().splitlines()]
    assert [line["where"] for line in lines] == [fakes.name_of(i) for i in (0, 3, 6, 9)]


def test_nothing_but_the_store_and_the_report_is_left(finished):
    assert sorted(p.name for p in finished.iterdir()) == sorted(
        name for codec in CODECS for name in (f"{codec}.zarr", f"{codec}.zarr.skipped.jsonl")
    )


@pytest.mark.parametrize("codec", CODECS)
def test_two_workers_write_the_same_bytes_as_one(finished, tmp_path, codec):
    heard = Heard()
    job = fakes.job_of(tmp_path / "s.zarr", fakes.plan_of(codec=codec), num_workers=2)
    summary = write_store(job, heard)
    assert fakes.tree(tmp_path / "s.zarr") == fakes.tree(finished / f"{codec}.zarr")
    assert (
        report_location(tmp_path / "s.zarr").path.read_bytes()
        == report_location(finished / f"{codec}.zarr").path.read_bytes()
    )
    assert (summary.num_sequences, summary.num_frames) == (9, 87)
    assert (summary.num_shards, summary.num_shards_reused, summary.new_frames) == (3, 0, 87)
    assert heard.counts[0] == (0, 91)
    assert heard.counts[-1] == (91, 91)
    assert heard.counts == sorted(heard.counts)


def test_workers_have_no_torch_and_one_opencv_thread(tmp_path):
    summary = write_store(fakes.job_of(tmp_path / "s.zarr", compute=fakes.environment_of))
    assert {each.detail for each in summary.skipped} == {"torch False, threads 1"}


def test_what_was_left_out_beforehand_heads_the_report(finished, tmp_path):
    before = Skipped(reason=Reason.NO_SILHOUETTES, where="009/nm-01/090")
    summary = write_store(fakes.job_of(tmp_path / "s.zarr", skipped=[before]))
    assert summary.skipped[0] == before
    assert len(summary.skipped) == 5
    first = json.loads(report_location(tmp_path / "s.zarr").path.read_text().splitlines()[0])
    assert first == {"where": "009/nm-01/090", "reason": "no silhouettes"}


def test_a_finished_store_is_left_as_it_is_and_nothing_is_computed(finished):
    before = fakes.tree(finished)
    summary = write_store(fakes.job_of(finished / "none.zarr", compute=fakes.refusing_to_run))
    assert summary.already_finished
    assert (summary.num_sequences, summary.num_frames, summary.new_frames) == (9, 87, 0)
    assert len(summary.skipped) == 4
    assert fakes.tree(finished) == before


def test_a_work_folder_left_beside_a_finished_store_is_removed(finished):
    begin(finished / "none.zarr", fakes.plan_of())
    summary = write_store(fakes.job_of(finished / "none.zarr", compute=fakes.refusing_to_run))
    assert summary.already_finished
    assert not work_path(finished / "none.zarr").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"recipe": {"gap": "bridge"}}, "recipe.gap is 'bridge', but must be 'skip'"),
        ({"codec": "zstd"}, "codec is 'zstd', but must be 'none'"),
        ({"chunk_frames": 8}, "chunk_frames is 8, but must be 4"),
    ],
)
def test_other_parameters_on_the_same_path_are_refused_with_both_values(finished, tmp_path, changes, sentence):
    begin(tmp_path / "s.zarr", fakes.plan_of())
    before = fakes.tree(finished), fakes.tree(tmp_path)
    for path in (finished / "none.zarr", tmp_path / "s.zarr"):
        with pytest.raises(ParameterError, match=sentence):
            write_store(fakes.job_of(path, fakes.plan_of(**changes)))
    after = fakes.tree(finished), fakes.tree(tmp_path)
    after[1].pop("s.zarr.work/lock")
    assert after == before


def test_a_finished_store_made_by_other_versions_is_as_good(finished):
    assert write_store(fakes.job_of(finished / "none.zarr", fakes.plan_of(versions={"numpy": "9"}))).already_finished


def test_continuing_with_other_versions_is_refused_with_both(tmp_path):
    begin(tmp_path / "s.zarr", fakes.plan_of())
    with pytest.raises(AttenGaitError, match=r"numpy 1\.2\.3, but numpy is now 9"):
        write_store(fakes.job_of(tmp_path / "s.zarr", fakes.plan_of(versions={"numpy": "9"})))


def test_input_that_changed_is_noticed(finished, tmp_path):
    begin(tmp_path / "s.zarr", fakes.plan_of())
    changed = fakes.plan_of(digests=[f"digest {i if i != 6 else 'other'}" for i in range(len(fakes.LENGTHS))])
    with pytest.raises(AttenGaitError, match="002/nm-03/090 changed; restore it, or delete"):
        write_store(fakes.job_of(tmp_path / "s.zarr", changed))
    with pytest.raises(AttenGaitError, match=r"was made from another input"):
        write_store(fakes.job_of(finished / "none.zarr", changed))


def test_input_files_that_were_written_again_matter_to_a_run_that_continues_only(finished, tmp_path):
    begin(tmp_path / "s.zarr", fakes.plan_of())
    touched = fakes.plan_of(scan_digests=[f"scan {i if i != 4 else 'other'}" for i in range(len(fakes.LENGTHS))])
    with pytest.raises(AttenGaitError, match="002/nm-01/090 changed; restore it, or delete"):
        write_store(fakes.job_of(tmp_path / "s.zarr", touched))
    assert write_store(fakes.job_of(finished / "none.zarr", touched)).already_finished


def test_a_finished_store_says_that_its_input_was_written_again_but_not_one_of_version_0_1_0(
    finished, tmp_path, caplog, monkeypatch
):
    # The files may be others of the same names and sizes, or copies.
    touched = fakes.plan_of(scan_digests=[f"scan {i if i != 4 else 'other'}" for i in range(len(fakes.LENGTHS))])
    job = fakes.job_of(finished / "none.zarr", touched)
    assert write_store(job).already_finished
    assert "none.zarr: the input files were written again since it was made" in caplog.text
    assert "choose another --out, or remove this store" in caplog.text
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(StorePlan, "attributes", property(attributes_of_0_1_0))
        write_store(fakes.job_of(tmp_path / "old.zarr"))
    assert write_store(fakes.job_of(tmp_path / "old.zarr", touched)).already_finished
    assert write_store(fakes.job_of(finished / "none.zarr")).already_finished
    assert caplog.text == ""


def attributes_of_0_1_0(plan):
    source = {name: value for name, value in plan.source.items() if name != WITH_TIMES}
    return {"format": FORMAT, "version": VERSION, **plan.parameters, "versions": plan.versions, "source": source}


def test_a_second_run_on_the_same_store_is_refused(tmp_path):
    begin(tmp_path / "s.zarr", fakes.plan_of())
    with (work_path(tmp_path / "s.zarr") / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AttenGaitError, match=r"another run is at work on .*s\.zarr "):
            write_store(fakes.job_of(tmp_path / "s.zarr"))


def make_file(path):
    path.write_text("precious")


def make_folder(path):
    path.mkdir()
    (path / "precious").write_text("")


def make_foreign_zarr(path):
    zarr.create_group(path, zarr_format=3)


def make_foreign_work_folder(path):
    make_folder(work_path(path))


def make_file_for_a_work_folder(path):
    make_file(work_path(path))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (make_file, "exists already and is a file"),
        (make_folder, "exists already and is a folder that is not an AttenGait store"),
        (make_foreign_zarr, "exists already and is a folder that is not an AttenGait store"),
        (make_foreign_work_folder, r"s\.zarr\.work exists, but is not the folder of an unfinished store"),
        (make_file_for_a_work_folder, r"s\.zarr\.work exists, but is not the folder of an unfinished store"),
    ],
)
def test_what_is_not_ours_is_refused_and_not_touched(tmp_path, make, sentence):
    make(tmp_path / "s.zarr")
    before = sorted(tmp_path.rglob("*")), fakes.tree(tmp_path)
    with pytest.raises(AttenGaitError, match=sentence):
        write_store(fakes.job_of(tmp_path / "s.zarr"))
    assert (sorted(tmp_path.rglob("*")), fakes.tree(tmp_path)) == before


def test_a_missing_parent_folder_is_named(tmp_path):
    with pytest.raises(AttenGaitError, match=r"missing does not exist: make this folder first, for s\.zarr"):
        write_store(fakes.job_of(tmp_path / "missing" / "s.zarr"))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_at_any_stage(finished, tmp_path, monkeypatch):
    """Every write of the parent fails in turn; whatever there is by then is kept."""
    really_move = files.move_atomically
    calls = []

    def fail_at(number, source, target):
        calls.append(target.name)
        if len(calls) == number:
            raise OSError(28, "No space left on device", str(target))
        really_move(source, target)

    for number in range(1, 7):
        calls.clear()
        for module in (files, workfolder):
            monkeypatch.setattr(module, "move_atomically", partial(fail_at, number))
        shutil.rmtree(tmp_path / "s.zarr", ignore_errors=True)
        shutil.rmtree(work_path(tmp_path / "s.zarr"), ignore_errors=True)
        with pytest.raises(AttenGaitError, match=r"not be written: .*No space left.*; \d of 3 shards are kept"):
            write_store(fakes.job_of(tmp_path / "s.zarr"))
    assert calls == ["plan.json", "s.zarr.skipped.jsonl", "sequences", "frame_numbers", "zarr.json", "zarr.json"]
    monkeypatch.undo()
    assert write_store(fakes.job_of(tmp_path / "s.zarr")).num_shards_reused == 3
    assert fakes.tree(tmp_path / "s.zarr") == fakes.tree(finished / "none.zarr")


@pytest.mark.parametrize("path", [".", "..", "/"])
def test_a_path_without_a_name_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        AttenGaitError, match=r"is a folder that exists already: name the store to make, such as .*w\.zarr"
    ):
        write_store(fakes.job_of(path))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(AttenGaitError, match=r"s\.zarr\.work cannot be made: Permission denied"):
        write_store(fakes.job_of(tmp_path / "s.zarr"))


def test_a_damaged_plan_is_said(tmp_path):
    begin(tmp_path / "s.zarr", fakes.plan_of())
    (work_path(tmp_path / "s.zarr") / "plan.json").write_text("{")
    with pytest.raises(AttenGaitError, match=r"plan\.json is damaged"):
        write_store(fakes.job_of(tmp_path / "s.zarr"))


def test_a_run_that_yields_nothing_is_an_error_and_leaves_the_reasons(tmp_path):
    sentence = r"nothing came out of 10 sequences \(too few pictures: 10\), such as 001/nm-01/090; see .*skipped\.jsonl"
    with pytest.raises(AttenGaitError, match=sentence):
        write_store(fakes.job_of(tmp_path / "s.zarr", compute=fakes.nothing))
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr.skipped.jsonl"]
    assert len(report_location(tmp_path / "s.zarr").path.read_text().splitlines()) == 10


def test_nothing_planned_is_an_error(tmp_path):
    left_out = [Skipped(reason=Reason.FOREIGN_FILE, where="a")]
    with pytest.raises(AttenGaitError, match=r"nothing came out of 0 sequences \(foreign file: 1\)"):
        write_store(fakes.job_of(tmp_path / "s.zarr", fakes.plan_of(()), skipped=left_out))
    assert report_location(tmp_path / "s.zarr").path.read_text() == '{"where": "a", "reason": "foreign file"}\n'


@pytest.mark.parametrize(
    ("compute", "sentence"),
    [
        ("dying", "a worker process died, perhaps for lack of memory; 1 of 3 shards are kept"),
        ("unwritable", "could not be written: .*No space left on device.*; 0 of 3 shards are kept"),
        ("too_many", r"gives \d+ frames, but \d+ at most were expected: it changed during the run; 0 of 3"),
    ],
)
def test_a_run_that_fails_says_why_and_how_to_continue(finished, tmp_path, compute, sentence):
    with pytest.raises(AttenGaitError, match=sentence):
        write_store(fakes.job_of(tmp_path / "s.zarr", compute=getattr(fakes, compute)))
    with pytest.raises(AttenGaitError, match=r"is not finished .* run the command that began it again"):
        open_store(tmp_path / "s.zarr")
    write_store(fakes.job_of(tmp_path / "s.zarr"))
    assert fakes.tree(tmp_path / "s.zarr") == fakes.tree(finished / "none.zarr")
