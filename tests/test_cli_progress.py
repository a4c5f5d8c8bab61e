"""The live line where there is no terminal, and times as a person writes them."""

import pytest

from attengait.cli import progress
from attengait.cli.progress import ProgressLine, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_without_a_terminal_a_plain_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 11.0, 12.0, 31.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with ProgressLine("Work", "frames") as line:
        for done in (10, 20, 30, 60):
            line.update(done, 100)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines == [
        "Work: 20 of 100 frames, 1 frames/s, 1 min 20 s left",
        "Work: 60 of 100 frames, 2 frames/s, 24 s left",
    ]
