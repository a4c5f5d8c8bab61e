"""Stores written to a bucket have the bytes of a local one, also after faults and kills."""

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import zarr

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import open_store
from attengait.store.layout import work_path
from attengait.store.verify import verify
from attengait.store.workfolder import WorkFolder
from attengait.store.writer import write_store

fakes = import_module("store_fakes")
servers = import_module("servers")

pytestmark = pytest.mark.usefixtures("_settings")


@pytest.fixture
def gcs(monkeypatch):
    """A server of Google's interface, to which tensorstore is sent."""
    with servers.GcsServer() as server:
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
        yield server


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_store_written_to_s3_has_the_bytes_of_a_local_one(finished, s3, tmp_path, codec):
    summary = write_store(fakes.job_of("s3://bucket/gait/w.zarr", fakes.plan_of(codec=codec), num_workers=2))
    assert (summary.num_sequences, summary.num_shards) == (9, 3)
    assert s3.tree("bucket/gait/w.zarr") == fakes.tree(finished / f"{codec}.zarr")
    report = (finished / f"{codec}.zarr.skipped.jsonl").read_bytes()
    assert s3.objects["bucket/gait/w.zarr.skipped.jsonl"] == report
    puts = [path for method, path in s3.requests if method == "PUT"]
    assert puts[-1] == "bucket/gait/w.zarr/zarr.json"
    assert len(puts) == len(set(puts))
    assert not list(Path.cwd().iterdir())
    again = write_store(fakes.job_of("s3://bucket/gait/w.zarr", fakes.plan_of(codec=codec), fakes.refusing_to_run))
    assert again.already_finished
    assert again.skipped == summary.skipped


def test_a_store_written_to_google_has_the_bytes_of_a_local_one(finished, gcs):
    write_store(fakes.job_of("gs://bucket/w.zarr", fakes.plan_of(codec="lz4")))
    assert gcs.tree("bucket/w.zarr") == fakes.tree(finished / "lz4.zarr")
    store = open_store("gs://bucket/w.zarr")
    np.testing.assert_array_equal(store[4], open_store(finished / "lz4.zarr")[4])
    assert verify("gs://bucket/w.zarr") == []
    with pytest.raises(AttenGaitError, match=r"^gs://bucket/x is not a store: there is no gs://bucket/x/zarr\.json$"):
        open_store("gs://bucket/x")


def test_uploads_are_tried_again(finished, s3):
    s3.faults = ["close", 503, 500]
    write_store(fakes.job_of("s3://bucket/w.zarr"))
    assert not s3.faults
    assert s3.tree("bucket/w.zarr") == fakes.tree(finished / "none.zarr")


def test_an_upload_that_is_refused_says_so_and_keeps_the_rest(finished, s3):
    s3.broken["w.zarr/frames/c/1"] = 403
    with pytest.raises(
        AttenGaitError,
        match=r"^s3://bucket/w\.zarr/frames/c/1/0/0/0 is refused by the server \(HTTP 403.*; 1 of 3 shards are kept",
    ):
        write_store(fakes.job_of("s3://bucket/w.zarr"))
    assert "bucket/w.zarr/zarr.json" not in s3.objects
    with pytest.raises(
        AttenGaitError, match=r"w\.zarr is not finished \(1 of 3 shards\): run the command that began it"
    ):
        open_store("s3://bucket/w.zarr")
    s3.broken.clear()
    s3.requests.clear()
    assert write_store(fakes.job_of("s3://bucket/w.zarr")).num_shards_reused == 1
    assert s3.count("PUT", "w.zarr/frames/c/0") == 0
    assert s3.tree("bucket/w.zarr") == fakes.tree(finished / "none.zarr")


@pytest.mark.parametrize("change", ["delete the shard", "truncate the shard"])
def test_a_shard_that_is_not_there_any_more_is_made_again(finished, s3, change):
    with pytest.raises(AttenGaitError, match="1 of 3 shards are kept"):
        write_store(fakes.job_of("s3://bucket/w.zarr", compute=fakes.dying))
    shard = "bucket/w.zarr/frames/c/0/0/0/0"
    if change == "delete the shard":
        del s3.objects[shard]
    else:
        s3.objects[shard] = s3.objects[shard][:100]
    assert write_store(fakes.job_of("s3://bucket/w.zarr")).num_shards_reused == 0
    assert s3.tree("bucket/w.zarr") == fakes.tree(finished / "none.zarr")


