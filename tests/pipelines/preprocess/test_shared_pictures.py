"""Processes read into shared memory what this process would read; it is used again, and nothing of it is left."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module

import cv2
import numpy as np
import pytest

from attengait.datasets.pictures import read_one_by_one
from attengait.errors import AttenGaitError
from attengait.kernels.farneback.cuda import runs
from attengait.pipelines.preprocess import shared_pictures
from attengait.pipelines.preprocess.reading import read_sequence
from attengait.pipelines.preprocess.shared_pictures import STEP_BYTES, SharedMemory, SharedReaders
from attengait.preprocessing.flow import FlowRecipe

casia, walks, devices = import_module("casia"), import_module("walks"), import_module("host_devices")
READ = partial(read_sequence, recipe=FlowRecipe(min_frames=1), read_grays=read_one_by_one)


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """A walk of more than two blocks, one whose first frame has another size, one without a usable frame, and others
    of two sizes; to be read only."""
    root = tmp_path_factory.mktemp("walks")
    for i, (num_frames, shape) in enumerate(
        [(5, (48, 80)), (70, (48, 180)), (6, (50, 90)), (5, (48, 80)), (7, (60, 80))]
    ):
        walks.write_walk(root, f"{i + 1:03d}", "nm-01", num_frames, seed=i, shape=shape)
    cv2.imwrite(str(walks.picture(root, "rgb", "003/nm-01/090", 1)), np.zeros((40, 40), np.uint8))
    for number in range(1, 6):
        walks.picture(root, "rgb", "004/nm-01/090", number).write_bytes(b"damaged")
    return casia.find(root / "rgb", root / "silh").sequences


def assert_same(read, expected):
    for name in ("pairs", "numbers", "times_seconds"):
        assert getattr(read.block, name) == getattr(expected.block, name)
    for name in ("grays", "silhouettes"):
        ours, theirs = getattr(read.block, name), getattr(expected.block, name)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    assert read.faults == expected.faults


def test_what_processes_read_is_what_would_be_read_here(sequences):
    expected = [READ(sequence) for sequence in sequences]
    assert [len(each.block.grays) for each in expected] == [5, 70, 5, 0, 7]
    with SharedReaders(READ, num_sequences=5) as read, ThreadPoolExecutor(2) as threads:
        for ours, theirs in zip(threads.map(read, sequences), expected, strict=True):
            assert_same(ours, theirs)
    assert multiprocessing.active_children() == []


def test_the_pictures_of_a_sequence_lie_side_by_side(sequences):
    with SharedReaders(READ, num_sequences=1) as read:
        block = read(sequences[1]).block
        assert [len(run) for run in runs(block.grays)] == [33, 32, 5]  # a block's last frame begins the next
        assert [len(run) for run in runs(block.silhouettes)] == [32, 32, 5]
        assert all(np.shares_memory(run, block.grays[0].base) for run in runs(block.silhouettes))


def test_memory_is_used_again_when_it_was_given_back(sequences):
    with SharedReaders(READ, num_sequences=2) as read:
        kept, expected = read(sequences[0]), READ(sequences[0])
        addresses = set()
        for sequence in (*sequences, *sequences):
            other = read(sequence)
            assert_same(other, READ(sequence))
            addresses |= {gray.base.ctypes.data for gray in other.block.grays}
            other.give_back()
        assert len(addresses) == 1
        assert_same(kept, expected)


class Pins:
    """What is registered now, as addresses and sizes in bytes."""

    def __init__(self):
        self.now, self.sizes = {}, []

    def __call__(self, memory):
        self.now[memory.ctypes.data] = memory
        self.sizes.append(len(memory))
        return partial(self.now.pop, memory.ctypes.data)


def test_memory_is_registered_again_only_when_it_grows_and_at_the_end_no_longer(sequences, monkeypatch):
    monkeypatch.setattr(shared_pictures, "STEP_BYTES", 4096)
    pins = Pins()
    with SharedReaders(READ, num_sequences=1, pin=pins) as read:
        for index in (0, 1, 0, 1, 3):
            one = read(sequences[index])
            assert sum(map(len, pins.now.values())) >= sum(p.nbytes for p in one.block.grays + one.block.silhouettes)
            one.give_back()
        planes = [9 * 48 * 80, (70 + 69) * 48 * 180]
        assert pins.sizes == [-(-size // 4096) * 4096 for size in planes]
        assert len(pins.now) == 1
    assert pins.now == {}


def test_large_memory_goes_back_to_the_system_after_use(sequences, monkeypatch):
    monkeypatch.setattr(shared_pictures, "KEPT_BYTES", STEP_BYTES - 1)
    pins = Pins()
    with SharedReaders(READ, num_sequences=1, pin=pins) as read:
        for sequence in sequences[:3]:
            one = read(sequence)
            assert_same(one, READ(sequence))
            assert os.fstat(read._memories[0]._descriptor).st_size >= STEP_BYTES
            del one.block.grays[:], one.block.silhouettes[:]
            one.give_back()
            assert os.fstat(read._memories[0]._descriptor).st_size == 0
            assert pins.now == {}
        assert pins.sizes == [STEP_BYTES] * 3


def test_an_error_in_a_reader_is_raised_here_as_it_is(sequences, tmp_path):
    walks.write_walk(tmp_path, "001", "nm-01", 5, seed=1)
    (sequence,) = casia.find(tmp_path / "rgb", tmp_path / "silh").sequences
    gone = walks.picture(tmp_path, "rgb", "001/nm-01/090", 3)
    gone.unlink()
    with pytest.raises(AttenGaitError) as here:
        READ(sequence)
    with SharedReaders(READ, num_sequences=2) as read:
        with pytest.raises(AttenGaitError) as there:
            read(sequence)
        assert_same(read(sequences[0]), READ(sequences[0]))
    assert str(here.value) == str(there.value) == f"{gone} can no longer be read: No such file or directory"
    assert type(here.value) is type(there.value)


def test_a_reader_that_was_killed_is_noticed(sequences):
    with SharedReaders(READ, num_sequences=2) as read:
        read(sequences[0])
        (reader,) = multiprocessing.active_children()
        os.kill(reader.pid, signal.SIGKILL)
        with pytest.raises(AttenGaitError, match=r"^a process that reads died, perhaps for lack of memory$"):
            read(sequences[1])
    assert multiprocessing.active_children() == []


def test_a_process_that_was_not_there_sees_what_is_written_later():
    memory = SharedMemory()
    memory.map(10)[:3] = 1, 2, 3
    (process,) = [multiprocessing.get_context("spawn").Process(target=devices.add_one, args=(memory,))]
    process.start()
    process.join(60)
    assert memory.map(10)[:4].tolist() == [2, 3, 4, 1]
    memory.close()


def test_nothing_is_left_when_the_process_that_began_is_killed(tmp_path):
    walks.write_walk(tmp_path, "001", "nm-01", 5, seed=1)
    program = f"""
        import os, signal, sys
        sys.path[:0] = {[os.path.dirname(casia.__file__), os.path.dirname(__file__)]!r}
        import casia, multiprocessing
        from pathlib import Path
        from test_shared_pictures import READ
        from attengait.pipelines.preprocess.shared_pictures import SharedReaders
        if __name__ == "__main__":
            (sequence,) = casia.find(Path({str(tmp_path)!r}) / "rgb", Path({str(tmp_path)!r}) / "silh").sequences
            read = SharedReaders(READ, num_sequences=1)
            print(len(read(sequence).block.grays), *(p.pid for p in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(program))
    # The output ends when the last process that holds it is gone.
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    number, reader = done.stdout.split()
    assert number == "5"
    assert not any(b"memfd:attengait" in maps for maps in maps_of(int(reader)))
    assert [name for name in os.listdir("/dev/shm") if "attengait" in name] == []


def maps_of(process):
    """What a process sees in its memory; nothing when it is gone."""
    try:
        with open(f"/proc/{process}/maps", "rb") as file:
            return [file.read()]
    except (FileNotFoundError, ProcessLookupError):
        return []
