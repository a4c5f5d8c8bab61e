"""A stream gives the same batches to a GPU, and says what is missing where there is no GPU or no DALI."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
import torch

from attengait.errors import AttenGaitError
from attengait.pipelines import batches
from attengait.pipelines.stream import ClipStream
from attengait.store import Store

streams = import_module("small_streams")
make_plan, read = streams.make_plan, streams.read


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
