"""The streams: the planned clips, bit for bit, whatever the prefetching, and nothing left behind."""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines import batches
from attengait.pipelines.stream import ClipStream, SequenceStream
from attengait.sampling.plan import BatchPlan, ClipBatch, sequence_batches
from attengait.sampling.rules import ClipRules
from attengait.store import Store
from attengait.store.layout import CODECS, shard_path
from attengait.store.readers.base import ClipReader, Frames, Indices, TakeClips

held, small_stores = import_module("held"), import_module("small_stores")
make_store, zarr_frames = small_stores.make_store, small_stores.zarr_frames

CLIP_FRAMES = 12


LENGTHS = (20, 15, 12, 9, 40, 13, 20, 17, 30, 31, 11, 12)


@pytest.fixture(params=["none", "none, by DALI", "lz4"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    codec, _, by_dali = request.param.partition(", ")
    if by_dali:
        monkeypatch.setattr("attengait.pipelines.stream.can_gather", lambda: False)
    return make_store(tmp_path / "s.zarr", codec, lengths=LENGTHS)


def make_plan(store: Store) -> BatchPlan:
    names = sorted(set(store.sequences.subject.tolist()))
    return BatchPlan(store.sequences, names, subjects_per_batch=4, clips_per_subject=2, clip_frames=CLIP_FRAMES, seed=3)


def assert_same(batches: list[ClipBatch], others: list[ClipBatch]) -> None:
    assert [b.step for b in batches] == [b.step for b in others]
    for one, other in zip(batches, others, strict=True):
        assert torch.equal(one.clips, other.clips)
        assert torch.equal(one.labels, other.labels)
        assert np.array_equal(one.sequences, other.sequences)


def read(store: Store, num_steps: int, **settings: Any) -> list[ClipBatch]:
    with ClipStream(store, make_plan(store), num_steps=num_steps, **settings) as stream:
        return list(stream)


@pytest.mark.parametrize("codec", CODECS)
def test_a_stream_delivers_what_the_plan_says_as_zarr_python_reads_it(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec, lengths=LENGTHS)
    plan, frames = make_plan(store), zarr_frames(store)
    batches = read(store, 7)
    assert [batch.step for batch in batches] == list(range(7))
    for batch in batches:
        planned = plan.batch(batch.step)
        assert batch.clips.dtype == torch.uint8
        assert batch.clips.shape == (8, CLIP_FRAMES, 6, 5, 3)
        assert batch.labels.dtype == torch.int64
        assert np.array_equal(batch.clips.numpy(), frames[planned.starts[:, None] + np.arange(CLIP_FRAMES)])
        assert np.array_equal(batch.labels.numpy(), planned.labels)
        assert np.array_equal(batch.sequences, planned.sequences)


def test_clips_that_are_unpacked_for_the_cpu_are_given_out_without_another_copy(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", "lz4", lengths=LENGTHS)
    with store.reader(check_frames=False) as reader:
        recorder = Recorder(reader)
        with ClipStream(cast(ClipReader, recorder), make_plan(store), num_steps=3) as stream:
            places = [batch.clips.data_ptr() for batch in stream]
    assert places == [clips[0].ctypes.data for clips in recorder.taken]


def test_a_stream_that_begins_at_a_later_step_continues_bit_for_bit(store: Store) -> None:
    assert_same(read(store, 3, start_step=5), read(store, 8)[5:])


def test_the_ranks_batches_together_are_the_global_batch(store: Store) -> None:
    halves = [read(store, 4, rank=rank, world_size=2) for rank in range(2)]
    for whole, left, right in zip(read(store, 4), *halves, strict=True):
        assert torch.equal(whole.clips, torch.cat([left.clips, right.clips]))
        assert torch.equal(whole.labels, torch.cat([left.labels, right.labels]))


def test_how_much_is_prefetched_changes_nothing(store: Store) -> None:
    expected = read(store, 6, prefetch=1, read_ahead=0)
    for settings in ({"prefetch": 5}, {"read_ahead": 9}, {"prefetch": 3, "read_ahead": 1}):
        assert_same(read(store, 6, **settings), expected)


class Recorder:
    """A reader that notes what is requested and what is taken."""

    def __init__(self, reader: ClipReader) -> None:
        self.reader, self.events = reader, list[tuple[str, int]]()
        self.gives_copies = reader.gives_copies
        self.taken = list[list[Frames]]()

    def request_clips(self, starts: Indices, lengths: Indices) -> TakeClips:
        number = sum(kind == "requested" for kind, _ in self.events)
        self.events.append(("requested", number))
        take = self.reader.request_clips(starts, lengths)

        def noted() -> list[Frames]:
            self.events.append(("taken", number))
            self.taken.append(take())
            return self.taken[-1]

        return noted


def test_batches_are_requested_before_they_are_needed_and_none_beyond_the_last(store: Store) -> None:
    with store.reader() as reader:
        recorder = Recorder(reader)
        with ClipStream(cast(ClipReader, recorder), make_plan(store), num_steps=7, prefetch=1, read_ahead=3) as stream:
            assert len(list(stream)) == 7
    kinds = {kind: [number for each, number in recorder.events if each == kind] for kind in ("requested", "taken")}
    assert kinds == {"requested": list(range(7)), "taken": list(range(7))}
    for number in range(4):
        assert recorder.events.index(("requested", number + 3)) < recorder.events.index(("taken", number))


@pytest.mark.parametrize("codec", ["none", "lz4"])
@pytest.mark.parametrize(
    "rules",
    [ClipRules(frame_order="subset"), ClipRules(frame_order="shuffled"), ClipRules(repeat_short=True)],
    ids=["subset", "shuffled", "repeated"],
)
def test_frames_come_in_the_order_of_the_plan_also_from_a_later_step_and_on_ranks(
    tmp_path: Path, codec: str, rules: ClipRules
) -> None:
    store = make_store(tmp_path / "s.zarr", codec, lengths=LENGTHS)
    names = sorted(set(store.sequences.subject.tolist()))
    plan = BatchPlan(
        store.sequences,
        names,
        subjects_per_batch=4,
        clips_per_subject=2,
        clip_frames=14,
        seed=3,
        rules=rules,
    )
    frames = zarr_frames(store)
    with ClipStream(store, plan, num_steps=6) as stream:
        batches = list(stream)
    for batch in batches:
        planned = plan.batch(batch.step)
        assert planned.frames is not None
        assert np.array_equal(batch.clips.numpy(), frames[planned.frames])
    with ClipStream(store, plan, start_step=4, num_steps=2, prefetch=3) as stream:
        assert_same(list(stream), batches[4:])
    halves = []
    for rank in range(2):
        with ClipStream(store, plan, num_steps=1, rank=rank, world_size=2) as stream:
            halves += [batch.clips for batch in stream]
    assert torch.equal(torch.cat(halves), batches[0].clips)


def test_a_batch_keeps_its_memory_while_the_stream_goes_on_and_after_it_is_closed(store: Store) -> None:
    with ClipStream(store, make_plan(store)) as stream:
        first = next(stream)
        copy = first.clips.clone()
        later = [next(stream) for _ in range(10)]
        assert torch.equal(first.clips, copy)
    gc.collect()
    assert torch.equal(first.clips, copy)
    assert len({batch.clips.data_ptr() for batch in [first, *later]}) == 11


def test_a_stream_without_an_end_goes_on_and_one_with_an_end_stays_at_it(store: Store) -> None:
    with ClipStream(store, make_plan(store), num_steps=None) as stream:
        assert [next(stream).step for _ in range(20)] == list(range(20))
    with ClipStream(store, make_plan(store), num_steps=3, prefetch=2) as stream:
        assert len(list(stream)) == 3
        assert next(stream, None) is next(stream, None) is None
    assert read(store, 0) == []


def test_the_next_loop_goes_on_with_the_steps_that_follow(store: Store) -> None:
    whole = read(store, 9)
    with ClipStream(store, make_plan(store), num_steps=3) as stream:
        assert_same([batch for _ in range(3) for batch in stream], whole)
    with ClipStream(store, make_plan(store), num_steps=0) as stream:
        assert [list(stream) for _ in range(2)] == [[], []]


def test_a_loop_that_was_left_is_continued(store: Store) -> None:
    whole = read(store, 8)
    with ClipStream(store, make_plan(store), num_steps=4) as stream:
        assert_same(list(islice(stream, 3)), whole[:3])
        assert_same(list(stream), whole[3:4])
        assert_same(list(stream), whole[4:])


def test_a_closed_stream_ends_its_loop_and_refuses_another(store: Store) -> None:
    stream = ClipStream(store, make_plan(store))
    for _ in stream:
        stream.close()
        stream.close()
    with pytest.raises(AttenGaitError, match=r"^the stream was closed: make another$"):
        iter(stream)


def test_a_stream_has_a_length_unless_it_never_ends(store: Store) -> None:
    with ClipStream(store, make_plan(store), start_step=2, num_steps=5) as stream:
        assert len(stream) == 5
        next(stream)
        assert len(stream) == 5
    with (
        ClipStream(store, make_plan(store)) as stream,
        pytest.raises(TypeError, match="num_steps is None, so"),
    ):
        len(stream)


@pytest.mark.parametrize("done", [0, 3, 7])
def test_a_stream_continues_from_the_state_of_another(store: Store, done: int) -> None:
    whole = read(store, 7)
    with ClipStream(store, make_plan(store), num_steps=7) as stream:
        assert_same(list(islice(stream, done)), whole[:done])
        state = json.loads(json.dumps(stream.state_dict()))
    with ClipStream(store, make_plan(store), num_steps=7, prefetch=1) as stream:
        next(stream)
        stream.load_state_dict(state)
        assert len(stream) == 7
        assert_same(list(stream), whole[done:])
        stream.load_state_dict(state)  # back again
        assert_same(list(stream), whole[done:])


@pytest.mark.parametrize("done", [4, 6])
def test_a_state_keeps_the_loop_that_it_was_taken_in(store: Store, done: int) -> None:
    with ClipStream(store, make_plan(store), num_steps=3) as stream:
        list(stream)
        after_a_loop = stream.state_dict()
        list(islice(stream, done - 3))
        within_a_loop = stream.state_dict()
    whole = read(store, 9)
    with ClipStream(store, make_plan(store), num_steps=3) as stream:
        stream.load_state_dict(within_a_loop)
        assert_same(list(stream), whole[done:6])
        assert_same(list(stream), whole[6:])
        stream.load_state_dict(after_a_loop)
        assert_same(list(stream), whole[3:6])


def test_a_state_of_another_plan_or_beyond_the_stream_is_refused_and_changes_nothing(store: Store) -> None:
    other = make_plan(store)
    other.seed = 4
    with ClipStream(store, other, num_steps=7) as stream:
        state = stream.state_dict()
    with ClipStream(store, make_plan(store), num_steps=3) as stream:
        with pytest.raises(ParameterError, match=r"^seed is 3, but must be 4 as in the state"):
            stream.load_state_dict(state)
        state = stream.state_dict()
        with pytest.raises(ParameterError, match=r"^step is 4, but must be from 0 to 3"):
            stream.load_state_dict(state | {"step": 4})
        assert_same(list(stream), read(store, 3))
    shorter = store.select(subjects="1-5")
    stream = ClipStream.from_store(shorter, subjects_per_batch=4, clips_per_subject=2, clip_frames=12, seed=3)
    with stream, pytest.raises(ParameterError, match=r"^sequences_sha256 is"):
        stream.load_state_dict(state)


def test_a_closed_stream_does_not_start_again(store: Store) -> None:
    with store.reader() as reader:
        stream = ClipStream(reader, make_plan(store), num_steps=3)
        state = stream.state_dict()
        stream.close()
        with pytest.raises(AttenGaitError, match=r"^the stream was closed: make another$"):
            stream.load_state_dict(state)
        assert next(stream, None) is None


def test_a_stream_is_made_from_a_store_alone(store: Store) -> None:
    settings: dict[str, Any] = {"subjects_per_batch": 4, "clips_per_subject": 2, "clip_frames": CLIP_FRAMES, "seed": 3}
    with ClipStream.from_store(store.path, **settings, epochs=3) as stream:
        assert len(stream) == 3 * stream.plan.steps_per_epoch
        assert_same(list(stream), read(store, len(stream)))
    with ClipStream.from_store(store, **settings, epochs=3, start_step=4) as stream:
        assert len(stream) == 3 * stream.plan.steps_per_epoch - 4
        assert next(stream).step == 4
    with ClipStream.from_store(store, **settings | {"subjects_per_batch": 2}, subjects="2-3") as stream:
        assert stream.plan.subjects == ["002", "003"]
    with ClipStream.from_store(store, **settings, epochs=None) as stream, pytest.raises(TypeError):
        len(stream)
    with pytest.raises(ParameterError, match=r"^subjects is '77', but must be among"):
        ClipStream.from_store(store, subjects="77")
    with pytest.raises(ParameterError, match=r"^epochs is -1, but must be at least 0"):
        ClipStream.from_store(store, **settings, epochs=-1)


Held = tuple[set[str], set[tuple[str, str]]]


def threads_and_files() -> Held:
    return held.threads(), held.descriptors()


def assert_left_behind(before: Held) -> None:
    """No other threads and files than before, as soon as those threads that were told to end have done so."""
    deadline = time.monotonic() + 600
    while any(left := [now - then for now, then in zip(threads_and_files(), before, strict=True)]):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def by_closing(stream: Any) -> Iterator[Any]:
    with stream:
        yield next(stream)


def by_forgetting(stream: Any) -> Iterator[Any]:
    yield next(stream)


def by_failing(stream: Any) -> Iterator[Any]:
    try:
        with stream:
            yield next(stream)
            raise KeyError
    except KeyError:
        pass


@pytest.mark.parametrize("end", [by_closing, by_forgetting, by_failing])
@pytest.mark.parametrize("kind", ["clips", "sequences"])
def test_nothing_is_left_behind(store: Store, end: Callable[[Any], Iterator[Any]], kind: str) -> None:
    def run(end: Callable[[Any], Iterator[Any]]) -> None:
        with store.reader() as reader:
            if kind == "clips":
                stream: Any = ClipStream(store, make_plan(store))
            else:
                stream = SequenceStream(reader, store.sequences, sequence_batches(store.sequences, np.arange(12), 50))
            during: set[str] = set()
            for _ in end(stream):
                during = held.threads()
            del stream
            assert during - before[0]

    before: Held = (set(), set())
    run(by_closing)  # DALI keeps some threads of its own from its first use on
    before = threads_and_files()
    for _ in range(3):
        run(end)
    assert_left_behind(before)
    assert held.maps(store.path) == 0


def test_a_shard_that_is_truncated_during_training_is_one_sentence_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attengait.store.readers.mapped.RECHECK_SECONDS", 0.0)
    read(store, 1)
    before = threads_and_files()
    stream = ClipStream(store, make_plan(store), prefetch=1)
    for _ in range(3):
        next(stream)
    os.truncate(shard_path(store.path, 2), 1000)
    with pytest.raises(AttenGaitError, match="/frames/c/2/0/0/0: truncated or damaged") as caught, stream:
        list(islice(stream, 50))
    assert "\n" not in str(caught.value)
    assert_left_behind(before)


def test_evaluation_gets_whole_sequences_in_order(store: Store) -> None:
    frames, sequences = zarr_frames(store), store.sequences
    indices = np.array([11, 0, 1, 4, 5, 3, 9, 8])
    seen: list[int] = []
    with (
        store.reader() as reader,
        SequenceStream(reader, sequences, sequence_batches(sequences, indices, 48)) as stream,
    ):
        batches = list(stream)
    for batch_indices, batch_frames, lengths in batches:
        seen += batch_indices.tolist()
        assert batch_frames.dtype == torch.uint8
        assert batch_frames.shape == (lengths.sum(), 6, 5, 3)
        assert lengths.sum() <= 48
        assert np.array_equal(lengths, sequences.length[batch_indices])
        parts = [frames[sequences.start[i] :][: sequences.length[i]] for i in batch_indices]
        assert np.array_equal(batch_frames.numpy(), np.concatenate(parts))
    assert seen == indices.tolist()
    assert len(batches) > 2


def test_evaluation_of_no_sequence_is_empty(store: Store) -> None:
    with (
        store.reader() as reader,
        SequenceStream(reader, store.sequences, sequence_batches(store.sequences, [], 48)) as s,
    ):
        assert list(s) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start_step": -1}, "start_step is -1"),
        ({"num_steps": -1}, "num_steps is -1"),
        ({"prefetch": 0}, "prefetch is 0"),
        ({"read_ahead": -1}, "read_ahead is -1"),
        ({"device": "gpu"}, "device is 'gpu', but must be cpu, cuda or cuda:INDEX"),
        ({"rank": 0, "world_size": 3}, "multiple of the 3 processes"),
    ],
)
def test_a_parameter_out_of_range_is_refused(store: Store, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ClipStream(store, make_plan(store), **settings)


def test_a_gpu_that_is_not_there_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AttenGaitError, match="no NVIDIA GPU"):
        ClipStream(store, make_plan(store), device="cuda")


@pytest.mark.gpu
def test_a_gpu_gets_the_same_batches(store: Store) -> None:
    for one, other in zip(read(store, 8), read(store, 8, device="cuda"), strict=True):
        assert other.clips.is_cuda
        assert torch.equal(one.clips, other.clips.cpu())
        assert torch.equal(one.labels, other.labels.cpu())


class FakeDali:
    """In the place of a pipeline: says on which GPU and stream it runs, and gives out nothing but that."""

    def __init__(self, source: object, **settings: Any) -> None:
        self.source, self.device_id, self.heard = source, settings["device_id"], heard

    def build(self) -> None:
        self.heard.append(("build", current[-1]))

    def run(self, stream: str) -> "tuple[FakeDali]":
        self.source(type("Info", (), {"iteration": 0}))  # type: ignore[operator]
        self.heard.append(("run", current[-1], stream))
        return (self,)

    def as_tensor(self) -> str:
        self.heard.append(("as_tensor", current[-1]))
        return "tensor"

    def as_reshaped_tensor(self, shape: list[int]) -> str:
        self.heard.append(("as_reshaped_tensor", current[-1], *shape))
        return "tensor"

    def shape(self) -> list[tuple[int, ...]]:
        return [(2, 6, 5, 3), (3, 6, 5, 3)]


heard: list[tuple[object, ...]] = []
current = [0]


@pytest.mark.parametrize("ordered", [False, True])
def test_the_gpu_of_a_stream_is_the_current_one_while_dali_runs(monkeypatch: pytest.MonkeyPatch, ordered: bool) -> None:
    @contextmanager
    def on(gpu: int) -> Iterator[None]:
        current.append(gpu)
        yield
        current.pop()

    def from_dlpack(tensor: str) -> str:
        heard.append(("from_dlpack", current[-1]))
        return tensor

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda gpu: f"stream of {gpu}")
    monkeypatch.setattr(batches, "from_dlpack", from_dlpack)
    for name in ("frames_pipeline", "ordered_frames_pipeline"):
        monkeypatch.setattr(f"attengait.pipelines.graphs.{name}", FakeDali)
    heard.clear()
    stream = batches.BatchStream(
        lambda index: list,
        num_batches=2,
        batch_size=2,
        device="cuda:1",
        prefetch=1,
        read_ahead=0,
        ordered=ordered,
    )
    stream.next_clips()
    assert heard == [("build", 1), ("run", 1, "stream of 1"), ("as_tensor", 1), ("from_dlpack", 1)]
    del heard[:]
    monkeypatch.setattr(stream._requests, "take", lambda index: [])
    stream.next_frames()
    assert heard == [("run", 1, "stream of 1"), ("as_reshaped_tensor", 1, 5, 6, 5, 3), ("from_dlpack", 1)]
    assert current == [0]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is no second GPU")
def test_a_second_gpu_gets_the_same_batches_while_the_first_is_the_current_one(store: Store) -> None:
    with torch.cuda.device(0):
        made = read(store, 64, device="cuda:1", prefetch=1)
        assert torch.cuda.current_device() == 0
    for one, other in zip(read(store, 64), made, strict=True):
        assert other.clips.device == torch.device("cuda:1")
        assert torch.equal(one.clips, other.clips.cpu())


def test_without_dali_the_streams_can_be_imported_and_say_what_to_install(store: Store) -> None:
    code = f"""
import sys
sys.modules["nvidia.dali"] = None
import numpy as np
from attengait.sampling.rules import ClipRules
from attengait.errors import AttenGaitError
from attengait.pipelines.stream import SequenceStream
from attengait.store import open_store
store = open_store({str(store.path)!r})
try:
    SequenceStream(store.reader(), store.sequences, [np.array([0])])
except AttenGaitError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install '.[cpu]' or pip install '.[cuda12]'" in done.stdout
    assert done.stdout.count("\n") == 1
