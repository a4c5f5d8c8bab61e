"""What the tests of stores behind URLs share: a store of each codec, and servers of our own on loopback."""

import os
from importlib import import_module

import pytest

from attengait.store import location
from attengait.store.writer import write_store

fakes = import_module("store_fakes")
servers = import_module("servers")

KEYS = {"some-key": "some-secret"}


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with a local store of each codec; to be read only."""
    folder = tmp_path_factory.mktemp("finished")
    for codec in ("none", "lz4", "zstd"):
        write_store(fakes.job_of(folder / f"{codec}.zarr", fakes.plan_of(codec=codec)))
    return folder


@pytest.fixture
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
