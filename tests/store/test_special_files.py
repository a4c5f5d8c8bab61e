"""What is no regular file is named, not waited for and not read without end."""

import os
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from attengait.errors import AttenGaitError
from attengait.store import open_store
from attengait.store.layout import CODECS
from attengait.store.readers.remote import TensorStoreReader
from attengait.store.verify import verify
from attengait.store.writer import write_store

fakes = import_module("store_fakes")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished store of each codec; to be read only."""
    folder = tmp_path_factory.mktemp("special")
    for codec in CODECS:
        write_store(fakes.job_of(folder / f"{codec}.zarr", fakes.plan_of(codec=codec)))
    return folder


@pytest.fixture(params=CODECS)
def store(request, finished, tmp_path):
    """A copy to be damaged, of each codec."""
    return Path(shutil.copytree(finished / f"{request.param}.zarr", tmp_path / "s.zarr"))


KINDS = {
    "named pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["zarr.json", "frames/zarr.json", "sequences/start/zarr.json", "sequences/view/c/0"])
def test_metadata_and_columns_are_regular_files(store, name, kind):
    (store / name).unlink()
    KINDS[kind](store / name)
    for look in (open_store, verify):
        with pytest.raises(AttenGaitError, match=rf"s\.zarr/{name} cannot be read: it is a {kind}, not a file"):
            look(store)


@pytest.mark.parametrize("kind", KINDS)
def test_shards_are_regular_files(store, kind):
    shard = store / "frames/c/0/0/0/0"
    shard.unlink()
    KINDS[kind](shard)
    opened = open_store(store)
    with pytest.raises(AttenGaitError, match=rf"frames/c/0/0/0/0: it is a {kind}, not a file"):
        _ = opened[0]
    with TensorStoreReader(opened.location, opened.layout) as reader, pytest.raises(AttenGaitError, match=kind):
        reader.read_clips([0], [4])
    (finding,) = verify(store)
    assert f"it is a {kind}, not a file; it holds 001/nm-01/090" in str(finding)


def test_a_shard_larger_than_its_frames_can_be_is_named(store):
    os.truncate(store / "frames/c/0/0/0/0", 2**40)  # a hole, which takes no room
    with pytest.raises(AttenGaitError, match=r"frames/c/0/0/0/0: truncated or damaged"):
        _ = open_store(store)[0]
    (finding,) = verify(store)
    assert f"has {2**40} bytes, but must have at most" in str(finding)
