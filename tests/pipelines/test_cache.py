"""Stores in memory: the same batches as from the store, and a choice that says itself."""

from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines import cache as resident
from attengait.pipelines.cache import choose_cache, load_frames, open_clips
from attengait.pipelines.resident import ResidentStream
from attengait.pipelines.stream import ClipStream
from attengait.sampling.plan import BatchPlan
from attengait.store import Store
from attengait.store.layout import CODECS, shard_path
from attengait.store.readers.resident import ResidentReader

Heard = import_module("heard").Heard

make_store = import_module("small_stores").make_store

CPU = torch.device("cpu")
LENGTHS = (20, 15, 12, 9, 40, 13, 20, 17, 30, 31, 11, 12)


def make_plan(store: Store) -> BatchPlan:
    names = sorted(set(store.sequences.subject.tolist()))
    return BatchPlan(store.sequences, names, subjects_per_batch=4, clips_per_subject=2, clip_frames=12, seed=3)


@pytest.mark.parametrize("frame_shape", [(6, 5, 3), (8, 8, 2)])  # the second is gathered eight bytes at a time
@pytest.mark.parametrize("codec", CODECS)
def test_batches_out_of_memory_are_those_of_the_store(
    tmp_path: Path, codec: str, frame_shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "LOAD_FRAMES", 32)
    monkeypatch.setattr(resident, "LOADS_UNDER_WAY", 2)
    store = make_store(tmp_path / "s.zarr", codec, lengths=LENGTHS, frame_shape=frame_shape)
    plan, heard = make_plan(store), Heard()
    with store.reader() as reader:
        frames = load_frames(reader, store.sequences.start, store.sequences.length, CPU, heard)
    assert heard.counts[-1] == (sum(LENGTHS), sum(LENGTHS))
    assert len(heard.counts) > 3
    assert heard.counts == sorted(set(heard.counts))
    with (
        ClipStream(store, plan, start_step=2, num_steps=4) as expected,
        ClipStream(ResidentReader(frames.numpy()), plan, start_step=2, num_steps=4) as from_host,
        ResidentStream(frames, plan, start_step=2, num_steps=4) as gathered,
    ):
        for batches in zip(expected, from_host, gathered, strict=True):
            for batch in batches[1:]:
                assert batch.step == batches[0].step
                assert torch.equal(batch.clips, batches[0].clips)
                assert torch.equal(batch.labels, batches[0].labels)
                assert np.array_equal(batch.sequences, batches[0].sequences)


def test_ranks_gather_their_share(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=LENGTHS)
    plan = make_plan(store)
    with store.reader() as reader:
        frames = load_frames(reader, store.sequences.start, store.sequences.length, CPU)
    whole = next(ResidentStream(frames, plan, start_step=5))
    halves = [next(ResidentStream(frames, plan, start_step=5, rank=rank, world_size=2)) for rank in range(2)]
    assert torch.equal(torch.cat([half.clips for half in halves]), whole.clips)


