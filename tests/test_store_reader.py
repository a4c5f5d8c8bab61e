"""Clips read by either reader are those of plain zarr-python; damage is an error, never a crash."""

import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import Store
from attengait.store.layout import CODECS, shard_path
from attengait.store.reader import ClipReader, MappedReader, TensorStoreReader, open_reader

small_stores = import_module("small_stores")
make_store, zarr_frames = small_stores.make_store, small_stores.zarr_frames

SHARD_FRAMES, NUM_SHARDS = 48, 5


def assert_equals_zarr(reader: ClipReader, store: Store) -> None:
    """Every frame, alone, in clips of odd lengths, and whole shards, with repeats, in one batch."""
    frames = zarr_frames(store)
    bounds = [(i, 1) for i in range(len(frames))]
    bounds += [(s * SHARD_FRAMES + a, n) for s in range(NUM_SHARDS) for a, n in [(0, 48), (3, 17), (31, 17), (3, 17)]]
    clips = reader.read_clips([a for a, _ in bounds], [n for _, n in bounds])
    assert len(clips) == len(bounds)
    for (start, length), clip in zip(bounds, clips, strict=True):
        assert clip.dtype == np.uint8
        assert np.array_equal(clip, frames[start : start + length])


@pytest.fixture
def raw(tmp_path: Path) -> Store:
    return make_store(tmp_path / "raw.zarr", "none")


@pytest.mark.parametrize("codec", CODECS)
def test_the_reader_of_a_store_gives_every_frame_as_zarr_python_does(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec)
    with store.reader() as reader:
        assert isinstance(reader, MappedReader if codec == "none" else TensorStoreReader)
        assert_equals_zarr(reader, store)


def test_tensorstore_reads_an_uncompressed_store_alike(raw: Store) -> None:
    with TensorStoreReader(raw.path, raw.layout) as reader:
        assert_equals_zarr(reader, raw)


def test_a_mapped_clip_is_a_read_only_view_without_a_copy(raw: Store) -> None:
    with open_reader(raw) as reader:
        one, other = reader.read_clips([0, 2], [10, 10])
        assert np.shares_memory(one, other)
        with pytest.raises(ValueError, match="read-only"):
            one[:] = 0


def test_a_shard_whose_chunks_do_not_lie_back_to_back_is_read_by_its_index(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", "none", write_empty_chunks=False)
    with MappedReader(store.path, store.layout) as reader:
        assert_equals_zarr(reader, store)
        black, other = reader.read_clips([SHARD_FRAMES, 0], [20, 20])
        assert not black[:16].any()
        assert black.flags.writeable  # tensorstore's; the other one is mapped
        assert not other.flags.writeable


def test_few_maps_are_open_at_a_time_and_none_after_closing(raw: Store) -> None:
    before = open_files()
    frames = zarr_frames(raw)
    with MappedReader(raw.path, raw.layout, max_open_maps=2) as reader:
        clips = reader.read_clips(np.arange(NUM_SHARDS) * SHARD_FRAMES, [7] * NUM_SHARDS)
        assert num_maps(raw) == NUM_SHARDS  # as long as their clips are used
        for shard, clip in enumerate(clips):
            assert np.array_equal(clip, frames[shard * SHARD_FRAMES :][:7])
        del clip
        clips.clear()
        assert num_maps(raw) == 2
    assert num_maps(raw) == 0
    assert open_files() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def num_maps(store: Store) -> int:
    return Path("/proc/self/maps").read_text().count(str(store.path / "frames"))


def test_clips_stay_valid_after_their_reader_is_closed(raw: Store) -> None:
    with open_reader(raw) as reader:
        (clip,) = reader.read_clips([5], [10])
    assert np.array_equal(clip, zarr_frames(raw)[5:15])


@pytest.mark.parametrize(("start", "length"), [(40, 9), (-1, 2), (NUM_SHARDS * SHARD_FRAMES - 1, 2), (0, 0), (0, 49)])
@pytest.mark.parametrize("kind", [MappedReader, TensorStoreReader])
def test_a_clip_that_is_not_within_one_shard_is_refused(
    raw: Store, kind: type[MappedReader] | type[TensorStoreReader], start: int, length: int
) -> None:
    with kind(raw.path, raw.layout) as reader, pytest.raises(ParameterError, match=f"a clip has frames {start} to"):
        reader.read_clips([0, start], [10, length])


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


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_flipped_bit_in_a_compressed_chunk_is_found(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec)
    path = shard_path(store.path, 3)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with store.reader() as reader, pytest.raises(AttenGaitError, match="frames/c/3/0/0/0: truncated or damaged"):
        reader.read_clips([3 * SHARD_FRAMES], [10])


def test_a_shard_truncated_while_it_is_mapped_is_an_error_and_not_a_crash(raw: Store) -> None:
    path = shard_path(raw.path, 0)
    whole = path.read_bytes()
    with open_reader(raw) as reader:
        reader.read_clips([0], [10])
        os.truncate(path, 100)
        with pytest.raises(AttenGaitError, match="frames/c/0/0/0/0: truncated or damaged, it has 100 bytes instead of"):
            reader.read_clips([0], [10])
        path.write_bytes(whole)
        (clip,) = reader.read_clips([0], [10])
        assert np.array_equal(clip, zarr_frames(raw)[:10])


def test_a_store_whose_frames_vanished_is_an_error(tmp_path: Path) -> None:
    for codec in CODECS:
        store = make_store(tmp_path / f"{codec}.zarr", codec)
        shutil.rmtree(store.path / "frames")
        with store.reader() as reader, pytest.raises(AttenGaitError, match="frames"):
            reader.read_clips([0], [10])
