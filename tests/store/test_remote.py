"""Stores behind URLs, over real HTTP to servers of our own on loopback."""

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import zarr

from attengait.cli import data
from attengait.errors import AttenGaitError, ParameterError
from attengait.export.pickles import export_pickles
from attengait.store import location, open_store, summarise
from attengait.store.layout import work_path
from attengait.store.verify import verify
from attengait.store.workfolder import WorkFolder
from attengait.store.writer import write_store

fakes = import_module("store_fakes")
small_stores = import_module("small_stores")
servers = import_module("servers")

KEYS = {"some-key": "some-secret"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a local store of each codec; to be read only."""
    folder = tmp_path_factory.mktemp("finished")
    for codec in ("none", "lz4", "zstd"):
        write_store(fakes.job_of(folder / f"{codec}.zarr", fakes.plan_of(codec=codec)))
    return folder


@pytest.fixture(autouse=True)
def _settings(monkeypatch, tmp_path):
    """Short delays, no proxy, nobody's credentials, an empty current folder, and no store that is open already."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(location, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(location, "LAST_RETRY_SECONDS", 0.002)
    location._open.cache_clear()
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")


@pytest.fixture
def http(finished):
    """A web server with the stores in /gait/."""
    with servers.Server() as server:
        server.serve_folder(finished, "gait")
        yield server


@pytest.fixture
def s3(monkeypatch):
    """An S3 server with one empty bucket, named bucket, and the credentials for it in the environment."""
    with servers.S3Server(keys=KEYS) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "some-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "some-secret")
        yield server


@pytest.fixture
def gcs(monkeypatch):
    """A server of Google's interface, to which tensorstore is sent."""
    with servers.GcsServer() as server:
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
        yield server


# Reading


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_a_store_behind_http_is_the_local_one(finished, http, codec):
    local, remote = open_store(finished / f"{codec}.zarr"), open_store(f"{http.url}/gait/{codec}.zarr")
    assert (remote.attributes, remote.layout) == (local.attributes, local.layout)
    for name in ("subject", "walk", "view", "start", "length", "crc32c"):
        np.testing.assert_array_equal(getattr(remote.sequences, name), getattr(local.sequences, name), strict=True)
    starts, lengths = local.sequences.start, local.sequences.length
    with local.reader() as ours, remote.reader() as theirs:
        for expected, clip in zip(ours.read_clips(starts, lengths), theirs.read_clips(starts, lengths), strict=True):
            np.testing.assert_array_equal(clip, expected, strict=True)
    assert verify(remote.location) == []


def test_a_store_opens_by_fourteen_requests_whatever_its_size(http, tmp_path):
    large = [8] * 400
    write_store(fakes.job_of(tmp_path / "large.zarr", fakes.plan_of(large), compute=fakes.zeros))
    http.serve_folder(tmp_path / "large.zarr", "gait/large.zarr")
    requests = {}
    for name in ("none", "large"):
        http.requests.clear()
        requests[name] = len(open_store(f"{http.url}/gait/{name}.zarr").sequences), len(http.requests)
    assert requests == {"none": (9, 14), "large": (400, 14)}


def test_a_query_is_sent_along_and_kept_out_of_messages(http):
    store = open_store(f"{http.url}/gait/lz4.zarr?token=abc")
    assert store[0].shape == (6, *fakes.SHAPE)
    assert set(http.queries) == {"token=abc"}
    assert str(store.location) == f"{http.url}/gait/lz4.zarr"


@pytest.mark.parametrize("fault", [403, 503, "half"])
def test_a_server_that_fails_gives_no_secret_of_the_url_away(http, fault):
    url = f"{http.url.replace('://', '://some:password@')}/gait/lz4.zarr?token=some/to:ken"
    store = open_store(url)
    assert http.authorisations == {"Basic c29tZTpwYXNzd29yZA=="}
    http.broken = {"lz4.zarr/": fault}
    for read in (lambda: store[0], lambda: open_store(url)):
        with pytest.raises(AttenGaitError, match=rf"^{http.url}/gait/lz4\.zarr/\S+ (is refused|cannot be)") as caught:
            read()
        assert str(caught.value).count("http://") == 1


def test_the_commands_say_no_secret_of_a_url(http, tmp_path, capsys):
    url = f"{http.url.replace('://', '://some:password@')}/gait/lz4.zarr?token=some-token"
    data.info(url)
    data.show(url, out=tmp_path / "s.png", rows=2, columns=2)
    data.verify(url)
    http.serve_folder(small_stores.make_store(tmp_path / "wrong.zarr", checksums_are_right=False).path, "gait/lz4.zarr")
    for find in (lambda: data.verify(url), lambda: export_pickles(url, tmp_path / "out")):
        with pytest.raises(AttenGaitError, match=r"lz4\.zarr( is damaged|: the frames of \S+ fail)") as caught:
            find()
        print(caught.value)
    said = "".join(capsys.readouterr())
    assert said.count(f"{http.url}/gait/lz4.zarr") == 7
    assert "password" not in said
    assert "some-token" not in said


def test_the_summary_says_all_but_the_size_on_the_server(finished, http):
    remote, local = summarise(open_store(f"{http.url}/gait/lz4.zarr")), summarise(open_store(finished / "lz4.zarr"))
    assert json.loads(json.dumps(remote)) == remote
    assert remote == local | {"path": f"{http.url}/gait/lz4.zarr", "bytes": None}


def test_a_remote_store_has_no_folder(http):
    with pytest.raises(AttenGaitError, match=r"lz4\.zarr is not a folder on this machine: copy the store to one first"):
        _ = open_store(f"{http.url}/gait/lz4.zarr").path


def test_damage_on_a_server_is_found(http):
    shard = "gait/lz4.zarr/frames/c/1/0/0/0"
    data = bytearray(http.objects[shard])
    data[5] ^= 1
    http.objects[shard] = bytes(data)
    del http.objects["gait/lz4.zarr/frames/c/0/0/0/0"]
    http.objects["gait/lz4.zarr/frames/c/2/0/0/0"] = b"short"
    findings = [str(finding) for finding in verify(f"{http.url}/gait/lz4.zarr")]
    assert findings[0].startswith("frames/c/0/0/0/0: missing; it holds 001/nm-01/090, ")
    assert findings[1].startswith("frames/c/1/0/0/0, chunk 0: cannot be decoded")
    assert findings[-1].startswith("frames/c/2/0/0/0: truncated to 5 bytes, which is less than its index; it holds ")


def test_a_server_that_is_lost_is_no_damage(http):
    http.broken["frames/c"] = 403
    with pytest.raises(AttenGaitError, match=r"/frames/c/0/0/0/0 is refused by the server"):
        verify(f"{http.url}/gait/lz4.zarr")


def test_a_missing_shard_is_one_error_of_its_reader(http):
    store = open_store(f"{http.url}/gait/lz4.zarr")
    del http.objects["gait/lz4.zarr/frames/c/0/0/0/0"]
    with pytest.raises(AttenGaitError, match=rf"^{http.url}/gait/lz4\.zarr/frames/c/0/0/0/0: missing$"):
        _ = store[0]


def test_a_forked_process_is_told_to_be_spawned(http):
    program = (
        "import os, sys, warnings\n"
        "from attengait.store import open_store\n"
        "open_store(sys.argv[1])\n"
        "warnings.simplefilter('ignore')\n"
        "if not os.fork():\n"
        "    try:\n"
        "        open_store(sys.argv[1])\n"
        "    except Exception as error:\n"
        "        print(f'{type(error).__name__}: {error}', flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    url = f"{http.url}/gait/lz4.zarr"
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.startswith("AttenGaitError: this process was forked from one that had used TensorStore")


# Servers that fail


@pytest.mark.parametrize("fault", ["close", "half", 500, 503, 429])
def test_a_lost_connection_and_a_busy_server_are_tried_again(finished, http, fault):
    http.faults = [fault] * 3
    store = open_store(f"{http.url}/gait/zstd.zarr")
    assert not http.faults
    http.faults = [fault] * 3
    np.testing.assert_array_equal(store[4], open_store(finished / "zstd.zarr")[4])
    assert not http.faults


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (403, r"is refused by the server \(HTTP 403: Forbidden\): check its name and the credentials"),
        (401, r"is refused by the server \(HTTP 401: Unauthorized\): check its name and the credentials"),
        (503, r"cannot be reached, the last of 7 attempts ended so: HTTP 503: Service Unavailable"),
        ("half", r"cannot be reached, the last of 7 attempts ended so: Transferred a partial file.*"),
    ],
)
def test_a_server_that_goes_on_failing_is_one_sentence_with_the_url(http, fault, sentence):
    http.broken["gait/lz4.zarr/zarr.json"] = fault
    with pytest.raises(AttenGaitError, match=rf"^{http.url}/gait/lz4\.zarr/zarr\.json {sentence}$") as caught:
        open_store(f"{http.url}/gait/lz4.zarr")
    assert "\n" not in str(caught.value)


