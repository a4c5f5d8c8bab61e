"""The benchmark of layouts: stores written otherwise hold the same sequences."""

import json
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from attengait.benchmarks.layout import COMPRESSORS, Layout, benchmark_layout, format_table, rewrite
from attengait.errors import ParameterError

make_store = import_module("small_stores").make_store


@pytest.mark.parametrize("codec", COMPRESSORS)
@pytest.mark.parametrize("shard_frames", [0, 64])
def test_a_store_in_another_layout_holds_the_same(tmp_path: Path, codec: str, shard_frames: int) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=(20, 17, 20, 33, 1, 9, 40))
    layout = Layout(codec=codec, chunk_frames=8, shard_frames=shard_frames)
    copy = rewrite(store, layout, tmp_path / "copy.zarr")
    assert copy.codec == codec.partition("-")[0]
    assert copy.chunk_frames == 8
    assert shard_frames in (0, copy.shard_frames)
    assert np.array_equal(copy.sequences.subject, store.sequences.subject)
    with store.reader() as ours, copy.reader() as theirs:
        for i in range(len(store.sequences)):
            (expected,) = ours.read_clips(store.sequences.start[i : i + 1], store.sequences.length[i : i + 1])
            (found,) = theirs.read_clips(copy.sequences.start[i : i + 1], copy.sequences.length[i : i + 1])
            assert np.array_equal(found, expected)


def test_a_report_compares_speed_and_size_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    store = make_store(tmp_path / "s.zarr")
    layouts = [Layout(codec=codec, chunk_frames=8, shard_frames=0) for codec in ("none", "zstd")]
    report = benchmark_layout(store.path, layouts, batch_size=4, clip_frames=10, num_batches=2, repeats=1)
    assert json.loads(json.dumps(report)) == report
    assert [row["name"] for row in report["results"]] == ["none, chunk 8", "zstd, chunk 8"]
    for row in report["results"]:
        assert 0 < row["min"] <= row["clips_per_s"] <= row["max"]
        assert 0 < row["sequential_min"] <= row["sequential_clips_per_s"] <= row["sequential_max"]
        assert row["of_raw"] == pytest.approx(row["bytes"] / (200 * 90), abs=1e-3)
    assert format_table(report).splitlines()[3].startswith("| zstd | 8 | 40 |")
    assert list(folder.iterdir()) == []


def test_layouts_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for wrong in ({"codec": "rar"}, {"chunk_frames": 0}, {"shard_frames": 12}, {"shard_frames": -8}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            Layout(**{"codec": "none", "chunk_frames": 8, "shard_frames": 0} | wrong)
    store = make_store(tmp_path / "s.zarr")
    layout = Layout(codec="none", chunk_frames=8, shard_frames=16)
    with pytest.raises(ParameterError, match="shard_frames is 16, but must be at least 20"):
        rewrite(store, layout, tmp_path / "copy.zarr")
    with pytest.raises(ParameterError, match="but must be at least one, each only once"):
        benchmark_layout(store.path, [layout, layout])
