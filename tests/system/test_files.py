"""A file is written whole or not at all, and a failure says its reason."""

import fcntl
import os
import socket
from pathlib import Path

import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.model.loading import WEIGHTS_NAME
from attengait.model.run_folder import RECORD_NAME
from attengait.system import files
from attengait.training.checkpoint import CHECKPOINT_NAME
from attengait.training.environment import ENVIRONMENT_NAME
from attengait.training.run_files import LOG_NAME, METRICS_NAME
from attengait.training.tracing import TRACE_NAME


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


def test_a_target_that_is_read_is_refused_by_whatever_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("e.npz").write_bytes(b"features")
    Path("link").symlink_to("e.npz")
    Path("hard").hardlink_to("e.npz")
    for path in ("e.npz", "link", "hard", f"../{tmp_path.name}/e.npz"):
        with pytest.raises(ParameterError, match=r"json is .*, but must be another file than e\.npz, which this"):
            files.check_target(Path(path), "json", (None, "s3://bucket/store", "e.npz"))
    with pytest.raises(ParameterError, match=r"curves is 'a\.png', but must be another file than a\.png"):
        files.check_target(Path("a.png"), "curves", [Path("a.png")])  # which will be written, too
    files.check_target(Path("f.npz"), "json", ("e.npz",))
    with pytest.raises(AttenGaitError, match="there is no folder"):
        files.check_target(Path("no/f.npz"), "json")


def test_a_target_in_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    files.check_target(tmp_path / "below" / "x", "out")
    (tmp_path / "zarr.json").touch()
    for path in (tmp_path / "zarr.json", tmp_path / "x", tmp_path / "below" / "x"):
        with pytest.raises(ParameterError, match=r"out is .*, but must be outside .* of a store"):
            files.check_target(path, "out")


@pytest.mark.parametrize("mark", [ENVIRONMENT_NAME, CHECKPOINT_NAME, WEIGHTS_NAME])
def test_a_target_is_no_file_that_a_run_writes_itself(tmp_path: Path, mark: str) -> None:
    own = [".lock", RECORD_NAME, CHECKPOINT_NAME, ENVIRONMENT_NAME, METRICS_NAME, LOG_NAME, TRACE_NAME, WEIGHTS_NAME]
    (tmp_path / RECORD_NAME).touch()
    files.check_target(tmp_path / METRICS_NAME, "out")  # in a folder that is no run
    (tmp_path / mark).touch()
    for name in (*own, "first_batch.png"):
        with pytest.raises(
            ParameterError, match=r"out is .*, but must be another name than those of the run's own files"
        ):
            files.check_target(tmp_path / name, "out")
    files.check_target(tmp_path / "table.json", "out")
