"""A stream goes on from loop to loop, has a length, and continues from a state, until it is closed."""

import json
from importlib import import_module
from itertools import islice

import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.stream import ClipStream
from attengait.store import Store

streams = import_module("small_streams")
assert_same, make_plan, read = streams.assert_same, streams.make_plan, streams.read


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
