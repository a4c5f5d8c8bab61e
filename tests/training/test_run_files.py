"""What a run writes about itself: metrics.jsonl, train.log, environment.json, the trace; and half precision in them."""

import functools
import gzip
import json
import logging
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from small_stores import make_store

import attengait
from attengait.errors import AttenGaitError
from attengait.pipelines.train import train_run
from attengait.training import step_report, watching
from attengait.training.config import make_config, settings_of
from attengait.training.environment import command_line, git_state, note_start, read_environment
from attengait.training.run_files import MetricsFile, TextLog, read_metrics

Heard = import_module("heard").Heard

SETTINGS: dict[str, Any] = {
    "size": "tiny",
    "blocks_per_stage": 1,
    "subjects_per_batch": 2,
    "clips_per_subject": 2,
    "clip_frames": 16,
    "epochs": 3,
    "epochs_without_cross_entropy": 1,
    "warmup_epochs": 1,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "device": "cpu",
    "log_every_steps": 1,
    "loggers": (),
}
"""Eight steps."""


def config(**changes: Any) -> Any:
    return make_config({**SETTINGS, **changes})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_store(tmp_path_factory.mktemp("stores") / "s.zarr", lengths=(18,) * 8, frame_shape=(64, 64, 3))
    return Path(made.path)


def steps_and_losses(run: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["train/total"]) for line in read_metrics(run)]


