"""What strangers wrote reaches the terminal as short text that it does not obey, whatever the command."""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from attengait.cli import last_net, output
from attengait.cli.main import main
from attengait.cli.progress import ProgressLine
from attengait.errors import AttenGaitError


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def attengait(*words: object, cwd: Path | None = None) -> Done:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["attengait", *map(str, words)])
        patch.setenv("COLUMNS", "300")
        patch.setattr(signal, "signal", lambda number, handler: None)
        if cwd is not None:
            patch.chdir(cwd)
        status: Any = 0
        try:
            main()
        except SystemExit as exit:
            status = exit.code or 0
    return Done(status, out.getvalue(), err.getvalue())


HOSTILE = [
    "[/x]",
    "\x1b]0;owned\x07",
    "\x1b[2J\x9b2J",
    "a\nattengait: all is well",
    "\u202egpj",
    "\udcff",
    "x" * 5000,
]
NAMES = ["[bold]\x1b]0;owned\x07\x1b[2Ja\nb\u202ec", "\udcff", "x" * 200]
"""Those that a file can have."""
ids = [ascii(name)[:20] for name in HOSTILE]


def is_shown(done: Done) -> None:
    for text in (done.stdout, done.stderr):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text), ascii(text)
        assert max(map(len, text.split("\n"))) < 8 * output.MAX_LINE_LETTERS


@pytest.fixture
def store(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data / "walkers-0.1.0.zarr", tmp_path / "walkers.zarr"))


@pytest.mark.parametrize("name", HOSTILE, ids=ids)
@pytest.mark.parametrize(
    "words",
    [
        ("info", "NAME"),
        ("verify", "NAME"),
        ("show", "NAME", "--out", "x.png"),
        ("show", "NAME", "--out", "NAME/x.png"),
        ("train", "NAME", "--out", "NAME", "--preset", "demo"),
        ("train", "x", "--out", "x", "--preset", "NAME"),
        ("train", "x", "--out", "x", "--set", "NAME=1"),
        ("embed", "NAME", "NAME", "--out", "x.npz"),
        ("evaluate", "--embeddings", "NAME"),
        ("evaluate", "x", "y", "--protocol", "NAME"),
        ("import", "pickles", "NAME", "--out", "x"),
        ("import", "h5", "NAME", "--out", "x"),
        ("export", "pickles", "NAME", "--out", "x"),
        ("preprocess", "casia-b", "--silhouettes", "NAME", "--out", "x", "--modality", "silhouette"),
        ("preprocess", "NAME", "--silhouettes", "x", "--out", "NAME", "--modality", "silhouette"),
        ("preprocess", "casia-b", "--silhouettes", "x", "--out", "x", "--codec", "NAME"),
        ("doctor", "--folder", "NAME"),
        ("NAME",),
        ("--NAME",),
        ("info", "x", "NAME"),
    ],
    ids=" ".join,
)
def test_arguments_are_shown_without_control_characters(words: tuple[str, ...], name: str, tmp_path: Path) -> None:
    done = attengait(*(word.replace("NAME", name) for word in words), cwd=tmp_path)
    is_shown(done)
    assert done.returncode in (1, 2), done
    assert "unexpected error" not in done.stderr
    if name == "[/x]" and done.stderr.startswith("attengait: "):
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:20] for name in NAMES])
def test_names_of_stores_folders_and_files_are_shown(store: Path, name: str, tmp_path: Path) -> None:
    hostile = store.rename(store.with_name(f"{name}.zarr"))
    for words in (
        ("info", hostile),
        ("verify", hostile),
        ("show", hostile, "--out", tmp_path / f"{name}.png"),
        ("export", "pickles", hostile, "--out", tmp_path / name, "--workers", 1),
        ("import", "pickles", tmp_path / name, "--out", tmp_path / f"{name}-2.zarr", "--workers", 1),
        ("import", "pickles", tmp_path / name, "--out", tmp_path / f"{name}-2.zarr"),
    ):
        done = attengait(*words, cwd=tmp_path)
        assert "unexpected error" not in done.stderr
        assert done.returncode == 0 or not name.isascii() or len(name) > 100, done
        is_shown(done)


