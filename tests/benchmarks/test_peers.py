"""The loaders of others: the clips of the plan where the format allows it, and one sentence where one is missing."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from attengait.benchmarks import peers
from attengait.benchmarks.loader import benchmark_loader, format_table
from attengait.benchmarks.peers import NOT_MEASURED, PEERS, PeerClips, check_peers, missing_peers
from attengait.errors import ParameterError

make_store = import_module("small_stores").make_store


def test_a_peer_that_is_not_known_or_named_twice_is_refused() -> None:
    check_peers([*PEERS, *NOT_MEASURED])
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
    assert list(report["store"]["peers_missing"]) == ["ffcv", "litdata"]
    table = format_table(report)
    assert "litdata is not measured: it cannot be imported (No module named 'litdata'): run pip install" in table
    assert "ffcv is not measured: it has no wheels" in table
    assert "litdata" not in [row["name"] for row in report["results"]]


@pytest.mark.parametrize("name", [name for name in PEERS if name != "webdataset"])
def test_any_clip_of_what_was_written_is_read(name: str, tmp_path: Path) -> None:
    if reason := missing_peers([name]):
        pytest.skip(reason[name])
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 256, (length, 3, 2, 1), np.uint8) for length in (5, 9, 4)]
    PEERS[name].write(tmp_path, sequences)
    clips = PeerClips(name, tmp_path, (3, 2, 1), 4)
    for sequence, first in ((2, 0), (0, 1), (1, 5), (1, 0)):
        assert np.array_equal(clips.clip(sequence, first), sequences[sequence][first : first + 4])


def test_webdataset_is_said_to_deliver_other_clips(tmp_path: Path) -> None:
    if reason := missing_peers(["webdataset"]):
        pytest.skip(reason["webdataset"])
    store = make_store(tmp_path / "s.zarr")
    report = benchmark_loader(store.path, peers=["webdataset"], batch_size=4, clip_frames=10, num_batches=1, repeats=1)
    assert report["store"]["other_clips"] == ["webdataset"]
    assert "webdataset delivers other clips than the rest" in format_table(report)
    assert report["results"][-1]["name"] == "webdataset"
