"""Whatever error is left becomes one sentence, with the details in a file where one can be written."""

import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from command import attengait

from attengait.cli.last_net import explain_in_thread
from attengait.store import summary


def too_deep(store: Any) -> Any:
    return too_deep(store)


def raising(error: Exception) -> Any:
    def fail(store: object) -> None:
        raise error

    return fail


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder that the command uses, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr("attengait.store.open_store", lambda where: None)
    return folder


@pytest.mark.parametrize(
    ("fail", "sentence"),
    [
        (too_deep, "attengait: unexpected error: RecursionError: maximum recursion depth exceeded"),
        (raising(MemoryError()), "attengait: the memory is not enough; "),
        (
            raising(MemoryError("Unable to allocate 9 TiB")),
            "attengait: the memory is not enough: Unable to allocate 9 TiB",
        ),
        (
            raising(UnicodeEncodeError("utf-8", "\udcff.png", 0, 1, "x")),
            r"attengait: a name is not UTF-8, but must be: \udcff",
        ),
        (raising(KeyError("a\nb\x1b[2J")), r"attengait: unexpected error: KeyError: 'a\nb\x1b[2J'"),
        (raising(AssertionError()), "attengait: unexpected error: AssertionError; "),
        (raising(ValueError("x" * 100_000)), "attengait: unexpected error: ValueError: xxx"),
    ],
    ids=lambda each: str(each)[:40] if isinstance(each, str) else "",
)
def test_one_sentence_and_the_details_in_a_file(
    kept: Path, monkeypatch: pytest.MonkeyPatch, fail: Any, sentence: str
) -> None:
    monkeypatch.setattr(summary, "summarise", fail)
    done = attengait("info", "s.zarr")
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1
    (log,) = kept.iterdir()
    assert done.stderr.endswith(f"the details are in {log}\n")
    assert "Traceback (most recent call last)" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_where_no_file_can_be_written_the_sentence_stands_alone(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "summarise", raising(KeyError("x")))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("attengait.cli.last_net.os.fdopen", full)
    done = attengait("info", "s.zarr")
    assert (done.returncode, done.stderr) == (1, "attengait: unexpected error: KeyError: 'x'\n")
    assert not list(kept.iterdir())
    monkeypatch.setattr("attengait.cli.last_net.tempfile.mkstemp", full)
    assert attengait("info", "s.zarr").stderr == "attengait: unexpected error: KeyError: 'x'\n"


def test_the_traceback_is_printed_when_asked_for(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "summarise", raising(KeyError("x")))
    monkeypatch.setenv("ATTENGAIT_DEBUG", "1")
    done = attengait("info", "s.zarr")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert done.stderr.splitlines()[-1] == "attengait: unexpected error: KeyError: 'x'"
    assert not list(kept.iterdir())


def test_a_thread_that_fails_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(threading, "excepthook", explain_in_thread)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    said = "attengait: a thread has ended in the background: OSError: [Errno 28] No space left on device"
    assert capsys.readouterr().err.splitlines() == [said]
    monkeypatch.setenv("ATTENGAIT_DEBUG", "1")
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == said
