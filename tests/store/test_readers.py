"""A store's own reader gives the clips of plain zarr-python, with compiled code and without; damage is an error."""

import errno
import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr

from attengait.errors import AttenGaitError
from attengait.kernels.chunks.unpack import can_read
from attengait.store import Store
from attengait.store.layout import CODECS, read_shard_index, shard_path
from attengait.store.readers.chunks import ChunkReader
from attengait.store.readers.mapped import MappedReader

held, small_stores = import_module("held"), import_module("small_stores")
make_store, zarr_frames = small_stores.make_store, small_stores.zarr_frames
SHARD_FRAMES, assert_equals_zarr = small_stores.SHARD_FRAMES, small_stores.assert_equals_zarr


@pytest.fixture(params=["compiled", "one by one"])
def unpacking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With compiled code for lz4, and without."""
    if request.param == "compiled":
        if not can_read():
            pytest.skip("no C++ compiler")
    else:
        monkeypatch.setattr("attengait.store.readers.chunks.can_read", lambda: False)


@pytest.mark.usefixtures("unpacking")
@pytest.mark.parametrize("codec", CODECS)
def test_the_reader_of_a_store_gives_every_frame_as_zarr_python_does(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec)
    with store.reader() as reader:
        assert_equals_zarr(reader, store)
    with store.reader(check_frames=False) as reader:
        assert isinstance(reader, MappedReader if codec == "none" else ChunkReader)
        assert_equals_zarr(reader, store)


@pytest.mark.usefixtures("unpacking")
@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_chunks_that_a_compressed_shard_leaves_out_are_zeros(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec, write_empty_chunks=False)
    with store.reader() as reader:
        assert_equals_zarr(reader, store)
        (clip,) = reader.read_clips([SHARD_FRAMES], [20])
    assert not clip[:16].any()
    assert clip[16:].any()


@pytest.mark.usefixtures("unpacking")
@pytest.mark.parametrize("num_threads", [1, 2, 7])
def test_few_compressed_shards_are_open_at_a_time_and_none_after_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_threads: int
) -> None:
    monkeypatch.setattr("attengait.store.readers.chunks.MAX_OPEN_SHARDS", 2)
    monkeypatch.setattr("attengait.store.readers.chunks.usable_cores", lambda: num_threads)
    store = make_store(tmp_path / "s.zarr", "lz4")
    with store.reader() as reader:
        for _ in range(3):
            assert_equals_zarr(reader, store)
            assert held.open_files(store.path) == 2
    assert held.open_files(store.path) == 0


@pytest.mark.usefixtures("unpacking")
def test_however_many_clips_are_asked_for_few_compressed_shards_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attengait.store.readers.chunks.MAX_OPEN_SHARDS", 2)
    monkeypatch.setattr("attengait.store.readers.chunks.MAX_SHARDS_IN_USE", 6)
    monkeypatch.setattr("attengait.store.readers.chunks.usable_cores", lambda: 2)
    store = make_store(tmp_path / "s.zarr", "lz4", lengths=(40,) * 60)
    looks = []

    def look(*arguments: object) -> int:
        looks.append(held.open_files(store.path))
        return crc32c(*arguments)

    crc32c = google_crc32c.value
    monkeypatch.setattr(google_crc32c, "value", look)
    with store.reader() as reader:
        clips = reader.read_clips(store.sequences.start, store.sequences.length)
    frames = zarr_frames(store)
    for start, clip in zip(store.sequences.start.tolist(), clips, strict=True):
        assert np.array_equal(clip, frames[start : start + 40])
    # The shards in use, those kept, and the file of a shard whose index is read, for each of two threads.
    assert 2 <= max(looks) <= 6 + 2 + 2


def test_a_disk_that_fails_is_one_sentence_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("attengait.store.readers.chunks.can_read", lambda: False)
    store = make_store(tmp_path / "s.zarr", "lz4")
    with store.reader() as reader:
        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(AttenGaitError, match=r"s\.zarr/frames/c/1/0/0/0: Input/output error$"):
            reader.read_clips([SHARD_FRAMES], [10])


@pytest.mark.usefixtures("unpacking")
@pytest.mark.parametrize("codec", CODECS)
def test_requested_clips_are_those_read_at_once(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec)
    frames = zarr_frames(store)
    with store.reader() as reader:
        takes = [reader.request_clips([start, start + 48], [10, 9]) for start in range(20)]
        for start, take in enumerate(takes):
            first, second = take()
            assert np.array_equal(first, frames[start : start + 10])
            assert np.array_equal(second, frames[start + 48 : start + 57])


@pytest.mark.usefixtures("unpacking")
@pytest.mark.parametrize("codec", CODECS)
def test_damage_is_said_when_requested_clips_are_taken(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec)
    truncate(shard_path(store.path, 2))
    with store.reader() as reader:
        bad, good = reader.request_clips([2 * SHARD_FRAMES], [10]), reader.request_clips([3 * SHARD_FRAMES], [10])
        with pytest.raises(AttenGaitError, match="frames/c/2/0/0/0: truncated or damaged"):
            bad()
        assert len(good()) == 1


def zarr_frames_of(store: Store, shard: int) -> Any:
    """The frames of the first chunk of a shard, as zarr-python reads them."""
    first = shard * SHARD_FRAMES
    return zarr.open_array(store.path / "frames", mode="r")[first : first + 16]


@pytest.mark.usefixtures("unpacking")
def test_clips_of_a_reader_that_was_closed_meanwhile_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attengait.store.readers.chunks.usable_cores", lambda: 1)
    store = make_store(tmp_path / "s.zarr", "lz4")
    reader = store.reader()
    takes = [reader.request_clips([0] * 200, [48] * 200) for _ in range(50)]
    reader.close()
    with pytest.raises(AttenGaitError, match="the reader was closed"):
        takes[-1]()


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut_off_the_index(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 20)


def damage_the_index(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)


@pytest.fixture(params=[remove, truncate, empty, cut_off_the_index, damage_the_index], ids=lambda f: f.__name__)
def damage(request: pytest.FixtureRequest) -> Iterator[object]:
    return request.param


@pytest.mark.usefixtures("unpacking")
@pytest.mark.parametrize("codec", CODECS)
def test_a_damaged_shard_is_one_sentence_that_names_it_and_the_others_are_read(
    tmp_path: Path, codec: str, damage: object
) -> None:
    store = make_store(tmp_path / "s.zarr", codec)
    assert callable(damage)
    damage(shard_path(store.path, 2))
    with store.reader() as reader:
        with pytest.raises(AttenGaitError, match="frames/c/2/0/0/0: ") as caught:
            reader.read_clips([0, 2 * SHARD_FRAMES], [10, 10])
        assert "\n" not in str(caught.value)
        (clip,) = reader.read_clips([SHARD_FRAMES + 10], [10])
    assert clip[6:].any()


@pytest.mark.usefixtures("unpacking")
@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_flipped_bit_in_a_compressed_chunk_is_found(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec)
    path = shard_path(store.path, 3)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    sentence = r"frames/c/3/0/0/0: truncated or damaged \(chunk 0 fails its checksum\)$"
    with store.reader() as reader, pytest.raises(AttenGaitError, match=sentence):
        reader.read_clips([3 * SHARD_FRAMES], [10])


@pytest.mark.usefixtures("unpacking")
def test_a_chunk_with_a_right_checksum_that_cannot_be_unpacked_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", "lz4")
    path = shard_path(store.path, 3)
    offset, num_bytes = read_shard_index(path, store.layout)[1].tolist()
    data = bytearray(path.read_bytes())
    data[offset + 4] ^= 1  # of the number of bytes that the chunk says that it holds
    packed = bytes(data[offset : offset + num_bytes - 4])
    data[offset + num_bytes - 4 : offset + num_bytes] = google_crc32c.value(packed).to_bytes(4, "little")
    path.write_bytes(data)
    with store.reader(check_frames=False) as reader:
        sentence = "chunk 1 cannot be unpacked: it holds 1441 bytes instead of 1440"
        with pytest.raises(AttenGaitError, match=rf"frames/c/3/0/0/0: truncated or damaged \({sentence}\)$"):
            reader.read_clips([3 * SHARD_FRAMES], [20])
        assert np.array_equal(reader.read_clips([3 * SHARD_FRAMES], [16])[0], zarr_frames_of(store, 3))


def test_a_store_whose_frames_vanished_is_an_error(tmp_path: Path) -> None:
    for codec in CODECS:
        store = make_store(tmp_path / f"{codec}.zarr", codec)
        shutil.rmtree(store.path / "frames")
        with store.reader() as reader, pytest.raises(AttenGaitError, match="frames"):
            reader.read_clips([0], [10])
