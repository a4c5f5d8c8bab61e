"""The loader's benchmark: a report of the promised form, whatever the codec; one sentence for stores too small."""

import json
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from attengait.benchmarks import ways
from attengait.benchmarks.loader import benchmark_loader, format_table
from attengait.benchmarks.page_cache import empty_page_cache, resident_share
from attengait.benchmarks.report import format_results, measure_in_turns, results, versions
from attengait.cli import benchmark
from attengait.errors import AttenGaitError, ParameterError
from attengait.store.layout import CODECS

make_store = import_module("small_stores").make_store

STREAMS = ["stream", "stream, cache host"]
if torch.cuda.is_available():
    STREAMS += ["stream, to the GPU", "stream, cache gpu"]


@pytest.mark.parametrize("codec", CODECS)
def test_a_report_has_every_way_with_median_and_spread(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec)
    report = benchmark_loader(store.path, batch_size=6, clip_frames=10, num_batches=3, repeats=2)
    assert json.loads(json.dumps(report)) == report
    assert [row["name"] for row in report["results"]] == ["gather", *STREAMS, "tensorstore", "zarr-python"]
    for row in report["results"]:
        assert 0 < row["min"] <= row["clips_per_s"] <= row["max"]
    assert report["store"]["codec"] == codec
    assert report["store"]["sequences"] == 10
    assert report["machine"]["cores"] >= 1
    assert {"python", "numpy", "torch", "zarr", "tensorstore"} <= set(report["versions"])
    assert any(name.startswith("nvidia-dali-cuda") for name in report["versions"])
    table = format_table(report)
    assert all(name in table for name in ("gather", "stream", "tensorstore", "zarr-python", codec, str(store.path)))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_baselines_deliver_the_same_clips_warm_and_cold_and_leave_nothing_behind(
    tmp_path: Path, temporary: Path
) -> None:
    store = make_store(tmp_path / "s.zarr")
    report = benchmark_loader(
        store.path, baselines=True, workers=(0, 1), cold=True, batch_size=4, clip_frames=10, num_batches=1, repeats=1
    )
    own = ["tensorstore", "zarr-python"]
    formats = ["pickle-dataloader", "pickle-dataloader, uint8", "h5py", "npy-dataloader"]
    loaders = [name for each in formats for name in (f"{each}, 0 workers", each)]
    cold = [f"{name}, cold" for name in ["stream", *STREAMS[2:3], *own, *loaders]]
    assert [row["name"] for row in report["results"]] == ["gather", *STREAMS, *own, *loaders, *cold]
    assert 0 <= report["store"]["pages_that_stayed"] <= 1
    assert report["store"]["dataloader_workers"] == 1
    assert "workers 1" in format_table(report)
    assert list(temporary.iterdir()) == []


def test_a_way_that_gives_other_clips_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "s.zarr")

    def one_frame_late(self: Any, planned: Any) -> Any:
        yield [self._late[start + 1 : start + 11] for start in planned[0].starts]

    frames = import_module("small_stores").zarr_frames(store)
    monkeypatch.setattr(ways.ZarrPythonWay, "_late", frames, raising=False)
    monkeypatch.setattr(ways.ZarrPythonWay, "batches", one_frame_late)
    with pytest.raises(AttenGaitError, match="zarr-python gives other clips"):
        benchmark_loader(store.path, batch_size=4, clip_frames=10, num_batches=1, repeats=1)


def test_baselines_say_when_the_disk_is_too_small(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "s.zarr")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: (10, 9, 1))
    with pytest.raises(AttenGaitError, match="set TMPDIR"):
        benchmark_loader(store.path, baselines=True, clip_frames=10)
    assert list(temporary.iterdir()) == []


def test_only_what_fits_into_half_of_the_available_memory_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "s.zarr")
    monkeypatch.setattr(
        "attengait.benchmarks.loader.available_memory_bytes", lambda: 2 * 100 * store.layout.frame_bytes
    )
    report = benchmark_loader(store.path, batch_size=2, clip_frames=10, num_batches=1, repeats=1)
    assert report["store"]["sequences"] == 4  # two in each shard of 48 frames
    assert "the first 4 sequences" in format_table(report)


def test_workers_are_for_the_baselines_alone(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="workers is '2', but must be left out without --baselines"):
        benchmark.loader([str(tmp_path / "s.zarr")], workers="2")


@pytest.mark.parametrize("workers", [(), (-1,), (1, 1)])
def test_numbers_of_workers_that_make_no_sense_are_refused(tmp_path: Path, workers: tuple[int, ...]) -> None:
    store = make_store(tmp_path / "s.zarr")
    with pytest.raises(ParameterError, match="workers"):
        benchmark_loader(store.path, baselines=True, workers=workers, clip_frames=10)


def test_the_share_of_pages_in_memory_is_of_all_files(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b", tmp_path / "none"]
    for file, num_bytes in zip(files, (5000, 100_000, 0), strict=True):
        file.write_bytes(bytes(num_bytes))
    assert resident_share(files) == 1
    assert 0 <= empty_page_cache(files) <= 1  # 0 where the file system heeds it
    assert resident_share([]) == 0


def test_a_store_of_few_subjects_still_fills_a_batch(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=(20, 20, 20), sequences_per_subject=3)
    report = benchmark_loader(store.path, batch_size=7, clip_frames=20, num_batches=1, repeats=1)
    assert report["store"]["batch_size"] == 7


def test_sequences_shorter_than_a_clip_are_one_sentence(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    with pytest.raises(AttenGaitError, match="none of 10 sequences has the 30 frames of a clip, the longest has 20"):
        benchmark_loader(store.path)


def test_a_parameter_out_of_range_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    with pytest.raises(ParameterError, match="repeats is 0"):
        benchmark_loader(store.path, repeats=0)


def test_runs_take_turns_and_the_first_is_not_counted() -> None:
    calls: list[tuple[str, int]] = []

    def run(name: str, amount: int, repeat: int) -> int:
        calls.append((name, repeat))
        return amount

    rates = measure_in_turns({"a": lambda r: run("a", 5, r), "b": lambda r: run("b", 7, r)}, repeats=2)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert {name: len(values) for name, values in rates.items()} == {"a": 2, "b": 2}


def test_results_are_medians_and_the_table_compares_them() -> None:
    rows = results({"fast": [30.0, 10.0, 20.0], "slow": [5.0, 5.0, 6.0]}, "things_per_s")
    assert rows == [
        {"name": "fast", "things_per_s": 20.0, "min": 10.0, "max": 30.0},
        {"name": "slow", "things_per_s": 5.0, "min": 5.0, "max": 6.0},
    ]
    about = {"cpu": "abacus", "cores": 1, "memory_gib": 1, "load": 0.0}
    table = format_results(
        {"results": rows, "machine": about, "versions": {"x": "1"}}, "things_per_s", relative_to="fast"
    )
    assert table.splitlines()[2].split() == ["slow", "5", "5", "6", "0.25"]
    assert "abacus" in table


def test_versions_leave_out_what_is_not_installed() -> None:
    assert set(versions("numpy", "no-such-package")) == {"python", "numpy"}