def test_killed_during_an_upload_a_run_continues_to_the_same_bytes(finished, s3):
    """Each run is killed, with its workers, when the server has taken an object, and before the run hears of it."""
    program = Path(__file__).parents[1] / "support" / "store_run.py"
    kept = []
    # The first and the second shard, the report, a column, the root zarr.json; by then there is nothing left to do.
    for last in (1, 2, 3, 5, 18):
        s3.requests.clear()
        run = subprocess.Popen(
            [sys.executable, str(program), "s3://bucket/w.zarr", "1", "frames_of"], start_new_session=True
        )
        s3.after_put = lambda run=run, last=last: s3.count("PUT") == last and os.killpg(run.pid, signal.SIGKILL)
        assert run.wait(timeout=600) == -signal.SIGKILL
        kept.append(WorkFolder(work_path("s3://bucket/w.zarr")).num_records())
    assert kept == [0, 1, 3, 3, 3]
    assert write_store(fakes.job_of("s3://bucket/w.zarr", compute=fakes.refusing_to_run)).already_finished
    assert s3.tree("bucket/w.zarr") == fakes.tree(finished / "none.zarr")
    assert not list(Path.cwd().iterdir())


def test_a_run_that_yields_nothing_leaves_only_the_reasons(s3):
    sentence = r"nothing came out of 10 sequences \(too few pictures: 10\), such as 001/nm-01/090; see s3://bucket/w\.zarr\.skipped\.js"
    with pytest.raises(AttenGaitError, match=sentence):
        write_store(fakes.job_of("s3://bucket/w.zarr", compute=fakes.nothing))
    assert list(s3.objects) == ["bucket/w.zarr.skipped.jsonl"]
    assert not list(Path.cwd().iterdir())


def test_a_run_that_yields_nothing_deletes_nothing_of_others(s3):
    others = {"bucket/gait/a.zarr/zarr.json": b"{}", "bucket/gait/frames/c/9": b"9", "bucket/gait/notes": b"a note"}
    s3.objects.update(others)
    with pytest.raises(AttenGaitError, match="nothing came out of 10 sequences"):
        write_store(fakes.job_of("s3://bucket/gait", compute=fakes.nothing))
    s3.objects.pop("bucket/gait.skipped.jsonl")
    assert s3.objects == others


def test_what_cannot_be_written_is_refused_before_the_work(s3, http, tmp_path):
    zarr.create_group(tmp_path / "foreign.zarr", zarr_format=3)
    s3.serve_folder(tmp_path / "foreign.zarr", "bucket/foreign.zarr")
    for where, sentence in {
        f"{http.url}/w.zarr": r"w\.zarr can only be read: write to a folder, an s3:// or a gs:// URL",
        "s3://bucket": r"s3://bucket is a bucket: name the store to make, such as s3://bucket/w\.zarr",
        "s3://another/w.zarr": r"s3://another/w\.zarr cannot be written: there is no such bucket",
        "s3://bucket/foreign.zarr": r"foreign\.zarr is a Zarr group or array already, not an AttenGait store",
    }.items():
        with pytest.raises(AttenGaitError, match=sentence):
            write_store(fakes.job_of(where, compute=fakes.refusing_to_run))
    assert not list(Path.cwd().iterdir())


def test_a_work_folder_of_another_store_of_that_name_is_left_alone(s3, tmp_path):
    with pytest.raises(AttenGaitError, match="1 of 3 shards are kept"):
        write_store(fakes.job_of("s3://bucket/a/w.zarr", compute=fakes.dying))
    for where in ("s3://bucket/b/w.zarr", "w.zarr"):
        with pytest.raises(AttenGaitError, match=r"w\.zarr\.work belongs to another unfinished store, not to "):
            write_store(fakes.job_of(where))
        with pytest.raises(AttenGaitError, match=r"w\.zarr (does not exist|is not a store)"):
            open_store(where)
    assert WorkFolder(work_path("s3://bucket/a/w.zarr")).num_records() == 1
    assert write_store(fakes.job_of("s3://bucket/a/w.zarr")).num_shards_reused == 1


def test_other_parameters_for_the_same_url_are_refused(s3):
    write_store(fakes.job_of("s3://bucket/w.zarr"))
    with pytest.raises(
        ParameterError, match=r"codec is 'zstd', but must be 'none', as when s3://bucket/w\.zarr was begun"
    ):
        write_store(fakes.job_of("s3://bucket/w.zarr", fakes.plan_of(codec="zstd")))
