"""The soak: thousands of clips without growth of handles and threads, and growth where there is some."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from attengait.benchmarks import soak
from attengait.benchmarks.process import Usage, usage
from attengait.benchmarks.soak import ALLOWED_GROWTH_BYTES, benchmark_soak, format_table, growth
from attengait.errors import ParameterError

make_store = import_module("small_stores").make_store


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_thousands_of_clips_take_no_more_files_or_threads_than_the_first_hundreds(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "s.zarr", codec)
    report = benchmark_soak(store.path, num_clips=4000, batch_size=8, clip_frames=10)
    assert json.loads(json.dumps(report)) == report
    assert report["growth"] == []
    assert [row["clips"] for row in report["results"]] == [8, *range(400, 4001, 400)]
    assert "nothing grew" in format_table(report)


def test_files_that_are_left_open_are_growth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "s.zarr")
    kept: list[Any] = []

    def leaking() -> Usage:
        kept.append((tmp_path / "s.zarr" / "zarr.json").open())
        return usage()

    monkeypatch.setattr(soak, "usage", leaking)
    report = benchmark_soak(store.path, num_clips=80, batch_size=4, clip_frames=10)
    for file in kept:
        file.close()
    assert len(report["growth"]) == 1
    assert report["growth"][0].startswith("files from ")
    assert "files from " in format_table(report)


def test_growth_is_what_even_the_least_of_the_later_looks_has_more_of() -> None:
    early = {"threads": 3, "files": 9, "own_bytes": 2**30}
    busy = {"threads": 20, "files": 12, "own_bytes": 2**31}
    allowed = early | {"threads": 11, "own_bytes": 2**30 + ALLOWED_GROWTH_BYTES + 100}
    assert growth([busy, early, allowed, busy], 100) == []
    late = {"threads": 12, "files": 10, "own_bytes": 2**30 + ALLOWED_GROWTH_BYTES + 2**20}
    words = ["threads from 3 to 12", "files from 9 to 10", "memory from 1,024 MiB to 1,041 MiB"]
    assert growth([early, busy, busy, late], 100) == words


def test_too_few_clips_to_look_at_ten_times_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    with pytest.raises(ParameterError, match="at least ten batches of 64"):
        benchmark_soak(store.path, num_clips=9 * 64, clip_frames=10)


def test_the_peak_is_of_what_was_used_since() -> None:
    # In a process of its own: here, threads of other tests may give memory back in between.
    code = (
        "from attengait.benchmarks.process import begin_peak, peak_bytes, usage\n"
        "before = begin_peak()\n"
        "block = bytearray(b'x' * 2**25)\n"
        "assert peak_bytes() >= before + len(block)\n"
        "files, own = usage().files, usage().own_bytes\n"
        "with open('/dev/null'):\n"
        "    assert usage().files == files + 1\n"
        "assert own >= len(block)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
