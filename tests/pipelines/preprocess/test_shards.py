"""In the process of one GPU, reading, computing and writing overlap, within bounds, and end together."""

import multiprocessing
import threading
from concurrent.futures import Future
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from attengait.datasets.reading import FrameSizes
from attengait.datasets.source import Fault
from attengait.errors import AttenGaitError
from attengait.kernels.flow.backends import FarnebackParameters, OpenCVFlow
from attengait.pipelines.preprocess import shards as gpu_shards
from attengait.pipelines.preprocess.reading import ReadSequence, join, read_sequence
from attengait.pipelines.preprocess.shards import ReadAhead, begin, make_shards
from attengait.preprocessing.flow import Block, FlowRecipe
from attengait.store.shards import OpenShard

casia, walks, failing = import_module("casia"), import_module("walks"), import_module("host_devices").failing
fakes = import_module("store_fakes")
RECIPE = FlowRecipe(min_frames=1)
read_here = partial(read_sequence, recipe=RECIPE, read_grays=gpu_shards.read_one_by_one)
PATIENCE_SECONDS = 600
"""How long something may take that comes at once unless the code is wrong."""


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """Twelve walks of 4 to 6 frames, each fourth of them of other pictures; to be read only."""
    root = tmp_path_factory.mktemp("walks")
    for i in range(12):
        walks.write_walk(root, f"{i + 1:03d}", "nm-01", 4 + i % 3, seed=i)
    return casia.find(root / "rgb", root / "silh").sequences


class Shards:
    """What `make_shards` makes, kept in memory: three sequences in a shard."""

    def __init__(self, sequences, monkeypatch, commit=lambda shard: None):
        self.tasks = [
            SimpleNamespace(
                shard=i // 3,
                sequences=[(SimpleNamespace(max_frames=casia.max_images(s)), s) for s in sequences[i : i + 3]],
            )
            for i in range(0, len(sequences), 3)
        ]
        self.asked_for, self.filled, self.committed = [], {}, []
        this = self

        class Shard:
            def __init__(self, task):
                self.number, self.added = task.shard, []

            def add(self, made):
                self.added.append(made)

            def commit(self):
                commit(self.number)
                this.filled[self.number] = self.added
                this.committed.append(self.number)

        monkeypatch.setattr(gpu_shards, "OpenShard", Shard)

    def claim(self):
        for task in self.tasks:
            self.asked_for.append(task.shard)
            yield task


def assert_equal(made, expected):
    np.testing.assert_array_equal(made.pictures, expected.pictures)
    np.testing.assert_array_equal(made.frame_numbers, expected.frame_numbers)
    assert made.skipped == expected.skipped


@pytest.fixture
def none_left():
    """When the test ends, the threads of pools and the processes that it began have ended."""
    before = {*threading.enumerate(), *multiprocessing.active_children()}
    yield
    left = {*threading.enumerate(), *multiprocessing.active_children()} - before
    assert [each.name for each in left if "Thread" not in each.name or "ThreadPoolExecutor" in each.name] == []


def backend():
    return OpenCVFlow(FarnebackParameters())


@pytest.mark.parametrize(("num_readers", "in_processes"), [(1, False), (3, False), (2, True)])
def test_shards_hold_what_worker_processes_put_into_them(sequences, monkeypatch, none_left, num_readers, in_processes):
    shards = Shards(sequences, monkeypatch)
    make_shards(shards.claim(), RECIPE, backend(), num_readers=num_readers, in_processes=in_processes)
    assert shards.committed == [0, 1, 2, 3]
    for task in shards.tasks:
        for made, (_, source) in zip(shards.filled[task.shard], task.sequences, strict=True):
            assert_equal(made, RECIPE.make(source))


def test_nothing_to_do_is_nothing_done(monkeypatch):
    shards = Shards([], monkeypatch)
    make_shards(shards.claim(), RECIPE, backend(), num_readers=2)
    assert shards.committed == []


def test_later_sequences_are_read_while_earlier_ones_are_computed(sequences, monkeypatch):
    """Nothing is computed until a sequence that is not yet to be computed is read."""
    shards, is_further, begun = Shards(sequences, monkeypatch), threading.Event(), []

    def reading(paths):
        begun.append(None)
        if len(begun) == 5:
            is_further.set()
        return gpu_shards.read_one_by_one(paths)

    class Waiting(OpenCVFlow):
        def pictures(self, grays, *rest):
            # The first take has four sequences at most: two for each thread.
            assert is_further.wait(PATIENCE_SECONDS)
            return super().pictures(grays, *rest)

    make_shards(shards.claim(), RECIPE, Waiting(FarnebackParameters()), num_readers=2, read_grays=reading)
    assert shards.committed == [0, 1, 2, 3]


