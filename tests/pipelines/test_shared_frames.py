"""Processes of one machine keep a store's frames once, and share them."""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attengait.errors import AttenGaitError
from attengait.pipelines.shared_frames import Place, map_frames
from attengait.pipelines.stream import ClipStream
from attengait.store import Store
from attengait.training.ranks import OtherProcessError, Ranks

gang_module, jobs = import_module("gang"), import_module("shared_training")
make_store = import_module("small_stores").make_store

LENGTHS = (20, 15, 12, 9, 40, 13, 20, 17, 30, 31, 11, 12)


@pytest.fixture(scope="module")
def gang() -> Iterator[Any]:
    gang = gang_module.Gang(2)
    yield gang
    gang.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made: Store = make_store(tmp_path / "s.zarr", "lz4", lengths=LENGTHS, frame_shape=(64, 64, 3))
    return made


def test_two_processes_stream_the_clips_of_one_out_of_one_copy(gang: Any, store: Store) -> None:
    first, second = gang.run(2, jobs.keep_in_memory, store.path, 3)
    with ClipStream(store, jobs.clips_plan(store), start_step=1, num_steps=3) as alone:
        for whole, *halves in zip(alone, first[0], second[0], strict=True):
            assert np.array_equal(np.concatenate(halves), whole.clips.numpy())
    assert [each[1] for each in (first, second)] == [True, False], "only the first may write"
    assert first[3] == second[3]
    assert "(deleted)" in first[3], "the memory has no name that could stay behind"
    used = sum(length for length in LENGTHS if length >= 12) * 64 * 64 * 3
    together = first[2] + second[2]
    assert used <= together < 1.5 * used, "the pages of both together are one copy"


def test_a_store_that_cannot_be_read_ends_all_and_is_said_by_the_first(gang: Any, store: Store) -> None:
    (_, error), (_, other) = gang.answers(2, jobs.keep_in_memory, store.path, 1, 0)
    assert isinstance(error, AttenGaitError)
    assert "closed" in str(error)
    assert isinstance(other, OtherProcessError)
    assert other.is_explained


def test_processes_that_would_choose_apart_choose_the_same(gang: Any, store: Store) -> None:
    num_bytes = store.layout.num_frames * store.layout.frame_bytes
    for free, chosen in (((2, 2), "host"), ((2, 1), "none"), ((1, 2), "none")):
        assert gang.run(2, jobs.choose_apart, store.path, [each * num_bytes for each in free]) == [chosen] * 2


def test_auto_keeps_nothing_where_processes_cannot_share_memory(gang: Any, store: Store) -> None:
    assert gang.run(2, jobs.choose_without_sharing, store.path, "auto", None)[0].cache == "host"
    for rank, why in (
        (0, "no memory can be shared by processes here: [Errno 1] Operation not permitted"),
        (1, "the memory of process 0, which keeps the frames for process 1, cannot be opened (/proc/"),
    ):
        first, second = gang.run(2, jobs.choose_without_sharing, store.path, "auto", rank)
        assert first == second
        assert first.cache == "none"
        assert first.reason.startswith(f"frames are read from the store: {why}")
        assert "--cache" not in first.reason


def test_memory_of_a_process_that_is_elsewhere_or_gone_is_not_mapped() -> None:
    ranks = Ranks(rank=3, world_size=4, local_rank=1, local_world_size=2)
    with Path("/dev/null").open() as other:
        place = Place(os.getpid(), other.fileno(), "attengait-1234", (1, 64, 64, 3))
        with pytest.raises(
            AttenGaitError, match="process 2, which keeps the frames for process 3, is on another machine"
        ):
            map_frames(place, ranks)
    with pytest.raises(AttenGaitError, match=r"cannot be opened .*No such file or directory.*: choose --cache none"):
        map_frames(place._replace(process=2**22 + 1), ranks)
