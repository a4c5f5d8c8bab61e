"""Loggers: those of others come by an entry point, and none that fails stops a training."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from added_package import install
from numpy.typing import NDArray
from small_stores import make_store
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.train import train_run
from attengait.training.config import make_config
from attengait.training.loggers import Loggers, known_loggers
from attengait.training.run_files import read_metrics

SETTINGS: dict[str, Any] = {
    "size": "tiny",
    "subjects_per_batch": 2,
    "clips_per_subject": 2,
    "clip_frames": 16,
    "epochs": 1,
    "epochs_without_cross_entropy": 1,
    "warmup_epochs": 0,
    "precision": "fp32",
    "device": "cpu",
    "train_subjects": ["001-004"],
    "validation_subjects": ["003-004"],
    "validate_every_steps": 1,
    "log_every_steps": 1,
}
"""Two steps."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_store(tmp_path_factory.mktemp("stores") / "s.zarr", lengths=(18,) * 8, frame_shape=(64, 64, 3))
    return Path(made.path)


class Notes:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def start(self, run: Path, about: Mapping[str, Any], first_step: int) -> None:
        self.heard.append(("start", run.name, dict(about), first_step))

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        self.heard.append(("scalars", step, dict(values)))

    def image(self, name: str, step: int, picture: NDArray[np.uint8]) -> None:
        self.heard.append(("image", name, step, picture.shape))

    def finish(self, ended: str) -> None:
        self.heard.append(("finish", ended))


class Broken(Notes):
    """Fails whenever it hears a value."""

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        raise ConnectionError("no server there")


ADDED = """
from pathlib import Path

class Lines:
    def start(self, run, about, first_step):
        self.file = open(run / "added.txt", "a")
        print("start", first_step, about["model"]["size"], about["settings"]["seed"], file=self.file)

    def scalars(self, step, values):
        print(step, *sorted(values), file=self.file)

    def image(self, name, step, picture):
        print(name, picture.dtype, picture.shape[2], file=self.file)

    def finish(self, ended):
        print(ended, file=self.file)
        self.file.close()
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with one logger, and one whose module is missing."""
    entries = "[attengait.loggers]\nlines = added_logger:Lines\ngone = no_such_module:Lines\n"
    install(tmp_path / "packages", monkeypatch, entries, added_logger=ADDED)


def test_a_logger_of_another_package_is_used_by_its_name(store: Path, tmp_path: Path, added: None) -> None:
    train_run(store, tmp_path / "run", make_config({**SETTINGS, "loggers": ["lines"], "seed": 3}))
    lines = (tmp_path / "run" / "added.txt").read_text().splitlines()
    assert lines[0] == "start 0 tiny 3"
    assert lines[1] == "clips/first_batch uint8 3"
    assert [line.split()[0] for line in lines[2:-1]] == ["1", "1", "2", "2"]
    assert "train/active_triplets" in lines[2].split()
    assert "validation/rank1" in lines[3].split()
    assert lines[-1] == "finished"
    assert not (tmp_path / "run" / "tensorboard").exists()  # it was not named


def test_it_is_not_used_unless_it_is_named(store: Path, tmp_path: Path, added: None) -> None:
    train_run(store, tmp_path / "run", make_config({**SETTINGS, "stop_after_steps": 1}))
    assert not (tmp_path / "run" / "added.txt").exists()
    assert (tmp_path / "run" / "tensorboard").exists()


def test_an_unknown_logger_is_refused_with_the_known_ones(store: Path, tmp_path: Path, added: None) -> None:
    assert set(known_loggers()) == {"tensorboard", "lines", "gone"}
    with pytest.raises(ParameterError, match="loggers is 'wandb', but must be one of tensorboard"):
        train_run(store, tmp_path / "run", make_config({**SETTINGS, "loggers": ["wandb"]}))
    assert not (tmp_path / "run").exists()


def test_a_name_that_two_have_is_refused_before_training(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = "[attengait.loggers]\ntensorboard = added_logger:Lines\n"
    install(tmp_path / "packages", monkeypatch, entries, added_logger=ADDED)
    with pytest.raises(AttenGaitError, match=r"loggers is 'tensorboard', .* AttenGait itself and the package added"):
        train_run(store, tmp_path / "run", make_config({**SETTINGS, "loggers": ["tensorboard"]}))
    assert not (tmp_path / "run").exists()


def test_a_logger_that_cannot_be_loaded_is_said_and_left_out(
    store: Path, tmp_path: Path, added: None, caplog: pytest.LogCaptureFixture
) -> None:
    train_run(store, tmp_path / "run", make_config({**SETTINGS, "loggers": ["gone", "tensorboard"]}))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "No module named 'no_such_module'" in warnings[0]
    assert warnings[0].endswith("training goes on without it")
    assert (tmp_path / "run" / "tensorboard").exists()


def test_a_logger_that_fails_is_said_once_and_counted_and_the_others_hear_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes, broken = Notes(), Broken()
    loggers = Loggers({"notes": lambda: notes, "broken": lambda: broken}, [])
    loggers.start(tmp_path, {}, 0)
    for step in (1, 2, 3):
        loggers.scalars(step, {"a": 1.0})
    loggers.image("i", 1, np.zeros((2, 3, 3), np.uint8))
    loggers.finish("finished")
    assert [record.getMessage() for record in caplog.records] == [
        "the logger broken failed (ConnectionError: no server there); training goes on",
        "the logger broken failed 3 times",
    ]
    assert loggers.num_failures == {"broken": 3}
    assert [entry[0] for entry in notes.heard] == ["start", "scalars", "scalars", "scalars", "image", "finish"]
    assert [entry[0] for entry in broken.heard] == ["start", "image", "finish"]


def test_a_wish_to_stop_is_no_failure_of_a_logger(tmp_path: Path) -> None:
    class Interrupted(Notes):
        def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
            raise KeyboardInterrupt

    loggers = Loggers({"own": Interrupted}, [])
    loggers.start(tmp_path, {}, 0)
    with pytest.raises(KeyboardInterrupt):
        loggers.scalars(1, {})


def test_tensorboard_has_all_values_and_the_first_batch(store: Path, tmp_path: Path) -> None:
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    train_run(store, tmp_path / "run", make_config(SETTINGS))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    lines = read_metrics(tmp_path / "run")
    written = {name for line in lines for name in line if name not in ("step", "time")}
    assert set(tags["scalars"]) == written
    assert {
        "train/total",
        "train/triplet",
        "train/cross_entropy",
        "train/l2",
        "train/active_triplets",
        "train/learning_rate",
        "train/gradient_norm",
        "speed/clips_per_second",
        "speed/data_wait_share",
        "memory/host_bytes",
        "memory/host_peak_bytes",
        "validation/rank1",
        "validation/mean_average_precision",
    } <= written
    assert tags["images"] == ["clips/first_batch"]
    totals = [(event.step, event.value) for event in events.Scalars("train/total")]
    assert totals == [(line["step"], pytest.approx(line["train/total"])) for line in lines if "train/total" in line]
    assert 0 < lines[0]["train/active_triplets"] <= 1
    assert lines[0]["memory/host_peak_bytes"] >= lines[0]["memory/host_bytes"] > 1e8
