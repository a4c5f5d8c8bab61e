"""The loaders of others: the clips of the plan where the format allows it, and one sentence where one is missing."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from attengait.benchmarks import peers
from attengait.benchmarks.ffcv_clips import FILE_NAME, FfcvWay, cut_clips, write_clips
from attengait.benchmarks.loader import benchmark_loader, format_table
from attengait.benchmarks.peers import PEERS, PeerClips, check_peers, missing_peers
from attengait.errors import AttenGaitError, ParameterError
from attengait.sampling.plan import PlannedBatch

make_store = import_module("small_stores").make_store


def test_a_peer_that_is_not_known_or_named_twice_is_refused() -> None:
    check_peers(list(PEERS))
    with pytest.raises(ParameterError, match=r"^peers is 'dali', but must be among litdata, mds, .*ffcv$"):
        check_peers(["mds", "dali"])
    with pytest.raises(ParameterError, match=r"^peers is 'mds,mds', but must name each only once$"):
        check_peers(["mds", "mds"])


def test_peers_that_cannot_be_measured_are_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_is_installed(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(peers, "import_module", nothing_is_installed)
    store = make_store(tmp_path / "s.zarr")
    names = ["litdata", "ffcv"]
    report = benchmark_loader(store.path, peers=names, batch_size=4, clip_frames=10, num_batches=1, repeats=1)
    assert list(report["store"]["peers_missing"]) == ["litdata", "ffcv"]
    table = format_table(report)
    assert "litdata is not measured: it cannot be imported (No module named 'litdata'): run pip install" in table
    assert "ffcv is not measured: it cannot be imported (No module named 'ffcv'): it has no wheels, and pip" in table
    assert "litdata" not in [row["name"] for row in report["results"]]


@pytest.mark.parametrize("name", [name for name in PEERS if PEERS[name].open])
def test_any_clip_of_what_was_written_is_read(name: str, tmp_path: Path) -> None:
    if reason := missing_peers([name]):
        pytest.skip(reason[name])
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 256, (length, 3, 2, 1), np.uint8) for length in (5, 9, 4)]
    write = PEERS[name].write
    assert write is not None
    write(tmp_path, sequences)
    clips = PeerClips(name, tmp_path, (3, 2, 1), 4)
    for sequence, first in ((2, 0), (0, 1), (1, 5), (1, 0)):
        assert np.array_equal(clips.clip(sequence, first), sequences[sequence][first : first + 4])


@pytest.mark.parametrize("name", ["webdataset", "ffcv"])
def test_a_peer_that_delivers_other_clips_is_named(name: str, tmp_path: Path) -> None:
    if reason := missing_peers([name]):
        pytest.skip(reason[name])
    store = make_store(tmp_path / "s.zarr")
    report = benchmark_loader(store.path, peers=[name], batch_size=4, clip_frames=10, num_batches=1, repeats=1)
    assert report["store"]["other_clips"] == [name]
    assert f"{name} delivers other clips than the rest" in format_table(report)
    assert report["results"][-1]["name"] == name


def test_the_clips_of_ffcv_follow_each_other_in_each_sequence() -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 256, (length, 3, 2, 1), np.uint8) for length in (5, 9, 3)]
    clips = cut_clips(sequences, 4)
    expected = [sequences[0][:4], sequences[1][:4], sequences[1][4:8]]
    assert np.array_equal(clips, expected)


def test_ffcv_delivers_clips_that_were_written(tmp_path: Path) -> None:
    if reason := missing_peers(["ffcv"]):
        pytest.skip(reason["ffcv"])
    clips = np.random.default_rng(0).integers(0, 256, (7, 4, 3, 2, 1), np.uint8)
    write_clips(tmp_path, clips)
    none = np.zeros(5, np.int64)
    planned = [PlannedBatch(step=step, sequences=none, starts=none, labels=none) for step in (0, 1)]
    way = FfcvWay(tmp_path / FILE_NAME, 7, (4, 3, 2, 1), 1)
    known = {clip.tobytes() for clip in clips}
    delivered = [np.array(torch.as_tensor(batch).numpy()) for batch in way.batches(planned)]
    assert [batch.shape for batch in delivered] == [(5, 4, 3, 2, 1)] * 2
    seen = {clip.tobytes() for batch in delivered for clip in batch}
    assert seen <= known
    assert len(seen) > 2
    way.close()


def test_what_ffcv_says_of_a_file_that_it_cannot_write_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(Path("/bin/false").resolve()))
    with pytest.raises(AttenGaitError, match=r"^ffcv did not write its file, exit status 1: "):
        write_clips(tmp_path, np.zeros((1, 2, 2, 2, 1), np.uint8))
