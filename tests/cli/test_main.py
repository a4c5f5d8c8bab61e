"""The commands are the documented ones; each works alone and says a mistake in one sentence."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from command import attengait, refused

from attengait.cli import demo
from attengait.cli.main import app
from attengait.kernels.flow.backends import BACKENDS


def test_the_doctor_names_the_backend_that_auto_takes(tmp_path: Path) -> None:
    table = attengait("doctor", "--folder", tmp_path)
    assert table.returncode == 0, table.stderr
    report = json.loads(attengait("doctor", "--folder", tmp_path, "--json").stdout)
    assert f"takes {report['flow']['auto']}" in table.stdout
    assert list(report["flow"]["backends"]) == list(BACKENDS)


def test_the_set_of_commands_is_the_documented_one() -> None:
    group = typer.main.get_command(app)
    options = {
        name: sorted(option for parameter in command.params for option in parameter.opts if option.startswith("--"))
        for name, command in group.commands.items()
    }
    assert options == {
        "datasets": ["--json"],
        "synth": ["--frames", "--identity", "--seed", "--subjects", "--video", "--views", "--walks", "--workers"],
        "preprocess": [
            *(
                "--chunk-frames",
                "--codec",
                "--constant",
                "--dry-run",
                "--encoding",
                "--farneback",
                "--flow",
                "--flow-images",
                "--frames",
            ),
            *("--gap", "--gpus", "--layout", "--like", "--modality", "--out", "--silhouette-layout"),
            *("--silhouette-level", "--silhouette-offset", "--silhouettes", "--workers"),
        ],
        "info": ["--json"],
        "verify": [],
        "show": ["--columns", "--out", "--rows"],
        "runs": ["--json", "--value"],
        "train": [
            *(
                "--cache",
                "--config",
                "--gpus",
                "--init",
                "--out",
                "--partition",
                "--preset",
                "--profile",
                "--resume",
                "--set",
            ),
            "--show-settings",
        ],
        "attention": ["--out", "--rows"],
        "map": ["--feature-order", "--most", "--out", "--seed"],
        "evaluate": [
            *(
                "--bootstrap",
                "--check-submission",
                "--curves",
                "--device",
                "--distance",
                "--embeddings",
                "--feature-order",
                "--fuse",
            ),
            *(
                "--fuse-weight",
                "--gallery",
                "--gpus",
                "--json",
                "--leave-out",
                "--only-common",
                "--partition",
                "--precision",
            ),
            *("--probes", "--protocol", "--rerank", "--seed", "--subjects", "--submission", "--verification"),
        ],
        "compare": [
            *("--bootstrap", "--device", "--distance", "--feature-order", "--gallery", "--json", "--leave-out"),
            *("--only-common", "--partition", "--probes", "--protocol", "--rerank", "--seed", "--store", "--subjects"),
        ],
        "embed": ["--device", "--gpus", "--out", "--precision", "--subjects"],
        "demo": ["--epochs", "--out", "--seed", "--workers"],
        "doctor": ["--folder", "--json"],
        "import": [],
        "export": [],
        "benchmark": [],
    }


def test_the_command_is_also_a_module_and_says_a_mistake_without_a_traceback(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "attengait", "info", "nowhere.zarr"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("attengait: nowhere.zarr")
    assert len(done.stderr.splitlines()) == 1


def test_the_demo_makes_everything_and_continues_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("TRAINING_SUBJECTS", range(1, 9)),
        ("WALKS", ("nm-01", "nm-05")),
        ("TEST_SUBJECTS", range(9, 11)),
        ("VIEWS", (54, 90)),
        ("FRAMES", 18),
    ):
        monkeypatch.setattr(demo, name, value)
    train = demo.train_with_line

    def stop(*words: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "train_with_line", stop)
    assert attengait("demo", "--out", "d", "--epochs", 3, cwd=tmp_path).returncode == 130
    monkeypatch.setattr(demo, "train_with_line", train)
    done = attengait("demo", "--out", "d", "--epochs", 3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing was done" in done.stdout  # the store was finished already
    assert "chance level 50.0" in done.stdout
    table = json.loads((tmp_path / "d" / "table.json").read_text())
    assert table["rank1"]["nm"]["mean"] is not None
    for name in ("contact-sheet.png", "walkers.zarr", "run/model.safetensors", "embeddings.npz"):
        assert (tmp_path / "d" / name).exists()
    refused(attengait("demo", "--out", "d", "--seed", 1, cwd=tmp_path), 2, "--out is 'd', but must be another folder")


def test_videos_need_no_extraction_and_a_broken_one_is_quietly_reported(tmp_path: Path) -> None:
    walkers = ("--subjects", 1, "--walks", "nm-01,nm-02", "--views", "90", "--frames", 8, "--workers", 1)
    assert attengait("synth", "w", *walkers, "--video", cwd=tmp_path).stdout.endswith("w/video and w/silh\n")
    (tmp_path / "w/video/001-nm-02-090.avi").write_text("no video")
    words = ("--frames", "w/video", "--silhouettes", "w/silh", "--out", "w.zarr", "--workers", 1)
    done = attengait("preprocess", "casia-b", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "w.zarr: 1 sequence, 7 frames" in done.stdout
    assert "skipped, broken video: 8 frames in 1 sequence" in done.stdout
    summary = json.loads(attengait("info", "w.zarr", "--json", cwd=tmp_path).stdout)
    assert summary["frames_from"] == "video"
    assert "ffmpeg" in summary["versions"]


@pytest.mark.parametrize("command", [("info",), ("verify",), ("show", "--out", "x.png"), ("train", "--out", "r")])
@pytest.mark.parametrize("path", ["nowhere.zarr", "empty"])
def test_a_mistyped_or_empty_path_is_one_sentence(tmp_path: Path, command: tuple[str, ...], path: str) -> None:
    (tmp_path / "empty").mkdir()
    refused(attengait(command[0], path, *command[1:], cwd=tmp_path), 1, path)


def test_empty_input_folders_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    words = ("preprocess", "casia-b", "--silhouettes", "b", "--out", "x.zarr", "--frames")
    refused(attengait(*words, "a", cwd=tmp_path), 1, "the folder of frames a holds no sequence")
    refused(attengait(*words, "nowhere", cwd=tmp_path), 1, "nowhere")
    refused(attengait("preprocess", "casia", *words[2:], "a", cwd=tmp_path), 2, "casia-b")