@pytest.mark.parametrize("in_processes", [False, True])
def test_the_device_has_the_next_sequences_before_the_first_are_waited_for(sequences, monkeypatch, in_processes):
    seen = []

    class Slow(OpenCVFlow):
        def begin(self, *arguments):
            seen.append("begin")
            wait = super().begin(*arguments)

            def finish():
                seen.append("wait")
                return wait()

            return finish

    shards = Shards(sequences, monkeypatch)
    make_shards(shards.claim(), RECIPE, Slow(FarnebackParameters()), num_readers=1, in_processes=in_processes)
    # One of two sequences at most is taken at a time.
    num_takes = seen.count("begin")
    assert num_takes >= 6
    assert seen == ["begin", *["begin", "wait"] * (num_takes - 1), "wait"]


def test_a_shard_is_written_while_the_next_is_computed(sequences, monkeypatch):
    is_second_begun, seen = threading.Event(), []

    def commit(number):
        if number == 0:
            assert is_second_begun.wait(PATIENCE_SECONDS)

    shards = Shards(sequences, monkeypatch, commit)

    class Telling(OpenCVFlow):
        def pictures(self, grays, pairs, *rest):
            seen.append(len(pairs))
            if sum(seen) > 3 + 4 + 5:
                is_second_begun.set()
            return super().pictures(grays, pairs, *rest)

    make_shards(shards.claim(), RECIPE, Telling(FarnebackParameters()), num_readers=1)
    assert shards.committed == [0, 1, 2, 3]


class AtOnce:
    """Reads when it is told to, and counts."""

    def __init__(self):
        self.num_begun = 0

    def submit(self, function, *arguments):
        self.num_begun += 1
        future = Future()
        future.set_result(function(*arguments))
        return future


def block_of(shape, num_frames=3):
    grays = [np.zeros(shape, np.uint8)] * num_frames
    return Block(grays=grays, pairs=[(0, 1)], silhouettes=grays[:1], numbers=[2], times_seconds=[None])


def tasks_of(num_sequences, max_frames, asked_for):
    for i in range(num_sequences):
        asked_for.append(i)
        yield SimpleNamespace(shard=i, sequences=[(SimpleNamespace(max_frames=max_frames), f"sequence {i}")])


def test_reading_stays_a_stated_number_of_sequences_ahead():
    threads, asked_for = AtOnce(), []
    ahead = ReadAhead(
        tasks_of(20, 3, asked_for), lambda source: ReadSequence(block_of((4, 5)), []), threads, num_sequences=3
    )
    assert threads.num_begun == 0
    in_order, num_computed = [], 0
    while taken := ahead.take():
        in_order += [place.source for place, _ in taken]
        # Those just taken, and those read ahead.
        assert len(taken) <= 3
        assert threads.num_begun - num_computed <= 6
        assert len(asked_for) == threads.num_begun
        num_computed += len(taken)
    assert in_order == [f"sequence {i}" for i in range(20)]


def test_sequences_are_taken_in_order_whatever_is_read_first():
    class Slow(AtOnce):
        def submit(self, function, *arguments):
            self.futures.append(Future())
            return self.futures[-1]

    threads = Slow()
    threads.futures = []
    ahead = ReadAhead(tasks_of(3, 1, []), lambda source: None, threads, num_sequences=3)
    answer = ReadSequence(block_of((4, 5)), [])
    taken = []
    taker = threading.Thread(target=lambda: taken.append(ahead.take()), daemon=True)
    ahead._fill()
    threads.futures[2].set_result(answer)
    taker.start()
    threads.futures[0].set_result(answer)
    taker.join(PATIENCE_SECONDS)
    assert [place.source for place, _ in taken[0]] == ["sequence 0"]
    threads.futures[1].set_result(answer)
    assert [place.source for place, _ in ahead.take()] == ["sequence 1", "sequence 2"]
    assert ahead.take() == []


def test_large_pictures_are_read_less_far_ahead(monkeypatch):
    threads = AtOnce()
    ahead = ReadAhead(
        tasks_of(20, 3, []), lambda source: ReadSequence(block_of((40, 50)), []), threads, num_sequences=10
    )
    frame_bytes = 2 * 40 * 50
    monkeypatch.setattr(gpu_shards, "READ_AHEAD_BYTES", 3 * frame_bytes + 1)
    ahead.take()  # of an unknown size: one alone
    assert threads.num_begun == 1 + 2  # and then one that fits, and one that exceeds the limit
    assert len(ahead.take()) == 2
    assert threads.num_begun == 1 + 2 + 2


@pytest.mark.parametrize("in_processes", [False, True])
@pytest.mark.parametrize("where", ["read", "compute", "write", "claim"])
def test_an_error_anywhere_ends_all_threads_and_processes(sequences, monkeypatch, none_left, where, in_processes):
    shards = Shards(sequences, monkeypatch, failing if where == "write" else lambda number: None)
    if where == "read":
        monkeypatch.setattr(gpu_shards, "read_sequence", failing)
    flow = backend()
    if where == "compute":
        flow.pictures = failing
    tasks = shards.claim()
    if where == "claim":
        tasks = (failing() if task.shard == 1 else task for task in tasks)
    with pytest.raises(OSError, match="No space left"):
        make_shards(tasks, RECIPE, flow, num_readers=2, in_processes=in_processes)
    assert shards.committed == []