def test_nobody_at_the_port_is_said():
    with servers.Server() as gone:
        url = gone.url
    with pytest.raises(AttenGaitError, match=rf"^{url}/w\.zarr/\S+ cannot be reached, .*Could not connect to server"):
        open_store(f"{url}/w.zarr")


def test_a_server_that_says_nothing_is_given_up():
    """The limits are read once, at a process's first use, so they are tried in another process."""
    program = (
        "import socket, sys\n"
        "from attengait.store import location\n"
        "location._WAITING['LOW_SPEED_TIME_SECONDS'] = '1'\n"
        "location.MAX_RETRIES = 1\n"
        "location.limit_waiting()\n"
        "silent = socket.create_server(('127.0.0.1', 0))\n"
        "try:\n"
        "    location.Location.parse(f'http://127.0.0.1:{silent.getsockname()[1]}/w.zarr').read('zarr.json')\n"
        "except location.AttenGaitError as error:\n"
        "    print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENSORSTORE_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=600, check=True
    )
    assert "w.zarr/zarr.json cannot be reached, the last of 2 attempts ended so: " in done.stdout
    assert "Timeout was reached" in done.stdout


def test_what_is_not_there_is_said(http, s3):
    with pytest.raises(AttenGaitError, match=rf"^{http.url}/x is not a store: there is no {http.url}/x/zarr\.json$"):
        open_store(f"{http.url}/x")
    with pytest.raises(AttenGaitError, match=r"^s3://bucket/x is not a store: there is no s3://bucket/x/zarr\.json$"):
        open_store("s3://bucket/x")
    with pytest.raises(AttenGaitError, match=r"^s3://another/x does not exist: there is no such bucket$"):
        open_store("s3://another/x")
    with pytest.raises(AttenGaitError, match=r"^s3://x/w\.zarr cannot be .*Invalid S3 bucket name"):
        open_store("s3://x/w.zarr")


def test_s3_signs_with_the_credentials_of_the_environment(finished, s3, monkeypatch):
    s3.serve_folder(finished / "lz4.zarr", "bucket/w.zarr")
    assert len(open_store("s3://bucket/w.zarr")) == 9
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    location._open.cache_clear()
    with pytest.raises(AttenGaitError, match=r"^s3://bucket/w\.zarr/zarr\.json is refused by the server \(HTTP 403"):
        open_store("s3://bucket/w.zarr")


def test_a_public_bucket_needs_no_credentials(finished, s3, monkeypatch):
    s3.keys = None
    s3.serve_folder(finished / "lz4.zarr", "bucket/w.zarr")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = open_store("s3://bucket/w.zarr")
    assert store[0].shape == (6, *fakes.SHAPE)
    assert verify(store.location) == []
    assert s3.authorisations == {None}


# Writing


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