def test_a_run_that_goes_back_to_its_checkpoint_has_no_step_twice(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_run(store, tmp_path / "whole", config())

    def die(self: watching.Watch, batch: object) -> None:
        seen.append(batch)
        if len(seen) == 6:
            raise KeyboardInterrupt  # five steps are done, and the checkpoint is of the fourth

    seen: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(watching.Watch, "see", die)
        with pytest.raises(KeyboardInterrupt):
            train_run(store, tmp_path / "killed", config(checkpoint_every_steps=4))
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "train/to')  # as a kill leaves it
    assert [step for step, _ in steps_and_losses(tmp_path / "killed")] == [1, 2, 3, 4, 5]
    train_run(store, tmp_path / "killed", config(checkpoint_every_steps=4), resume=True)
    assert steps_and_losses(tmp_path / "killed") == steps_and_losses(tmp_path / "whole")
    assert [step for step, _ in steps_and_losses(tmp_path / "whole")] == [1, 2, 3, 4, 5, 6, 7, 8]
    starts = read_environment(tmp_path / "killed")["starts"]
    assert [(start["step"], start["ended"]["how"]) for start in starts] == [
        (0, "failed: KeyboardInterrupt"),
        (4, "finished"),
    ]


def test_a_run_that_begins_anew_has_no_past(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(self: watching.Watch, batch: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(watching.Watch, "see", die)
        with pytest.raises(KeyboardInterrupt):
            train_run(store, tmp_path / "run", config())
    train_run(store, tmp_path / "run", config(stop_after_steps=1))
    assert [step for step, _ in steps_and_losses(tmp_path / "run")] == [1]
    assert [start["step"] for start in read_environment(tmp_path / "run")["starts"]] == [0]


def test_what_is_not_finite_is_null_and_what_is_damaged_is_left_out(tmp_path: Path) -> None:
    file = MetricsFile()
    file.start(tmp_path, {}, 0)
    file.scalars(1, {"a": float("nan"), "b": float("inf"), "c": None, "d": 0.5})
    file.finish("finished")
    path = tmp_path / "metrics.jsonl"
    (line,) = read_metrics(tmp_path)
    assert (line["a"], line["b"], line["c"], line["d"]) == (None, None, None, 0.5)
    path.write_bytes(path.read_bytes() + b'\xff\xfe\n[1]\n{"step": "2"}\n{"step": 2}\n' + b"[" * 100_000 + b"\n")
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    assert read_metrics(tmp_path / "nowhere") == []


def test_what_a_run_is_told_and_does_not_do_is_said(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="attengait"):
        train_run(store, tmp_path / "run", config(stop_after_steps=1, warmup_epochs=3))
    assert "warmup_epochs" not in caplog.text
    assert "although" not in caplog.text
    changes = {"warmup_epochs": 4, "validation_subjects": ("1", "2")}
    with caplog.at_level("INFO", logger="attengait"):
        train_run(store, tmp_path / "other", config(stop_after_steps=1, **changes))
    assert "warmup_epochs is 4, but the run has 4 epochs: the learning rate rises to the end" in caplog.text
    assert "without reaching 0.001" in caplog.text
    assert "validation: none, although 2 subjects are held out: set validate_every_steps" in caplog.text


def test_the_summary_is_on_the_screen_and_in_the_log_with_what_happens_later(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="attengait"):
        train_run(store, tmp_path / "run", config(num_classes=9))
    summary = [
        "model: size tiny, ",
        "steps: 8 in 4 epochs of 2",
        "batch: 4 clips of 16 frames: 2 subjects x 2 clips",
        "device: cpu, precision fp32, no CUDA graphs (the device is cpu)",
        "data: 4 subjects, 8 sequences, 144 frames; 32 clips are drawn in all",
        "validation: none",
    ]
    said = [record.getMessage() for record in caplog.records]
    log = (tmp_path / "run" / "train.log").read_text()
    for line in summary:
        assert sum(text.startswith(line) for text in said) == 1
        assert line in log
    parameters = sum(p.numel() for p in attengait.load_model(tmp_path / "run").parameters())
    assert f"{parameters:,} parameters, 9 classes, 3 channels" in log
    assert sum(" step 8  total " in line for line in log.splitlines()) == 1
    assert log.splitlines()[-1].endswith(" finished")
    assert not any(isinstance(handler, TextLog) for handler in logging.getLogger("attengait").handlers)


def test_a_failure_is_the_last_line_of_the_log(store: Path, tmp_path: Path) -> None:
    with pytest.raises(AttenGaitError, match="not finite"):
        train_run(store, tmp_path / "run", config(learning_rate=1e38, warmup_epochs=0))
    last = (tmp_path / "run" / "train.log").read_text().splitlines()[-1]
    assert "failed: training stopped at step" in last
    assert read_environment(tmp_path / "run")["starts"][0]["ended"]["how"].startswith("failed: training stopped at")


def test_the_environment_says_with_what_a_run_was_computed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/own/bin/attengait", "train", "http://me:secret@host/s.zarr?key=1", "--x"])
    train_run(store, tmp_path / "run", config(stop_after_steps=3))
    train_run(store, tmp_path / "run", config(), resume=True)
    environment = read_environment(tmp_path / "run")
    assert environment["data"]["stores"] == ["s"]
    assert environment["data"]["fingerprint"]["sha256"] == attengait.open_store(store).content_sha256
    first, second = environment["starts"]
    assert (first["step"], second["step"], second["num_steps"]) == (0, 3, 8)
    assert first["command"] == ["attengait", "train", "http://host/s.zarr", "--x"]
    assert first["versions"]["torch"] == torch.__version__
    assert first["versions"]["attengait"] == attengait.__version__
    on_cpu = {"name": "cpu", "gpu": None, "precision": "fp32"}
    assert first["device"] == on_cpu | {"why_no_cuda_graphs": "the device is cpu"}
    assert first["ended"]["cuda_graphs"] == {"graphs": 0, "bytes": 0, "why_not": "the device is cpu"}
    text = (tmp_path / "run" / "environment.json").read_text()
    assert str(tmp_path) not in text


def test_a_damaged_environment_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"starts": [')
    note_start(tmp_path, {}, 5)
    assert [start["step"] for start in read_environment(tmp_path)["starts"]] == [5]


def test_python_s_way_to_run_a_package_is_named_by_the_package() -> None:
    assert command_line(["/x/attengait/__main__.py", "train"]) == ["attengait", "train"]
    assert command_line([]) == []


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_state_is_that_of_the_folder_and_nothing_outside_of_a_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    assert git_state(tmp_path / "nowhere") is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for words in (["init", "-q", "-b", "main"], ["add", "file"], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)
    state = git_state(tmp_path)
    assert state is not None
    assert (state["branch"], state["is_changed"], len(state["commit"])) == ("main", False, 40)
    (tmp_path / "file").write_text("2")
    changed = git_state(tmp_path)
    assert changed is not None
    assert changed["is_changed"]


def test_without_git_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


def test_the_first_batch_is_a_picture(store: Path, tmp_path: Path) -> None:
    train_run(store, tmp_path / "run", config(stop_after_steps=1))
    picture = cv2.imread(str(tmp_path / "run" / "first_batch.png"))
    assert picture is not None
    assert picture.shape[0] == 4 * (2 * 64 + 2 + 20)  # four clips with a name below
    (tmp_path / "run" / "first_batch.png").unlink()
    train_run(store, tmp_path / "run", config(stop_after_steps=2), resume=True)
    assert not (tmp_path / "run" / "first_batch.png").exists()  # it is no first batch


def test_clips_that_cannot_be_drawn_are_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = make_store(tmp_path / "s.zarr", lengths=(18,) * 4, frame_shape=(64, 64, 2))
    train_run(made.path, tmp_path / "run", config(stop_after_steps=1))
    assert "there is no picture of the first batch: the batch has frames of 2 channels" in caplog.text


@pytest.mark.parametrize(("stop_after_steps", "traced"), [(0, 2), (4, 1), (3, 0)])
def test_a_trace_holds_the_steps_after_the_warm_up(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, stop_after_steps: int, traced: int
) -> None:
    with caplog.at_level("INFO", logger="attengait"):
        train_run(store, tmp_path / "run", config(profile_steps=2, stop_after_steps=stop_after_steps))
    path = tmp_path / "run" / "profile.json.gz"
    if not traced:
        assert "there is no trace: the run ended within the 3 steps of warm-up" in caplog.text
        assert not path.exists()
        return
    assert f"profile.json.gz holds a trace of {traced} steps" in caplog.text
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    optimised = [event for event in events if str(event.get("name", "")).startswith("Optimizer.step#")]
    assert len(optimised) == traced
    train_run(store, tmp_path / "plain", config(stop_after_steps=stop_after_steps))
    one, other = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("run", "plain"))
    assert one == other


def test_skipped_steps_of_half_precision_are_logged_as_such_and_no_norm_is_nan(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = torch.amp.GradScaler
    # The first scales are far too large, so that the first steps are skipped.
    large = functools.partial(scaler, init_scale=2.0**50, backoff_factor=2.0**-20)
    monkeypatch.setattr(torch.amp, "GradScaler", large)
    heard = Heard()
    train_run(store, tmp_path / "run", config(precision="fp16", epochs=1, log_every_steps=3), progress=heard)
    lines = {line["step"]: line for line in read_metrics(tmp_path / "run")}
    assert list(lines) == [1, 3, 4]
    assert lines[1]["train/gradient_norm"] is None
    assert lines[1]["train/skipped_steps"] == 1
    assert lines[1]["train/loss_scale"] == 2.0**30
    assert lines[4]["train/gradient_norm"] > 0
    num_skipped = sum("gradient_norm" not in report.losses for report in heard.details)
    assert 1 < num_skipped < 4
    assert sum(line["train/skipped_steps"] for line in lines.values()) == num_skipped
    assert "loss scale 1.07374e+09, step skipped" in str(heard.details[0])
    assert str(heard.details[-1]).count("skipped") == 0
    assert "gradient_norm none" in (tmp_path / "run" / "train.log").read_text()
    assert "nan" not in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_a_watched_run_is_the_same_and_says_what_memory_it_takes(
    store: Path, tmp_path: Path, precision: str
) -> None:
    settings = {"device": "cuda", "precision": precision, "deterministic": True, "validation_subjects": ["003-004"]}
    watched = {"validate_every_steps": 1, "profile_steps": 2, "keep_checkpoints": 2}
    train_run(store, tmp_path / "plain", config(**settings))
    train_run(store, tmp_path / "watched", config(**settings, **watched))
    one, other = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("plain", "watched"))
    assert one == other
    lines = read_metrics(tmp_path / "watched")
    trained = [line for line in lines if "train/total" in line]
    assert all(line["memory/gpu_peak_bytes"] >= line["memory/gpu_bytes"] > 0 for line in trained)
    assert len([line for line in lines if "validation/rank1" in line]) == len(trained)
    assert all((line.get("train/loss_scale", 0) > 0) == (precision == "fp16") for line in trained)
    assert (tmp_path / "watched" / "profile.json.gz").exists()
    assert read_environment(tmp_path / "watched")["starts"][0]["device"]["gpu"]


def test_without_half_precision_there_is_no_scale(store: Path, tmp_path: Path) -> None:
    train_run(store, tmp_path / "run", config(stop_after_steps=1))
    assert not {"train/loss_scale", "train/skipped_steps"} & set(read_metrics(tmp_path / "run")[0])


def test_where_to_log_may_change_when_a_run_is_continued(store: Path, tmp_path: Path) -> None:
    settings = config(stop_after_steps=2)
    train_run(store, tmp_path / "run", settings)
    other = {"loggers": ["tensorboard"], "log_every_steps": 2, "keep_checkpoints": 2, "profile_steps": 1}
    other |= {"stop_after_steps": 0}
    result = train_run(store, tmp_path / "run", make_config(settings_of(settings) | other), resume=True)
    assert result.steps == 8
    assert [step for step, _ in steps_and_losses(tmp_path / "run")] == [1, 2, 4, 6, 8]


def test_a_trace_that_cannot_be_written_ends_no_training(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    train_run(store, run, config(stop_after_steps=1))
    (run / "profile.json.gz").mkdir()
    assert train_run(store, run, config(profile_steps=1), resume=True).steps == 8
    assert "profile.json.gz cannot be written" in caplog.text
    assert read_environment(run)["starts"][-1]["ended"]["how"] == "finished"


def test_loading_is_no_part_of_the_speed(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def tick() -> float:
        clock[0] += 1
        return clock[0]

    def slow(*arguments: Any, **options: Any) -> Any:
        clock[0] += 1000
        return open_clips(*arguments, **options)

    module = import_module("attengait.pipelines.train")
    open_clips = module.open_clips
    monkeypatch.setattr(module, "open_clips", slow)
    monkeypatch.setattr(step_report, "time", SimpleNamespace(perf_counter=tick))
    train_run(store, tmp_path / "run", config(stop_after_steps=1))
    assert read_metrics(tmp_path / "run")[0]["speed/clips_per_second"] == 4.0
