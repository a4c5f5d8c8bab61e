"""A file is written whole or not at all, and a failure says its reason."""

from pathlib import Path

import pytest

from attengait.errors import AttenGaitError
from attengait.system import files


@pytest.mark.parametrize("error", [OSError(28, "no room"), OSError("no room")])
def test_a_failed_write_says_why_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*_: object) -> None:
        raise error

    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(AttenGaitError, match=r"a\.json cannot be written: no room$"):
        files.write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
