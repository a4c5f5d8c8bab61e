"""A stream that is closed, forgotten or failed leaves no thread, file or map behind."""

import os
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from typing import Any

import numpy as np
import pytest

from attengait.errors import AttenGaitError
from attengait.pipelines.stream import ClipStream, SequenceStream
from attengait.sampling.plan import sequence_batches
from attengait.store import Store
from attengait.store.layout import shard_path

held, streams = import_module("held"), import_module("small_streams")
make_plan, read = streams.make_plan, streams.read

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
