"""Readers of every kind give the clips of plain zarr-python: mapped, by TensorStore, joined and in memory."""

import ctypes
import errno
import mmap
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import Store
from attengait.store.layout import CODECS, shard_path
from attengait.store.readers.base import ClipReader, as_one_array
from attengait.store.readers.joined import JoinedReader
from attengait.store.readers.mapped import MappedFrames, MappedReader
from attengait.store.readers.remote import TensorStoreReader
from attengait.store.readers.resident import ResidentReader

held, small_stores = import_module("held"), import_module("small_stores")
make_store, zarr_frames = small_stores.make_store, small_stores.zarr_frames
SHARD_FRAMES, NUM_SHARDS = small_stores.SHARD_FRAMES, small_stores.NUM_SHARDS
assert_equals_zarr = small_stores.assert_equals_zarr


@pytest.fixture
def raw(tmp_path: Path) -> Store:
    return make_store(tmp_path / "raw.zarr", "none")


@pytest.mark.parametrize("codec", CODECS)
def test_tensorstore_reads_every_store_alike(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec)
    with TensorStoreReader(store.location, store.layout) as reader:
        assert_equals_zarr(reader, store)


def test_a_mapped_clip_is_a_read_only_view_without_a_copy(raw: Store) -> None:
    with raw.reader() as reader:
        one, other = reader.read_clips([0, 2], [10, 10])
        assert np.shares_memory(one, other)
        with pytest.raises(ValueError, match="read-only"):
            one[:] = 0