def test_a_reader_that_dies_ends_the_others_with_one_sentence(sequences, monkeypatch, none_left):
    shards = Shards(sequences, monkeypatch)
    monkeypatch.setattr(gpu_shards, "read_sequence", import_module("host_devices").dying)
    with pytest.raises(AttenGaitError, match=r"^a process that reads died, perhaps for lack of memory$"):
        make_shards(shards.claim(), RECIPE, backend(), num_readers=2, in_processes=True)
    assert shards.committed == []


def test_sequences_of_several_sizes_and_empty_ones_are_computed_together(tmp_path):
    for i, shape in enumerate([(48, 80), (40, 60), (48, 80)]):
        walks.write_walk(tmp_path, f"00{i}", "nm-01", 5, seed=i, shape=shape)
    walks.write_walk(tmp_path, "003", "nm-01", 5, seed=3)
    for number in range(1, 6):
        walks.picture(tmp_path, "rgb", "003/nm-01/090", number).write_bytes(b"damaged")
    found = casia.find(tmp_path / "rgb", tmp_path / "silh").sequences
    calls = []

    class Counting(OpenCVFlow):
        def pictures(self, grays, pairs, *rest):
            calls.append((len(grays), len(pairs)))
            return super().pictures(grays, pairs, *rest)

    read = []
    for sequence in found:
        faults: list[Fault] = []
        read.append((sequence, ReadSequence(join(RECIPE.read_blocks(sequence, faults, FrameSizes())), faults)))
    results = begin(read, RECIPE, Counting(FarnebackParameters()))()
    assert calls == [(10, 8), (5, 4)]
    for sequence, result in zip(found, results, strict=True):
        assert_equal(result, RECIPE.make(sequence))
    assert [len(result.pictures) for result in results] == [4, 4, 4, 0]
    assert begin([], RECIPE, backend())() == []


def test_memory_is_given_back_when_the_device_has_read_it_and_not_before(sequences):
    seen = []

    class Slow(OpenCVFlow):
        def begin(self, *arguments):
            def finish():
                seen.append("wait")
                return self.pictures(*arguments)

            return finish

    read = [(s, read_here(s)._replace(give_back=lambda: seen.append("give back"))) for s in sequences[:2]]
    finish = begin(read, RECIPE, Slow(FarnebackParameters()))
    assert seen == []
    for made, sequence in zip(finish(), sequences, strict=False):
        assert_equal(made, RECIPE.make(sequence))
    assert seen == ["wait", "give back", "give back"]


def test_joined_blocks_keep_a_shared_frame_once():
    a, b, c, d = (np.full((2, 2), i, np.uint8) for i in range(4))
    first = Block(grays=[a, b], pairs=[(0, 1)], silhouettes=[b], numbers=[2], times_seconds=[0.1])
    second = Block(grays=[b, c], pairs=[(0, 1)], silhouettes=[c], numbers=[3], times_seconds=[0.2])
    apart = Block(grays=[d, a], pairs=[(0, 1), (1, 0)], silhouettes=[a, d], numbers=[7, 8], times_seconds=[None, None])
    whole = join([first, second, apart])
    assert [int(gray[0, 0]) for gray in whole.grays] == [0, 1, 2, 3, 0]
    assert whole.pairs == [(0, 1), (1, 2), (3, 4), (4, 3)]
    assert whole.numbers == [2, 3, 7, 8]
    assert whole.times_seconds == [0.1, 0.2, None, None]
    assert whole.silhouettes[2] is a
    assert join([]) == Block(grays=[], pairs=[], silhouettes=[], numbers=[], times_seconds=[])


def test_a_sequence_with_more_pictures_than_planned_is_refused(sequences):
    planned = SimpleNamespace(max_frames=1, name="001/nm-01/090")
    layout = SimpleNamespace(shard_frames=4, frame_shape=(2, 2, 3))
    shard = OpenShard(SimpleNamespace(shard=0, layout=layout, sequences=[(planned, None)]))
    with pytest.raises(AttenGaitError, match="001/nm-01/090 gives 2 frames, but 1 at most"):
        shard.add(fakes.made(np.zeros((2, 2, 2, 3), np.uint8)))


def test_a_sequence_whose_first_frame_is_odd_is_read_with_the_size_of_most(tmp_path):
    walks.write_walk(tmp_path, "001", "nm-01", 6, seed=1)
    odd = walks.picture(tmp_path, "rgb", "001/nm-01/090", 1)
    cv2.imwrite(str(odd), np.zeros((50, 50), np.uint8))
    (sequence,) = casia.find(tmp_path / "rgb", tmp_path / "silh").sequences
    read = read_here(sequence)
    (made,) = begin([(sequence, read)], RECIPE, backend())()
    assert made.frame_numbers.tolist() == [3, 4, 5, 6]
    assert_equal(made, RECIPE.make(sequence))
