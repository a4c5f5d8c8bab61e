"""Signals while a command trains: the step ends, a second signal acts at once, and loading is not waited for."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from command import Done, attengait
from small_stores import make_store

from attengait.cli.signals import NUMBERS
from attengait.cli.train import stop_signals
from attengait.pipelines.train import train_run
from attengait.training.config import make_config

Heard = import_module("heard").Heard


@pytest.fixture
def handlers() -> Iterator[None]:
    """Python's own handlers, whatever the tests were started with; put back afterwards."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_is_a_request_where_it_is_heard_and_the_second_acts(
    handlers: None, number: signal.Signals
) -> None:
    with stop_signals() as stop:
        with stop.hearing():
            os.kill(os.getpid(), number)
            assert stop.signal == number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is signal.default_int_handler


def test_where_nobody_hears_the_first_signal_acts(handlers: None) -> None:
    with stop_signals(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_waits_for_an_import_does_not_also_end_the_training_with_a_checkpoint(handlers: None) -> None:
    signal.signal(signal.SIGINT, lambda number, frame: None)  # it raises later
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with stop.hearing():
            assert stop.signal is None


def test_a_signal_that_is_ignored_stays_ignored(handlers: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_signals() as stop, stop.hearing():
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.signal, signal.getsignal(signal.SIGINT)) == (None, signal.SIG_IGN)


@pytest.mark.parametrize("number", NUMBERS)
def test_loading_frames_into_memory_ends_with_the_first_signal(
    handlers: None, tmp_path: Path, number: signal.Signals
) -> None:
    store = make_store(tmp_path / "s.zarr", "lz4", lengths=(18,) * 6, shard_frames=32, frame_shape=(64, 64, 3))
    small = {"size": "tiny", "subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 16, "epochs": 1}
    settings = {**small, "epochs_without_cross_entropy": 0, "precision": "fp32", "device": "cpu", "cache": "host"}
    loading = Heard(lambda done: os.kill(os.getpid(), number))
    with stop_signals() as stop, pytest.raises(KeyboardInterrupt):
        train_run(store.path, tmp_path / "run", make_config(settings), progress=loading, stop=stop)
    assert len(loading.counts) == 1
    assert not (tmp_path / "run").exists()
    # The same command trains, and a finished run that is resumed loads nothing.
    heard = Heard()
    result = train_run(store.path, tmp_path / "run", make_config(settings), progress=heard)
    assert result.steps == result.num_steps
    assert any(unit == "Loading" for unit in heard.tasks)
    again = Heard()
    train_run(store.path, tmp_path / "run", make_config(settings), resume=True, progress=again)
    assert again.tasks == []


INTERRUPTED = """
import os, sys
from attengait.cli.main import main
from attengait.cli.progress import ProgressLine

number = int(sys.argv[1])

def interrupt(line, task, *counts, **details):
    assert task == "Loading", task
    os.kill(os.getpid(), number)

ProgressLine.update = interrupt
sys.argv = ["attengait", "train", *sys.argv[2:]]
main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_command_that_loads_ends_with_the_usual_exit_status(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    store = make_store(tmp_path / "s.zarr", "lz4", lengths=(18,) * 6, shard_frames=32, frame_shape=(64, 64, 3))
    words = [str(store.path), "--out", str(tmp_path / "run"), "--preset", "demo", "--cache", "host"]
    for setting in ("device=cpu", "subjects_per_batch=2", "clips_per_subject=2", "clip_frames=16"):
        words += ["--set", setting]
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(int(number)), *words], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert done.stderr.splitlines()[-1] == "attengait: stopped"
    assert not (tmp_path / "run").exists()


IGNORING = """
import os, signal, sys
from attengait.cli.progress import ProgressLine

def signal_itself(line, task, done, *counts, **details):
    if task == "Training":
        os.kill(os.getpid(), signal.SIGTERM if done == 2 else signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)

ProgressLine.update = signal_itself
sys.argv = ["attengait", "train", *sys.argv[1:]]
from attengait.cli.start import main
main()
"""


def ignore() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def test_training_that_was_started_with_signals_ignored_hears_only_sigterm(tmp_path: Path) -> None:
    """As in the background of a script, or under nohup."""
    store = make_store(tmp_path / "s.zarr", lengths=(18,) * 6, shard_frames=32, frame_shape=(64, 64, 3))
    words = [str(store.path), "--out", str(tmp_path / "run"), "--preset", "demo"]
    steps = ("epochs=9", "log_every_steps=1")
    for setting in ("device=cpu", "subjects_per_batch=2", "clips_per_subject=2", "clip_frames=16", *steps):
        words += ["--set", setting]
    command = [sys.executable, "-c", IGNORING, *words]
    done = subprocess.run(command, preexec_fn=ignore, capture_output=True, text=True)
    assert done.returncode == 143, done.stderr
    assert done.stderr.startswith("SIGTERM: stopped at step 2 of ")
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_the_command_reads_a_file_of_settings_and_says_what_it_begins_with(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", lengths=(18,) * 6, frame_shape=(64, 64, 3))
    (tmp_path / "own.toml").write_text(
        'size = "tiny"\nsubjects_per_batch = 2\nclips_per_subject = 2\nclip_frames = 16\nepochs = 1\n'
        'epochs_without_cross_entropy = 0\nprecision = "fp32"\ndevice = "cpu"\nseed = 4\n'
    )

    def train(*words: str) -> Done:
        return attengait("train", store.path, "--config", "own.toml", *words, cwd=tmp_path)

    assert train("--out", "first").returncode == 0
    tuned = train("--out", "tuned", "--init", "first", "--set", "train_subjects=001-002")
    assert tuned.returncode == 0, tuned.stderr
    said = tuned.stdout + tuned.stderr
    assert "begins with the weights of first:" in said
    assert "drawn anew: classifier.weight, classifier.bias (classifier.weight is [62, 16, 3] there" in said.replace(
        "\n", " "
    )
    twice = train("--out", "shown", "--cache", "none", "--set", "cache=host", "--show-settings")
    assert (twice.returncode, twice.stdout) == (2, "")
    assert "cache is 'none', but must be left out where --set cache is there" in twice.stderr
    shown = train("--out", "shown", "--set", "seed=5", "--show-settings")
    assert '"seed": 5' in shown.stdout
    assert '"epochs": 1,' in shown.stdout
    longer = train("--out", "first", "--resume", "--set", "epochs=2")
    assert longer.returncode == 0, longer.stderr
    assert "the run is made longer: epochs 1, now 2" in (longer.stdout + longer.stderr).replace("\n", " ")