def test_a_shard_whose_chunks_do_not_lie_back_to_back_is_read_by_its_index(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", "none", write_empty_chunks=False)
    with MappedReader(store.location, store.layout) as reader:
        assert_equals_zarr(reader, store)
        black, other = reader.read_clips([SHARD_FRAMES, 0], [20, 20])
        assert not black[:16].any()
        assert black.flags.writeable  # tensorstore's; the other one is mapped
        assert not other.flags.writeable


def test_a_mapped_store_holds_no_file_open_and_is_let_go_with_its_last_clip(raw: Store) -> None:
    frames = zarr_frames(raw)
    with MappedReader(raw.location, raw.layout) as reader:
        clips = reader.read_clips(np.arange(NUM_SHARDS) * SHARD_FRAMES, [7] * NUM_SHARDS)
        assert held.maps(raw.path) == NUM_SHARDS
        assert held.open_files(raw.path) == 0
    for shard, clip in enumerate(clips):
        assert np.array_equal(clip, frames[shard * SHARD_FRAMES :][:7])
    clips = clips[:1]
    assert held.maps(raw.path) == NUM_SHARDS  # the range is one
    del clip
    clips.clear()
    assert held.maps(raw.path) == 0


def test_a_store_that_the_address_space_has_no_room_for_is_read_by_tensorstore(
    raw: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*arguments: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("attengait.store.readers.mapped.MappedFrames", no_room)
    with raw.reader() as reader:
        assert_equals_zarr(reader, raw)
        take = reader.request_clips([0], [10])
        assert np.array_equal(take()[0], zarr_frames(raw)[:10])


def test_what_is_asked_for_ahead_is_in_memory_soon(tmp_path: Path) -> None:
    # One clip of many pages, so that reading its first page at the fault would not bring the last.
    store = make_store(tmp_path / "s.zarr", lengths=(480,) * 3, shard_frames=480, frame_shape=(64, 64, 3))
    mapped = MappedFrames(store.path, store.layout)
    one = np.array([1])
    with shard_path(store.path, 1).open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert mapped.map_shards(one).all()
    if is_in_memory(mapped, 1):
        pytest.skip("this file system keeps its files in memory")
    mapped.will_need(one, np.array([0]), np.array([480]))
    deadline = time.monotonic() + 600
    while not is_in_memory(mapped, 1):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_in_memory(mapped: MappedFrames, shard: int) -> bool:
    frames = mapped.frames[shard]
    pages = np.empty(-(-frames.nbytes // mmap.PAGESIZE), np.uint8)
    assert (
        ctypes.CDLL(None).mincore(
            ctypes.c_void_p(frames.ctypes.data), ctypes.c_size_t(frames.nbytes), ctypes.c_void_p(pages.ctypes.data)
        )
        == 0
    )
    return bool((pages & 1).all())


def test_several_stores_are_read_as_one(tmp_path: Path) -> None:
    stores = [make_store(tmp_path / f"{codec}.zarr", codec) for codec in ("none", "lz4")]
    first = stores[0].layout.num_frames
    with JoinedReader([store.reader() for store in stores], [store.layout.num_frames for store in stores]) as reader:
        clips = reader.read_clips([first + 48, 0, first, first - 10], [10, 5, 7, 10])
        with pytest.raises(ParameterError, match="a clip has frames"):
            reader.read_clips([first - 5], [10])
    frames = zarr_frames(stores[0])
    expected = [frames[48:58], frames[:5], frames[:7], frames[-10:]]
    assert all(np.array_equal(clip, other) for clip, other in zip(clips, expected, strict=True))


def test_clips_are_one_array_without_a_copy_only_if_they_are_its_rows_in_order() -> None:
    whole = np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 1, 1, 3).copy()
    assert as_one_array(list(whole)) is whole
    others = [
        list(whole[::-1]),
        list(whole[:3]),
        [whole[0], whole[1], whole[2], whole[2]],
        [row.copy() for row in whole],
    ]
    for clips in others:
        found = as_one_array(clips)
        assert not np.shares_memory(found, whole)
        assert np.array_equal(found, np.array(clips))


def test_frames_in_memory_are_read_alike(raw: Store) -> None:
    with ResidentReader(np.asarray(zarr_frames(raw))) as reader:
        assert_equals_zarr(reader, raw)
        for start, length in [(-1, 2), (raw.layout.num_frames - 1, 2), (0, 0)]:
            with pytest.raises(ParameterError, match=f"a clip has frames {start} to"):
                reader.read_clips([0, start], [10, length])


FORK = """
import os, sys
from attengait.errors import AttenGaitError
from attengait.store import open_store
from attengait.store.readers.remote import TensorStoreReader

raw, packed = (open_store(path) for path in sys.argv[1:])
readers = [raw.reader(), packed.reader(), TensorStoreReader(raw.location, raw.layout)]
before = [reader.read_clips([0], [5])[0] for reader in readers]
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
for reader, clip in zip(readers[:2], before):
    for _ in range(3):
        assert (reader.read_clips([0, 7], [5, 5])[0] == clip).all()
try:
    readers[2].read_clips([0], [5])
except AttenGaitError as error:
    assert "forked" in str(error) and "spawn" in str(error) and len(str(error).splitlines()) == 1
    os._exit(7)
"""


def test_a_forked_process_reads_local_stores_and_says_what_to_do_for_those_that_tensorstore_reads(
    tmp_path: Path,
) -> None:
    stores = [make_store(tmp_path / f"{codec}.zarr", codec) for codec in ("none", "lz4")]
    done = subprocess.run([sys.executable, "-c", FORK, *[str(store.path) for store in stores]], capture_output=True)
    assert done.returncode == 7, done.stderr.decode()


def test_clips_stay_valid_after_their_reader_is_closed(raw: Store) -> None:
    with raw.reader() as reader:
        (clip,) = reader.read_clips([5], [10])
    assert np.array_equal(clip, zarr_frames(raw)[5:15])


def readers_of_every_kind(folder: Path) -> list[ClipReader]:
    raw, packed = make_store(folder / "raw.zarr"), make_store(folder / "lz4.zarr", "lz4")
    joined = JoinedReader([raw.reader(), packed.reader()], [raw.layout.num_frames, packed.layout.num_frames])
    remote = TensorStoreReader(raw.location, raw.layout)
    unchecked = [store.reader(check_frames=False) for store in (raw, packed)]
    return [raw.reader(), *unchecked, remote, joined, ResidentReader(zarr_frames(raw))]


def test_a_closed_reader_says_so_and_reads_nothing(tmp_path: Path) -> None:
    readers = readers_of_every_kind(tmp_path)
    assert len({type(reader) for reader in readers}) == 6
    for reader in readers:
        (clip,) = reader.read_clips([0], [10])
        expected = clip.copy()
        take = reader.request_clips([0], [10])
        reader.close()
        reader.close()
        with pytest.raises(AttenGaitError, match=r"the reader was closed"):
            take()
        for call in (reader.read_clips, reader.request_clips):
            with pytest.raises(AttenGaitError, match=r"the reader was closed: make another with store.reader"):
                call([0], [10])
        assert np.array_equal(clip, expected)


@pytest.mark.parametrize(("start", "length"), [(40, 9), (-1, 2), (NUM_SHARDS * SHARD_FRAMES - 1, 2), (0, 0), (0, 49)])
@pytest.mark.parametrize("kind", [MappedReader, TensorStoreReader])
def test_a_clip_that_is_not_within_one_shard_is_refused(
    raw: Store, kind: type[MappedReader] | type[TensorStoreReader], start: int, length: int
) -> None:
    with kind(raw.location, raw.layout) as reader, pytest.raises(ParameterError, match=f"a clip has frames {start} to"):
        reader.read_clips([0, start], [10, length])


def test_a_shard_truncated_while_it_is_mapped_is_an_error_and_not_a_crash(
    raw: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attengait.store.readers.mapped.RECHECK_SECONDS", 0.0)
    path = shard_path(raw.path, 0)
    whole = path.read_bytes()
    with raw.reader() as reader:
        reader.read_clips([0], [10])
        os.truncate(path, 100)
        with pytest.raises(AttenGaitError, match="frames/c/0/0/0/0: truncated or damaged, it has 100 bytes instead of"):
            reader.read_clips([0], [10])
        path.write_bytes(whole)
        (clip,) = reader.read_clips([0], [10])
        assert np.array_equal(clip, zarr_frames(raw)[:10])
