"""What the tests of streams share: a small store of each kind that they read."""

from importlib import import_module
from pathlib import Path

import pytest

from attengait.store import Store

LENGTHS = import_module("small_streams").LENGTHS
make_store = import_module("small_stores").make_store


@pytest.fixture(params=["none", "none, by DALI", "lz4"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    codec, _, by_dali = request.param.partition(", ")
    if by_dali:
        monkeypatch.setattr("attengait.pipelines.stream.can_gather", lambda: False)
    return make_store(tmp_path / "s.zarr", codec, lengths=LENGTHS)
