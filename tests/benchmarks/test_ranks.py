"""The benchmark of ranks: all processes stream their slices; what cannot be sliced is one sentence."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from attengait.benchmarks import ranks
from attengait.benchmarks.ranks import benchmark_ranks, format_table
from attengait.errors import AttenGaitError, ParameterError

make_store = import_module("small_stores").make_store


def test_processes_stream_together(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    report = benchmark_ranks(store.path, processes=(2,), batch_size=3, clip_frames=10, num_batches=2, repeats=1)
    assert json.loads(json.dumps(report)) == report
    (row,) = report["results"]
    assert row["name"] == "2 processes"
    assert 0 < row["min"] <= row["clips_per_s"] <= row["max"]
    assert "one core each" in format_table(report)


def test_a_group_counts_the_clips_of_all_and_says_when_a_process_dies(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    rank = ranks._Rank(store=str(store.path), rank=0, world_size=1, batch_size=4, clip_frames=10, core=None)
    group = ranks._Group([rank])
    assert group.stream(3, 0) == 12
    group._connections[0].send("no number")
    with pytest.raises(AttenGaitError, match="died"):
        group.stream(1, 0)
    group.close()


def test_what_cannot_be_sliced_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=(20, 20))
    with pytest.raises(AttenGaitError, match="2 processes need as many subjects, but only 1"):
        benchmark_ranks(store.path, clip_frames=10)
    for wrong in ((), (0, 1), (2, 2)):
        with pytest.raises(ParameterError, match="processes"):
            benchmark_ranks(store.path, processes=wrong)
