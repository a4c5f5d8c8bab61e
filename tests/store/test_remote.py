"""Stores behind URLs are read as those of this machine, over real HTTP to servers of our own."""

import json
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from attengait.cli import data
from attengait.errors import AttenGaitError
from attengait.export.pickles import export_pickles
from attengait.store import location, open_store, summarise
from attengait.store.verify import verify
from attengait.store.writer import write_store

fakes = import_module("store_fakes")
small_stores = import_module("small_stores")

pytestmark = pytest.mark.usefixtures("_settings")


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
