"""The columns beside the frames: numbers and times of every picture, and stores that have none."""

from importlib import import_module

import numpy as np
import pytest
import zarr

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import open_store
from attengait.store.frame_columns import from_runs, to_runs
from attengait.store.sequences import check_columns
from attengait.store.verify import verify
from attengait.store.writer import write_store

fakes = import_module("store_fakes")


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [([], []), ([0], [[0, 1]]), ([3, 4, 5], [[3, 3]]), ([1, 2, 9, 11, 12], [[1, 2], [9, 1], [11, 2]])],
)
def test_numbers_are_kept_as_runs_and_come_back(numbers, runs):
    assert to_runs(numbers) == runs
    assert from_runs(runs).tolist() == numbers


@pytest.fixture
def store(tmp_path):
    write_store(fakes.job_of(tmp_path / "s.zarr"))
    return open_store(tmp_path / "s.zarr")


def test_every_picture_has_its_number_and_plain_zarr_python_reads_it(store):
    numbers = zarr.open_array(store.path / "frame_numbers", mode="r")[:]
    assert len(numbers) == store.layout.num_frames
    used = np.zeros(len(numbers), bool)
    for i, (start, length) in enumerate(zip(store.sequences.start, store.sequences.length, strict=True)):
        assert numbers[start : start + length].tolist() == store.frame_numbers(i).tolist() == list(range(1, length + 1))
        used[start : start + length] = True
    assert set(numbers[~used]) == {-1}
    assert store.frame_times(0) is None
    assert store.frame_numbers(-1).tolist() == store.frame_numbers(len(store) - 1).tolist()
    with pytest.raises(IndexError, match="sequence is 9, but there are 9"):
        store.frame_numbers(9)


def test_a_store_without_numbers_says_so_and_is_sound(store):
    for name in ("c/0", "zarr.json"):
        (store.path / "frame_numbers" / name).unlink()
    assert [str(finding) for finding in verify(store.path)] == ["frame_numbers: is missing"]
    with pytest.raises(AttenGaitError, match="the column frame_numbers is missing"):
        open_store(store.path).frame_numbers(0)
    fakes.forget_digest(store.path)
    assert verify(store.path) == []
    with pytest.raises(AttenGaitError, match=r"keeps no frame numbers: it was made by version 0\.1\.0"):
        open_store(store.path).frame_numbers(0)


def test_damaged_numbers_are_found(store):
    file = store.path / "frame_numbers" / "c" / "0"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(AttenGaitError, match="the column frame_numbers cannot be read"):
        open_store(store.path).frame_numbers(0)
    assert [finding.place for finding in verify(store.path)] == ["frame_numbers"]


def test_numbers_that_do_not_ascend_are_found(store):
    array = zarr.open_array(store.path / "frame_numbers", mode="r+")
    start = int(store.sequences.start[2])
    array[start : start + 2] = [5, 5]
    assert [str(finding) for finding in verify(store.path)] == ["frame_numbers: fails its checksum"]
    fakes.forget_digest(store.path)
    assert [finding.place for finding in verify(store.path)] == [store.sequences.name(2)]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"subject": "a"}], "column is 'subject', but must be a new name"),
        ([{"my camera": "a"}], "column is 'my camera'"),
        ([{"camera": [1]}], "column camera holds list, but must hold str, int or float"),
        ([{"camera": "a"}, {"camera": 1}], "of the same types as the first"),
        ([{"camera": "a"}, {}], "but must be camera of the same types"),
    ],
)
def test_columns_that_cannot_be_kept_are_refused(rows, sentence):
    with pytest.raises(ParameterError, match=sentence):
        check_columns(rows)
