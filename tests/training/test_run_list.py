"""The list of runs: what their small files say, whatever state they are in."""

import fcntl
import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from small_stores import make_store

from attengait.errors import AttenGaitError
from attengait.pipelines.train import train_run
from attengait.training.config import make_config
from attengait.training.run_files import read_metrics
from attengait.training.run_list import list_runs, values_by_step

command = import_module("command")

SETTINGS: dict[str, Any] = {
    "size": "tiny",
    "subjects_per_batch": 2,
    "clips_per_subject": 2,
    "clip_frames": 16,
    "epochs": 2,
    "epochs_without_cross_entropy": 0,
    "precision": "fp32",
    "device": "cpu",
    "train_subjects": ["001-004"],
    "validation_subjects": ["003-004"],
    "validate_every_steps": 1,
}
"""Two steps."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, and the runs finished, deeper/stopped and early."""
    folder = tmp_path_factory.mktemp("made")
    store = make_store(folder / "s.zarr", lengths=(18,) * 8, frame_shape=(64, 64, 3)).path
    train_run(store, folder / "finished", make_config({**SETTINGS, "keep_checkpoints": 2}))
    train_run(store, folder / "deeper" / "stopped", make_config({**SETTINGS, "stop_after_steps": 1}))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def test_each_run_is_listed_once_with_its_figures(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text('{"model_type": "another program"}')
    stopped, finished = list_runs(folder)
    assert (str(stopped.path), stopped.state, stopped.step, stopped.num_steps) == (
        "deeper/stopped",
        "stopped: stop_after_steps",
        1,
        2,
    )
    assert (str(finished.path), finished.state, finished.step, finished.num_steps) == ("finished", "finished", 2, 2)
    lines = read_metrics(folder / "finished")
    figures = [(line["validation/rank1"], -line["step"]) for line in lines if "validation/rank1" in line]
    assert len(figures) == 2
    assert (finished.best_rank1, finished.best_step) == (max(figures)[0], -max(figures)[1])
    assert finished.loss == [line["train/total"] for line in lines if "train/total" in line][-1]
    environment = json.loads((folder / "finished" / "environment.json").read_text())
    assert (finished.begun, finished.ended) == (
        environment["starts"][0]["time"],
        environment["starts"][0]["ended"]["time"],
    )
    (alone,) = list_runs(folder / "finished")
    assert (str(alone.path), alone.step) == (".", 2)


def test_a_run_that_goes_on_and_one_that_was_killed_are_told_apart_by_the_lock(folder: Path) -> None:
    run = folder / "finished"
    environment = json.loads((run / "environment.json").read_text())
    del environment["starts"][0]["ended"]
    (run / "environment.json").write_text(json.dumps(environment))
    with (run / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert list_runs(run)[0].state == "running"
    (killed,) = list_runs(run)
    assert killed.state == "killed"
    assert killed.ended == read_metrics(run)[-1]["time"]


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"starts": 3}', '{"starts": [3, {"ended": 4, "time": 5}]}'])
def test_damaged_files_of_a_run_do_not_end_the_list(folder: Path, content: str) -> None:
    run = folder / "finished"
    (run / "environment.json").write_text(content)
    (run / "metrics.jsonl").write_text(content + "\n" + '{"step": 1, "train/total": "x", "time": 3}\n')
    found = list_runs(folder)
    assert len(found) == 2
    assert (found[1].step, found[1].loss, found[1].ended) == (1, None, None)
    (run / "config.json").write_text("{")
    assert list_runs(run)[0].state.startswith("damaged: config.json cannot be read")
    (run / "config.json").write_text('{"config": {}, "sha256": "0"}')
    assert list_runs(run)[0].state == "damaged: config.json was changed"


def test_a_run_of_an_earlier_version_is_listed_with_what_is_known(folder: Path) -> None:
    run = folder / "finished"
    for name in ("environment.json", "metrics.jsonl"):
        (run / name).unlink()
    (status,) = list_runs(run)
    assert (status.state, status.step, status.num_steps, status.loss, status.ended) == (
        "unknown",
        None,
        None,
        None,
        None,
    )


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AttenGaitError, match="nowhere is no folder"):
        list_runs(tmp_path / "nowhere")


def test_the_command_shows_a_table_or_json(folder: Path) -> None:
    done = command.attengait("runs", folder)
    assert done.returncode == 0, done.stderr
    finished = next(line for line in done.stdout.splitlines() if "finished" in line)
    assert "2 of 2" in finished
    rank1 = list_runs(folder)[1].best_rank1
    assert rank1 is not None
    assert f"{100 * rank1:.1f} %" in finished
    done = command.attengait("runs", folder, "--json")
    assert json.loads(done.stdout) == [run.to_dict() for run in list_runs(folder)]
    assert "holds no runs" in command.attengait("runs", folder / "s.zarr").stdout


def test_the_option_profile_is_the_setting(folder: Path) -> None:
    words = ("--out", folder / "new", "--preset", "demo", "--profile", "7", "--show-settings")
    done = command.attengait("train", folder / "s.zarr", *words)
    assert json.loads(done.stdout)["profile_steps"] == 7
    command.refused(command.attengait("train", folder / "s.zarr", *words[:-2], "-1"), 2, "profile_steps is -1")


def test_the_command_says_that_a_run_was_stopped_early(folder: Path) -> None:
    words = [f"--set={key}={','.join(value) if isinstance(value, list) else value}" for key, value in SETTINGS.items()]
    more = ["--set=epochs=9", "--set=learning_rate=1e-12", "--set=early_stopping_validations=1"]
    done = command.attengait("train", folder / "s.zarr", "--out", folder / "early", *words, *more)
    assert done.returncode == 0, done.stderr
    assert "2 of 9 steps done (stopped early: " in done.stdout
    assert list_runs(folder / "early")[0].state == "stopped early"


def test_a_value_of_all_runs_is_listed_by_step(folder: Path) -> None:
    for name, lines in {
        "a": [(1, 0.25), (2, 0.5)],
        "b": [(1, 0.75)],
    }.items():
        shutil.copytree(folder / "finished", folder / name)
        text = "".join(json.dumps({"step": step, "validation/rank1": value}) + "\n" for step, value in lines)
        (folder / name / "metrics.jsonl").write_text(text)
    shutil.rmtree(folder / "finished")
    shutil.rmtree(folder / "deeper")
    assert values_by_step(folder, "validation/rank1") == (["a", "b"], {1: [0.25, 0.75], 2: [0.5, None]})
    done = command.attengait("runs", folder, "--value", "validation/rank1")
    rows = [line.strip("│ ").split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    cells = [[each.strip() for each in row] for row in rows]
    assert cells == [["1", "0.250", "0.750", "0.500", "0.354"], ["2", "0.500", "-", "-", "-"]]
    done = command.attengait("runs", folder, "--value", "validation/rank1", "--json")
    assert json.loads(done.stdout)["by_step"] == {"1": [0.25, 0.75], "2": [0.5, None]}


def test_a_value_that_no_run_has_is_refused_with_those_that_there_are(folder: Path) -> None:
    with pytest.raises(AttenGaitError, match=r"has the value train/luck: they have .*train/total.*validation/rank1"):
        values_by_step(folder, "train/luck")