@pytest.mark.parametrize("cache", ["none", "host", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_a_run_gets_the_same_batches_wherever_frames_are_kept(
    tmp_path: Path, cache: Literal["none", "host", "gpu"]
) -> None:
    store = make_store(tmp_path / "s.zarr", "lz4", lengths=LENGTHS)
    plan, heard = make_plan(store), Heard()
    with store.reader() as reader:
        opened = open_clips(
            cache,
            reader,
            store.sequences,
            plan,
            start_step=3,
            num_steps=2,
            device=torch.device("cuda:0" if cache == "gpu" else "cpu"),
            progress=heard,
        )
        with opened as stream, ClipStream(store, plan, start_step=3, num_steps=2) as expected:
            for a, b in zip(stream, expected, strict=True):
                assert a.clips.is_cuda == (cache == "gpu")
                assert torch.equal(a.clips.cpu(), b.clips)
                assert torch.equal(a.labels.cpu(), b.labels)
    used = sum(length for length in LENGTHS if length >= 12)
    assert heard.counts[-1:] == ([] if cache == "none" else [(used, used)])


def test_damage_is_found_while_loading(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", "lz4", lengths=LENGTHS)
    shard_path(store.path, 1).unlink()
    with store.reader() as reader, pytest.raises(AttenGaitError, match="frames/c/1/0/0/0: No such file or directory"):
        load_frames(reader, store.sequences.start, store.sequences.length, CPU)


def test_too_little_memory_is_one_sentence() -> None:
    with pytest.raises(
        AttenGaitError, match=r"the memory of cpu does not suffice to keep [\d,e+.]+ GB of frames: choose"
    ):
        resident._room((1 << 45, 64, 64, 3), CPU)


def test_auto_decides_by_size_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, packed = make_store(tmp_path / "raw.zarr"), make_store(tmp_path / "lz4.zarr", "lz4")
    num_bytes = packed.layout.num_frames * packed.layout.frame_bytes
    for stores, available, cache, said in [
        ([raw], num_bytes * 100, "none", "uncompressed"),
        ([packed], num_bytes * 2, "host", "fit into half of the available"),
        ([packed], num_bytes * 2 - 2, "none", "exceed half of the available"),
        ([raw, packed], num_bytes * 4, "host", "fit"),
        ([raw, packed], num_bytes * 3, "none", "exceed"),
    ]:
        monkeypatch.setattr(resident, "available_memory_bytes", lambda available=available: available)
        choice = choose_cache("auto", stores, CPU)
        assert (choice.cache, said in choice.reason) == (cache, True), choice
    for free, cache in [(num_bytes * 2, "gpu"), (num_bytes * 2 - 2, "none")]:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        assert choose_cache("auto", [raw], torch.device("cuda:0")).cache == cache


def test_the_processes_of_a_machine_need_memory_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = make_store(tmp_path / "packed.zarr", "lz4")
    num_bytes = packed.layout.num_frames * packed.layout.frame_bytes
    monkeypatch.setattr(resident, "available_memory_bytes", lambda: num_bytes)
    assert "kept in memory once for 4 processes, as asked" in choose_cache("host", [packed], CPU, processes=4).reason
    monkeypatch.setattr(resident, "available_memory_bytes", lambda: num_bytes - 1)
    with pytest.raises(AttenGaitError, match="of frames once for 5 processes: choose --cache none"):
        choose_cache("host", [packed], CPU, processes=5)


def test_what_was_asked_for_is_done_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_store(tmp_path / "raw.zarr")
    assert choose_cache("host", [raw], CPU).cache == "host"
    assert choose_cache("none", [raw], CPU).cache == "none"
    for left_bytes in (1000, 0):
        monkeypatch.setattr(resident, "available_memory_bytes", lambda left_bytes=left_bytes: left_bytes)
        with pytest.raises(AttenGaitError, match="memory does not suffice to keep"):
            choose_cache("host", [raw], CPU)
    with pytest.raises(ParameterError, match="cache is 'gpu', but must be auto, none or host where the device is cpu"):
        choose_cache("gpu", [raw], CPU)
    with pytest.raises(ParameterError, match="cache is 'disk', but must be one of auto, none, host, gpu"):
        choose_cache("disk", [raw], CPU)


@pytest.mark.gpu
def test_a_gpu_gathers_the_same_clips(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=LENGTHS)
    plan = make_plan(store)
    with store.reader() as reader:
        frames, there = (
            load_frames(reader, store.sequences.start, store.sequences.length, torch.device(device))
            for device in ("cpu", "cuda:0")
        )
    on_gpu = ResidentStream(there, plan, num_steps=3)
    for batch, expected in zip(on_gpu, ResidentStream(frames, plan, num_steps=3), strict=True):
        assert batch.clips.device.type == "cuda"
        assert torch.equal(batch.clips.cpu(), expected.clips)
        assert torch.equal(batch.labels.cpu(), expected.labels)
