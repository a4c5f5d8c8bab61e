"""The streams give the planned clips and whole sequences, bit for bit, whatever the prefetching."""

import gc
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from attengait.errors import ParameterError
from attengait.pipelines.stream import ClipStream, SequenceStream
from attengait.sampling.plan import BatchPlan, sequence_batches
from attengait.sampling.rules import ClipRules
from attengait.store import Store
from attengait.store.layout import CODECS
from attengait.store.readers.base import ClipReader, Frames, Indices, TakeClips

small_stores, streams = import_module("small_stores"), import_module("small_streams")
make_store, zarr_frames = small_stores.make_store, small_stores.zarr_frames
CLIP_FRAMES, LENGTHS = streams.CLIP_FRAMES, streams.LENGTHS
assert_same, make_plan, read = streams.assert_same, streams.make_plan, streams.read


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
