"""The live line where there is no terminal."""

import pytest

from attengait.cli import progress
from attengait.cli.progress import ProgressLine


def test_without_a_terminal_a_plain_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 11.0, 12.0, 31.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with ProgressLine() as line:
        for done in (10, 20, 30, 60):
            line.update("Work", done, 100, unit="frames")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines == [
        "Work: 20 of 100 frames, 1 frames/s, 1 min 20 s left",
        "Work: 60 of 100 frames, 2 frames/s, 24 s left",
    ]
