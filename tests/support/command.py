"""Runs the command line within the tests' process."""

import contextlib
import io
import math
import signal
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from attengait.cli import progress
from attengait.cli.main import main
from attengait.kernels.runtime import compile as compiling

TRAINING = ("--preset", "demo", "--set", "epochs=3", "--set", "warmup_epochs=1", "--set", "subjects_per_batch=2")
TRAINING += ("--set", "clips_per_subject=2", "--set", "train_subjects=001-003", "--set", "precision=fp32")

FLOW = ("preprocess", "casia-b", "--frames", "walkers/rgb", "--silhouettes", "walkers/silh", "--out", "x")


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def attengait(*words: object, cwd: Path | None = None) -> Done:
    """Run a command in this process: starting Python for each would take most of the time."""
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["attengait", *map(str, words)])
        # A wide terminal: messages are not wrapped. Fixtures of modules come before that of the tests' environment.
        patch.setenv("COLUMNS", "300")
        patch.setattr(signal, "signal", lambda number, handler: None)
        # Progress would appear on a slow machine only, and that something is compiled, where no test before needed it.
        patch.setattr(progress, "PLAIN_LINE_EVERY_SECONDS", math.inf)
        patch.setattr(compiling, "SLOW_COMPILE_SECONDS", threading.TIMEOUT_MAX)
        if cwd is not None:
            patch.chdir(cwd)
        try:
            main()
        except SystemExit as exit:
            status = exit.code or 0
    assert isinstance(status, int)
    return Done(status, out.getvalue(), err.getvalue())


def refused(done: Done, status: int, *parts: str) -> None:
    """One sentence on standard error, the right status, and not the one for whatever nobody foresaw."""
    assert done.returncode == status, done.stderr
    assert "unexpected error" not in done.stderr, "what a user can bring about has a sentence of its own"
    for part in parts:
        assert part in done.stderr
    if status == 1 or "Usage:" not in done.stderr:  # Typer's own messages are boxes
        assert done.stderr.startswith("attengait: ")
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
