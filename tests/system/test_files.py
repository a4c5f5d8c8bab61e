"""A file is written whole or not at all, and a failure says its reason."""

import fcntl
import os
import socket
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


def test_only_regular_files_and_links_to_them_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    Path("file").write_bytes(b"content")
    Path("link").symlink_to("file")
    for name in ("file", Path("link"), os.fsencode("file").decode()):
        with files.open_regular(name) as file:
            assert file.read() == b"content"
        assert files.read_regular(name) == b"content"
        files.check_regular(name)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name, what in (
            ("pipe", "a named pipe"),
            ("folder", "a folder"),
            ("socket", "a socket"),
            ("/dev/zero", "a device"),
        ):
            for function in (files.open_regular, files.read_regular, files.check_regular):
                with pytest.raises(OSError, match="not a file") as caught:
                    function(name)
                assert (caught.value.strerror, caught.value.filename) == (f"it is {what}, not a file", name)
    for function in (files.open_regular, files.read_regular, files.check_regular):
        with pytest.raises(FileNotFoundError):
            function("nothing")


def test_who_only_looks_for_a_lock_does_not_keep_another_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = AttenGaitError("busy")
    with (tmp_path / ".lock").open("wb") as file, (tmp_path / ".lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
        with pytest.raises(AttenGaitError, match="busy"):
            files.lock(file, busy)
        monkeypatch.setattr(files.time, "sleep", lambda seconds: fcntl.flock(looking, fcntl.LOCK_UN))
        files.lock(file, busy)
        with pytest.raises(BlockingIOError):
            fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_what_a_kill_left_is_removed_when_the_file_is_written_again(tmp_path: Path) -> None:
    """And nothing else: no file that somebody is writing, and none of another name."""
    path = tmp_path / "a.json"
    left, others = tmp_path / ".a.json.4194399.tmp", [".a.json.tmp", ".a.json.x1.tmp", ".b.json.1.tmp", "a.json.1.tmp"]
    busy = tmp_path / ".a.json.4194398.tmp"
    for name in (left.name, *others):
        (tmp_path / name).write_text("half")
    with busy.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        files.write_atomically(path, b"new")
        assert sorted(each.name for each in tmp_path.iterdir()) == sorted(["a.json", busy.name, *others])
    files.write_atomically(path, b"newer")
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(["a.json", *others])
    assert path.read_bytes() == b"newer"
