"""A shard's index with a right checksum, whatever stands in it: right frames, or an error that names the store."""

import shutil
from importlib import import_module
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.errors import AttenGaitError
from attengait.store import open_store
from attengait.store.layout import ABSENT, index_bytes, parse_shard_index, shard_path
from attengait.store.readers.remote import TensorStoreReader
from attengait.store.verify import verify
from attengait.store.writer import write_store

fakes = import_module("store_fakes")

CODECS = ("none", "zstd")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """For each codec a store to be damaged, opened, what it holds, and the bytes of its first shard."""
    folder, found = tmp_path_factory.mktemp("index"), {}
    for codec in CODECS:
        write_store(fakes.job_of(folder / f"{codec}.zarr", fakes.plan_of(codec=codec)))
        opened = open_store(folder / f"{codec}.zarr")
        right = [frames.copy() for frames in opened]
        found[codec] = opened, right, shard_path(opened.path, 0).read_bytes()
    return found


def read_all(store):
    with store.reader() as reader:
        return reader.read_clips(store.sequences.start, store.sequences.length)


near = st.integers(0, 700)
far = st.sampled_from([2**31, 2**32, 2**63, 2**64 - 20, int(ABSENT) - 1, int(ABSENT)])


@settings(derandomize=True, deadline=None, max_examples=100)
@given(codec=st.sampled_from(CODECS), data=st.data())
def test_any_index_gives_right_frames_or_is_refused_and_found(stores, codec, data):
    store, right, before = stores[codec]
    size = index_bytes(store.layout.chunks_per_shard)
    index = np.frombuffer(before[-size:-4], "<u8").reshape(-1, 2).copy()
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.integers(0, len(index) - 1))
        if data.draw(st.booleans()):
            index[row, data.draw(st.integers(0, 1))] = data.draw(near | far)
        else:
            index[row] = index[data.draw(st.integers(0, len(index) - 1))]
    table = index.tobytes()
    shard_path(store.path, 0).write_bytes(before[:-size] + table + google_crc32c.value(table).to_bytes(4, "little"))
    said = ""
    try:
        for frames, expected in zip(read_all(store), right, strict=True):
            np.testing.assert_array_equal(frames, expected)
    except AttenGaitError as error:
        said = str(error)
    assert not said or f"{codec}.zarr" in said
    assert bool(verify(store)) >= bool(said)
    shard_path(store.path, 0).write_bytes(before)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(tail=st.binary(max_size=200), file_bytes=st.integers(0, 2**63), is_sealed=st.booleans())
def test_any_bytes_are_an_index_within_the_file_or_refused(stores, tail, file_bytes, is_sealed):
    layout = stores["zstd"][0].layout
    if is_sealed:
        tail = tail.ljust(index_bytes(layout.chunks_per_shard) - 4, b"\0")
        tail += google_crc32c.value(tail[-(index_bytes(layout.chunks_per_shard) - 4) :]).to_bytes(4, "little")
    try:
        index = parse_shard_index(tail, file_bytes, layout)
    except AttenGaitError:
        return
    for offset, num_bytes in index.tolist():
        is_absent = ABSENT in (offset, num_bytes)
        assert is_absent or offset + num_bytes <= file_bytes
        assert is_absent or num_bytes <= layout.max_packed_chunk_bytes


@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_of_more_bytes_than_it_can_have_is_refused_before_it_is_read(stores, tmp_path, codec):
    opened, _, _ = stores[codec]
    copy = open_store(Path(shutil.copytree(opened.path, tmp_path / "s.zarr")))
    path = shard_path(copy.path, 0)
    index = np.frombuffer(path.read_bytes()[-index_bytes(copy.layout.chunks_per_shard) : -4], "<u8").copy()
    index[1] = 2**40
    table = index.tobytes()
    with path.open("r+b") as file:  # a hole, which takes no room
        file.seek(2**41)
        file.write(table + google_crc32c.value(table).to_bytes(4, "little"))
    sentence = rf"frames/c/0/0/0/0: its index has a chunk of more than {copy.layout.max_packed_chunk_bytes} bytes"
    for read in (lambda: read_all(copy), lambda: TensorStoreReader(copy.location, copy.layout).read_clips([0], [4])):
        with pytest.raises(AttenGaitError, match=sentence):
            read()
