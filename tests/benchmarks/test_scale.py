"""The benchmark of scale: stores without frames of their own that open and stream like any other."""

import json
from pathlib import Path

import numpy as np
import pytest

from attengait.benchmarks.scale import CURVES, SEQUENCE_FRAMES, benchmark_scale, format_table, write_index, write_shard
from attengait.errors import ParameterError
from attengait.store import open_store

SMALL = {"shard_frames": 240, "frame_shape": (4, 5, 3)}


def test_a_report_has_what_grows_with_the_number_of_sequences() -> None:
    report = benchmark_scale((400,), num_batches=1, repeats=1, shard_frames=240, frame_shape=(4, 5, 3))
    assert json.loads(json.dumps(report)) == report
    (row,) = report["results"]
    assert (row["sequences"], row["frames"], row["shards"]) == (400, 44000, 200)
    assert 0 < row["files"] <= 256
    assert 0 < row["plan_ms"] <= row["plan_ms_max"]
    assert min(row[key] for key, _, _ in CURVES if key != "open_mib") > 0
    assert "44,000" in format_table(report)


def test_every_sequence_lies_within_a_shard_and_every_shard_is_the_one_file(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "shard", **SMALL)
    store = open_store(write_index(tmp_path / "s.zarr", 7, shard, **SMALL))
    starts = store.sequences.start
    assert starts.tolist() == [0, 110, 240, 350, 480, 590, 720]
    assert store.layout.num_shards == 4
    with store.reader(check_frames=False) as reader:
        clips = reader.read_clips(starts, np.full(7, SEQUENCE_FRAMES))
    for even, odd in ((0, 1), (2, 3), (4, 5), (6, 1)):
        assert np.array_equal(clips[even], clips[0])
        assert np.array_equal(clips[odd], clips[1])
    assert not np.array_equal(clips[0], clips[1])
    assert set(np.asarray(store.sequences.subject).tolist()) == {"0000000", "0000001"}


@pytest.mark.parametrize("sizes", [(), (79,), (80, 80)])
def test_numbers_of_sequences_that_make_no_sense_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError, match="sequences"):
        benchmark_scale(sizes)