@pytest.mark.parametrize("name", HOSTILE, ids=ids)
def test_values_of_a_store_are_shown_and_exact_in_json(name: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attengait.store import summary

    what = {"path": name, "subjects": 3, "views": [name], "versions": {name: name}, "dataset": name, "digest": "x"}
    monkeypatch.setattr(summary, "summarise", lambda store: what)
    done = attengait("info", store)
    is_shown(done)
    assert done.returncode == 0
    if name == "[/x]":
        assert done.stdout.count("[/x]") == 6
    assert json.loads(attengait("info", store, "--json").stdout) == what


@pytest.mark.parametrize("name", HOSTILE, ids=ids)
def test_tables_and_progress_show_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from attengait.cli.tables import evaluation_table
    from attengait.evaluation import EvaluationResult

    out, err = io.StringIO(), io.StringIO()
    figures = {name: {name: 0.5}}
    result = EvaluationResult(
        protocol=name,
        distance=name,
        leaves_out=name,
        rank1=figures,
        mean_average_precision=figures,
        missing=(name,),
        **dict.fromkeys(COUNTS, 1),
    )
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("attengait.cli.progress.time.monotonic", lambda: float(next(clock)))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), ProgressLine() as line:
        output.show_table(evaluation_table(result))
        line.update(name, 1, 2, unit=name, detail=name)
    is_shown(Done(0, out.getvalue(), err.getvalue()))
    assert err.getvalue().count("\n") == 1


def test_nothing_else_of_the_command_line_prints() -> None:
    folder = Path(output.__file__).parent
    for path in folder.glob("*.py"):
        if path.name != "output.py":
            text = path.read_text()
            assert not re.search(r"\bprint\(|\becho\(|\bstd(out|err)\.write|console\.print|Console\(\)", text), path


COUNTS = ("num_subjects", "num_gallery_subjects", "num_probes", "num_gallery", "num_tied", "num_unmatched")
COUNTS += ("num_missing", "num_repeated", "num_unused")

ERRORS: list[tuple[BaseException, str]] = [
    (ValueError("a bug\nin two lines \x1b[2J"), r"ValueError: a bug\nin two lines \x1b[2J"),
    (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion depth exceeded"),
    (MemoryError(), "MemoryError"),
    (UnicodeEncodeError("ascii", "\udcff", 0, 1, "no such letter"), "UnicodeEncodeError: 'ascii' codec"),
    (KeyError("x" * 9000), "KeyError: 'xxx"),
]


@pytest.mark.parametrize(("error", "part"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
def test_what_nobody_foresaw_is_one_sentence_with_a_file_of_details(
    error: BaseException, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(last_net.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("attengait.store.open_store", fail)
    done = attengait("info", "x")
    is_shown(done)
    assert done.returncode == 1
    (details,) = tmp_path.iterdir()
    assert done.stderr.startswith(f"attengait: unexpected error: {part}")
    assert done.stderr.endswith(f"; the details are in {details}\n")
    assert len(done.stderr.splitlines()) == 1
    assert "in fail\n    raise error" in details.read_text()
    monkeypatch.setenv(last_net.TRACEBACK_VARIABLE, "1")
    with pytest.raises(type(error)):
        attengait("info", "x")


def test_without_a_place_for_the_details_the_sentence_comes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("attengait.store.open_store", fail)
    monkeypatch.setattr(last_net.tempfile, "mkstemp", full)
    assert attengait("info", "x") == Done(1, "", "attengait: unexpected error: ValueError: a bug\n")


def test_a_mistake_of_the_user_is_no_unexpected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AttenGaitError("x is damaged")

    monkeypatch.setattr("attengait.store.open_store", fail)
    assert attengait("info", "x") == Done(1, "", "attengait: x is damaged\n")


def test_letters_that_the_terminal_does_not_have_are_escaped(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "attengait", "info", os.fsencode(tmp_path) + b"/\xff\xc3\xa9.zarr"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"attengait: " + os.fsencode(tmp_path) + b"/\\udcff\\xe9.zarr does not exist\n"
