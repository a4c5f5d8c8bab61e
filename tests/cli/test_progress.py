"""The live line where there is no terminal, and where there is one."""

import os
import pty
import subprocess
import sys

import pytest

from attengait.cli import progress
from attengait.cli.progress import ProgressLine


@pytest.mark.parametrize("forced", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}], ids=str)
def test_without_a_terminal_a_plain_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, forced: dict[str, str]
) -> None:
    for name, value in forced.items():
        monkeypatch.setenv(name, value)
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


LIVE = """
from attengait.cli.progress import ProgressLine

with ProgressLine() as line:
    line.update("Work", 20, 100, unit="frames")
"""


@pytest.mark.parametrize(("terminal", "is_live"), [("xterm", True), ("dumb", False)])
def test_a_terminal_gets_a_live_line_if_it_can_move_its_cursor(terminal: str, is_live: bool) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "wb", buffering=0) as file:
        environment = os.environ | {"TERM": terminal}
        subprocess.run([sys.executable, "-c", LIVE], env=environment, stderr=file, check=True)
        file.write(b"the end")
        shown = b""
        while not shown.endswith(b"the end"):
            shown += screen.read(4096)
    assert (b"20 of 100 frames" in shown) is is_live
    assert (b"\x1b" in shown) is is_live
