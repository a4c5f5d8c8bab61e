"""The command line as a user meets it: the journey, and one clear sentence for every mistake."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from checkpoints import rewrite_as_0_1_0
from command import attengait, refused
from servers import S3Server, Server
from store_fakes import tree

from attengait.cli import demo
from attengait.cli.main import app
from attengait.kernels.flow.backends import BACKENDS

TRAINING = ("--preset", "demo", "--set", "epochs=3", "--set", "warmup_epochs=1", "--set", "subjects_per_batch=2")
TRAINING += ("--set", "clips_per_subject=2", "--set", "train_subjects=001-003", "--set", "precision=fp32")


FLOW = ("preprocess", "casia-b", "--frames", "walkers/rgb", "--silhouettes", "walkers/silh", "--out", "x")
SILHOUETTES = ("preprocess", "casia-b", "--silhouettes", "b", "--out", "c", "--modality", "silhouette")


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with walkers of five people, their store and a run trained on three of them."""
    folder = tmp_path_factory.mktemp("journey")
    walkers = ("--subjects", 5, "--walks", "nm-01,nm-05,bg-01,cl-01", "--views", "54,90", "--frames", 18, "--seed", 3)
    for words in (
        ("synth", "walkers", *walkers, "--workers", 2),
        ("preprocess", "casia-b", "--frames", "walkers/rgb", "--silhouettes", "walkers/silh", "--out", "w.zarr"),
        ("train", "w.zarr", "--out", "run", *TRAINING),
    ):
        done = attengait(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def test_info_says_what_the_store_holds(journey: Path) -> None:
    done = attengait("info", "w.zarr", "--json", cwd=journey)
    summary = json.loads(done.stdout)
    assert (summary["subjects"], summary["sequences"], summary["frames"]) == (5, 40, 40 * 17)
    table = attengait("info", "w.zarr", cwd=journey)
    assert table.returncode == 0
    assert "casia-b" in table.stdout


def test_verify_is_content_with_a_sound_store_and_names_a_damaged_shard(journey: Path, tmp_path: Path) -> None:
    assert attengait("verify", "w.zarr", cwd=journey).returncode == 0
    store = shutil.copytree(journey / "w.zarr", tmp_path / "damaged.zarr")
    shard = store / "frames" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    done = attengait("verify", store)
    assert done.returncode == 1
    assert "001/" in done.stdout
    assert "is damaged" in done.stderr


def test_a_finished_store_is_left_alone(journey: Path) -> None:
    words = ("preprocess", "casia-b", "--frames", "walkers/rgb", "--silhouettes", "walkers/silh", "--out", "w.zarr")
    done = attengait(*words, cwd=journey)
    assert done.returncode == 0
    assert "nothing was done" in done.stdout
    refused(attengait(*words, "--codec", "lz4", cwd=journey), 2, "codec", "none", "lz4")


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


def link_walkers(journey: Path, folder: Path, walks: str) -> None:
    """Make folders `rgb` and `silh` with some of the journey's walks: their names match `walks`."""
    for side in ("rgb", "silh"):
        for walk in (journey / "walkers" / side).glob(walks):
            link = folder / side / walk.parent.name / walk.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(walk)


@pytest.mark.parametrize(("name", "channels", "frames"), [("uv", 2, 20 * 17), ("silhouette", 1, 20 * 18)])
def test_other_pictures_than_colours_go_the_same_way(
    journey: Path, tmp_path: Path, name: str, channels: int, frames: int
) -> None:
    link_walkers(journey, tmp_path, "*/nm-*")  # half of the walks: nm-01 and nm-05
    store, run = tmp_path / f"{name}.zarr", tmp_path / "run"
    options = ("--modality", "silhouette") if name == "silhouette" else ("--frames", "rgb", "--encoding", name)
    words = ("preprocess", "casia-b", "--silhouettes", "silh", "--out", store, "--workers", 2, *options)
    done = attengait(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(attengait("info", store, "--json").stdout)
    assert (summary["frames"], summary["frame_shape"]) == (frames, [64, 64, channels])
    assert summary["modality"] == ("silhouette" if name == "silhouette" else "flow")
    assert summary.get("encoding_steps_per_px") == (None if name == "silhouette" else 8)
    assert attengait("verify", store).returncode == 0
    assert attengait("show", store, "--out", tmp_path / "sheet.png").returncode == 0
    assert attengait("train", store, "--out", run, *TRAINING).returncode == 0
    done = attengait("evaluate", run, store, "--json", tmp_path / "table.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "table.json").read_text())["rank1"]["nm"]["mean"] is not None
    refused(attengait("evaluate", run, journey / "w.zarr"), 1, "was trained on modality", "holds modality flow")
    refused(attengait("embed", journey / "run", store, "--out", tmp_path / "e.npz"), 1, "encoding colour, but")
    refused(attengait("train", store, "--out", journey / "run", "--resume"), 1, "was trained on another store")


def test_a_backend_that_cannot_be_used_is_one_sentence_before_anything_is_made(
    journey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = dataclasses.replace(BACKENDS["cuda"], missing=lambda: "there is no GPU")
    monkeypatch.setitem(BACKENDS, "cuda", absent)
    for words in ((), ("--dry-run",)):
        done = attengait(*FLOW[:-1], tmp_path / "c.zarr", "--flow", "cuda", *words, cwd=journey)
        refused(done, 1, "flow backend cuda cannot be used: there is no GPU")
    # Not even the input is looked at.
    done = attengait("preprocess", "casia-b", "--frames", "a", "--silhouettes", "b", "--out", "c", "--flow", "cuda")
    refused(done, 1, "there is no GPU")
    assert list(tmp_path.iterdir()) == []


def test_a_chosen_backend_and_farneback_s_parameters_are_recorded(journey: Path, tmp_path: Path) -> None:
    link_walkers(journey, tmp_path, "001/nm-01")
    flow = ("preprocess", "casia-b", "--frames", "rgb", "--silhouettes", "silh", "--out", "f.zarr")
    words = ("--farneback", "window=gaussian", "--farneback", "winsize=9")
    done = attengait(*flow, "--flow", "opencv", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    recipe = json.loads(attengait("info", "f.zarr", "--json", cwd=tmp_path).stdout)["recipe"]
    assert recipe["flow"] == "opencv"
    assert (recipe["farneback"]["window"], recipe["farneback"]["winsize"]) == ("gaussian", 9)
    refused(attengait(*flow, cwd=tmp_path), 2, "recipe.farneback.winsize", "9", "15")
    assert "nothing was done" in attengait(*flow, *words, cwd=tmp_path).stdout


def test_the_doctor_names_the_backend_that_auto_takes(tmp_path: Path) -> None:
    table = attengait("doctor", "--folder", tmp_path)
    assert table.returncode == 0, table.stderr
    report = json.loads(attengait("doctor", "--folder", tmp_path, "--json").stdout)
    assert f"takes {report['flow']['auto']}" in table.stdout
    assert list(report["flow"]["backends"]) == list(BACKENDS)


def test_a_dry_run_writes_nothing(journey: Path) -> None:
    words = ("--frames", "walkers/rgb", "--silhouettes", "walkers/silh", "--out", "dry.zarr", "--dry-run")
    done = attengait("preprocess", "casia-b", *words, cwd=journey)
    assert done.returncode == 0
    assert "40 sequences" in done.stdout
    assert "flow back end: " in done.stdout
    assert not list(journey.glob("dry.zarr*"))


def test_show_draws_a_picture(journey: Path, tmp_path: Path) -> None:
    done = attengait("show", "w.zarr", "--out", tmp_path / "sheet.png", "--rows", 3, cwd=journey)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_embeddings_of_unseen_subjects_give_the_same_table_from_the_file_and_from_the_run(
    journey: Path, tmp_path: Path
) -> None:
    done = attengait("embed", "run", "w.zarr", "--out", tmp_path / "e.npz", cwd=journey)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "e.npz") as arrays:
        assert arrays["features"].shape == (16, 62, 16)
        assert arrays["features"].dtype == np.float32
        assert set(arrays["subjects"].tolist()) == {"004", "005"}
        assert set(arrays["views"].tolist()) == {"054", "090"}
        assert set(arrays["sequences"].tolist()) == {"nm-01", "nm-05", "bg-01", "cl-01"}
    first = attengait("evaluate", "run", "w.zarr", "--json", tmp_path / "a.json", cwd=journey)
    second = attengait("evaluate", "--embeddings", tmp_path / "e.npz", "--json", tmp_path / "b.json")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    table = json.loads((tmp_path / "a.json").read_text())
    assert table == json.loads((tmp_path / "b.json").read_text())
    one = attengait("evaluate", "--embeddings", tmp_path / "e.npz", "--subjects", "005")
    assert "1 subjects" in one.stdout
    assert (table["protocol"], table["distance"]) == ("casia-b", "l2")
    assert set(table["rank1"]["nm"]["views"]) == {"054", "090"}


def test_resuming_a_finished_run_changes_nothing(journey: Path) -> None:
    before = (journey / "run" / "model.safetensors").read_bytes()
    done = attengait("train", "w.zarr", "--out", "run", "--resume", cwd=journey)
    assert done.returncode == 0, done.stderr
    assert (journey / "run" / "model.safetensors").read_bytes() == before
    refused(attengait("train", "w.zarr", "--out", "run", *TRAINING, cwd=journey), 1, "--resume")
    changed = ("--resume", "--set", "learning_rate=1.0")
    refused(attengait("train", "w.zarr", "--out", "run", *changed, cwd=journey), 2, "learning_rate", "1.0")


def test_a_run_stopped_and_resumed_equals_the_undisturbed_one(journey: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    assert (
        attengait("train", "w.zarr", "--out", stopped, *TRAINING, "--set", "stop_after_steps=3", cwd=journey).returncode
        == 0
    )
    # Where frames are kept changes nothing, and is no setting that a run must keep.
    done = attengait("train", "w.zarr", "--out", stopped, "--resume", "--cache", "host", cwd=journey)
    assert done.returncode == 0, done.stderr
    assert "GB of frames are kept in memory, as asked for" in done.stdout
    assert (stopped / "model.safetensors").read_bytes() == (journey / "run" / "model.safetensors").read_bytes()


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


def test_a_store_of_another_version_is_one_sentence(journey: Path, tmp_path: Path) -> None:
    store = shutil.copytree(journey / "w.zarr", tmp_path / "future.zarr")
    metadata = json.loads((store / "zarr.json").read_text())
    metadata["attributes"]["version"] = 99
    (store / "zarr.json").write_text(json.dumps(metadata))
    refused(attengait("info", store), 1, "future.zarr", "version 99")


def test_a_truncated_shard_stops_training_with_its_name(journey: Path, tmp_path: Path) -> None:
    store = shutil.copytree(journey / "w.zarr", tmp_path / "cut.zarr")
    for shard in (store / "frames" / "c").rglob("0"):
        if shard.is_file():
            shard.write_bytes(shard.read_bytes()[:-1000])
    refused(attengait("train", store, "--out", tmp_path / "run", *TRAINING), 1, "frames/c/")


def test_a_checkpoint_of_another_size_is_one_sentence(journey: Path, tmp_path: Path) -> None:
    run = shutil.copytree(journey / "run", tmp_path / "run")
    record = json.loads((run / "config.json").read_text())
    record["config"]["size"] = "small"
    (run / "config.json").write_text(json.dumps(record))
    refused(attengait("train", "w.zarr", "--out", run, "--resume", cwd=journey), 1, "config.json was changed after")
    # As of version 0.1.0: without checksums.
    del record["sha256"]
    (run / "config.json").write_text(json.dumps(record))
    rewrite_as_0_1_0(run / "checkpoint.pt")
    done = attengait("train", "w.zarr", "--out", run, "--resume", cwd=journey)
    assert done.returncode == 1
    assert "checkpoint.pt does not fit: the tensor" in done.stderr.splitlines()[-1]
    assert done.stderr.count("carries no checksums") == 2


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (("train", "w.zarr", "--out", "x", "--set", "learning_rat=1"), 2, "learning_rate"),
        (("train", "w.zarr", "--out", "x", "--preset", "casia"), 2, "casia-b"),
        (("train", "w.zarr", "--out", "x", "--set", "train_subjects=900-901"), 2, "900-901"),
        (("train", "w.zarr", "--out", "x", "--set", "clip_frames=40"), 2, "40 frames"),
        (("evaluate", "run", "w.zarr", "--distance", "l3"), 2, "l3"),
        (("evaluate", "run", "w.zarr", "--protocol", "x"), 2, "casia-b"),
        (("evaluate", "run"), 2, "STORE"),
        (("evaluate", "nowhere", "w.zarr"), 1, "nowhere"),
        (("evaluate", "--embeddings", "nowhere.npz"), 1, "nowhere.npz"),
        (("evaluate", "run", "w.zarr", "--subjects", "777"), 2, "777"),
        (("embed", "run", "w.zarr", "--out", "no/such/folder.npz"), 1, "folder.npz"),
        (("synth", "x", "--walks", "run-01"), 2, "run-01"),
        (("synth", "x", "--views", "a"), 2, "views"),
        (("preprocess", "casia-b", "--frames", "a", "--silhouettes", "b", "--out", "c", "--codec", "rar"), 2, "codec"),
        (("preprocess", "casia-b", "--silhouettes", "b", "--out", "c"), 2, "frames is missing"),
        (("preprocess", "casia-b", "--silhouettes", "b", "--out", "c", "--modality", "depth"), 2, "silhouette"),
        ((*SILHOUETTES, "--frames", "a"), 2, "but must be left out: the modality silhouette takes no frames"),
        ((*SILHOUETTES, "--encoding", "uv"), 2, "--encoding is given, but must be left out"),
        ((*SILHOUETTES, "--gap", "skip"), 2, "--gap is given, but must be left out"),
        ((*SILHOUETTES, "--silhouette-offset", 1), 2, "--silhouette-offset is given, but must be left out"),
        ((*FLOW, "--silhouette-level", 1), 2, "silhouette_level is 1.0, but must be a number between 0 and 1"),
        ((*SILHOUETTES, "--farneback", "winsize=9"), 2, "--farneback is given, but must be left out"),
        ((*SILHOUETTES, "--gpus", "1"), 2, "--gpus is given, but must be left out"),
        (
            (*FLOW, "--flow", "opencv", "--gpus", "2"),
            2,
            "gpus is [0, 1], but must be left out: the flow is opencv",
        ),
        (
            (*FLOW, "--flow", "cuda", "--gpus", "0"),
            2,
            "gpus is '0', but must be how many, from 1 on",
        ),
        ((*FLOW, "--flow", "cuda", "--gpus", "1,1"), 2, "gpus is [1, 1], but must be different numbers from 0 on"),
        ((*FLOW, "--flow", "cuda", "--gpus", "all"), 2, "gpus is 'all', but must be whole numbers"),
        ((*FLOW, "--flow", "cuda", "--workers", "0"), 2, "workers is 0"),
        ((*FLOW, "--flow", "warp"), 2, "flow is 'warp', but must be one of auto, opencv, cpu, cuda, opencv-cuda, nvof"),
        ((*FLOW, "--farneback", "winsize=1"), 2, "winsize is 1, but must be a whole number of at least 2"),
        ((*FLOW, "--farneback", "winsize"), 2, "but must be KEY=VALUE"),
        ((*FLOW, "--farneback", "winsiz=9"), 2, "did you mean 'winsize'?"),
        (
            (*FLOW, "--flow", "nvof", "--farneback", "winsize=15"),
            2,
            "farneback is given, but must be left out",
        ),
        (("doctor", "--folder", "nowhere"), 1, "folder is nowhere, but must be a folder that exists"),
        (("preprocess", "casia-b", "--frames", "a", "--silhouettes", "b", "--out", "c", "--encoding", "h"), 2, "uvm"),
        (("benchmark", "loader", "w.zarr", "--clip-frames", "100"), 1, "100"),
        (("benchmark", "loader", "w.zarr", "--plot", "x.pdf"), 2, ".png"),
        (("benchmark", "layout", "w.zarr", "--codecs", "rar"), 2, "'rar'"),
        (("benchmark", "ranks", "w.zarr", "--processes", "0"), 2, "processes"),
        (("benchmark", "soak", "w.zarr", "--clips", "5"), 2, "at least ten batches"),
        (("benchmark", "scale", "--sequences", "5"), 2, "at least 80"),
        (
            ("benchmark", "flow", "--sizes", "320x240,big"),
            2,
            "sizes is 'big', but must be width x height",
        ),
        (("benchmark", "flow", "--flow", "raft"), 2, "raft"),
        (("benchmark", "agreement", "--frames", "w.zarr/sequences"), 1, "w.zarr/sequences"),
        (("evaluate", "run", "w.zarr", "--json", "no/such/table.json"), 1, "no/such"),
        (("evaluate", "run", "w.zarr", "--json", "."), 1, "is a folder"),
        (("evaluate", "run", "w.zarr", "--json", "run/a.json"), 2, "json is 'run/a.json', but must be outside "),
        (("evaluate", "run", "w.zarr", "--submission", "w.zarr/a.csv", "--protocol", "hid"), 2, "outside"),
        (("evaluate", "--embeddings", "w.zarr.jsonl", "--json", "w.zarr.jsonl"), 2, "another file than w.zarr.jsonl"),
        (("evaluate", "run", "w.zarr", "--fuse", "f.npz", "--json", "f.npz"), 2, "another file than f.npz"),
        (("evaluate", "run", "w.zarr", "--partition", "p.json", "--json", "p.json"), 2, "another file than p.json"),
        (
            ("evaluate", "run", "w.zarr", "--json", "a.png", "--verification", "--curves", "a.png"),
            2,
            "curves is 'a.png', but must be another file than a.png",
        ),
        (("compare", "a.npz", "b.npz", "--json", "b.npz"), 2, "another file than b.npz"),
        (("embed", "run", "w.zarr", "--out", "e"), 2, "out is 'e', but must be a file that ends in .npz"),
        (("embed", "run", "w.zarr", "--out", "run/e.npz"), 2, "which is the folder of a run"),
        (("map", "a.png", "--out", "a.png"), 2, "another file than a.png"),
        (("attention", "run", "--out", "run/a.png"), 2, "which is the folder of a run"),
        (("show", "w.zarr", "--out", "w.zarr/zarr.json"), 2, "which is the folder of a store"),
        (("export", "weights", "run", "--out", "run/model.safetensors"), 2, "which is the folder of a run"),
        (("import", "keras", "w.hdf5", "--out", "w.hdf5"), 2, "another file than w.hdf5"),
        (("benchmark", "layout", "w.zarr", "--out", "w.zarr/zarr.json"), 2, "which is the folder of a store"),
        (("evaluate", "--embeddings", "x.npz", "--precision", "fp32"), 2, "--precision"),
        (("show", "w.zarr", "--out", "."), 1, "is a folder"),
        (("train", "w.zarr", "--out", "w.zarr", *TRAINING), 1, "no folder of a training run"),
        (("train", "w.zarr", "--out", "x", *TRAINING, "--set", "exclude_subjects=009"), 2, "'009'"),
        (("train", "w.zarr", "w.zarr", "--out", "x", *TRAINING), 1, "w.zarr is given twice"),
        (("train", "w.zarr", "--out", "x", *TRAINING, "--cache", "disk"), 2, "'disk'"),
        (("train", "w.zarr", "--out", "x", *TRAINING, "--set", "train_walks=xx"), 2, "train_walks is 'xx'"),
        (("train", "w.zarr", "--out", "x", *TRAINING, "--set", "exclude_subjects=1-2"), 2, "at most the 1 subjects"),
        (("train", "w.zarr", "--out", "norun", "--resume", "--preset", "demo"), 1, "norun"),
        (("train", "w.zarr", "--out", "x", "--set", "device=gpu"), 2, "cuda:N"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_mistakes_are_one_sentence_with_the_right_status(
    journey: Path, words: tuple[str, ...], status: int, part: str
) -> None:
    refused(attengait(*words, cwd=journey), status, part)
    assert not (journey / "x").exists()
    assert not (journey / "norun").exists()


def test_benchmarks_end_in_a_line_of_json(journey: Path) -> None:
    words = ("loader", "w.zarr", "--clip-frames", 16, "--batch-size", 4, "--batches", 2, "--repeats", 1)
    done = attengait("benchmark", *words, cwd=journey)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert {row["name"] for row in report["results"]} >= {"stream", "gather", "zarr-python", "tensorstore"}
    words = ("flow", "--flow", "opencv", "--sizes", "64x64", "--batches", "1,2", "--repeats", 1)
    done = attengait("benchmark", *words, cwd=journey)
    assert done.returncode == 0, done.stderr
    assert [row["batch"] for row in json.loads(done.stdout.splitlines()[-1])["results"]] == [1, 2]


def test_benchmarks_of_a_store_draw_and_write_what_they_print(
    journey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("--batches", 1, "--repeats", 1)
    plot, table = tmp_path / "rates.png", tmp_path / "layout.md"
    words = ("loader", "w.zarr", "--clip-frames", 16, "--batch-size", 4, "--cold", "--plot", plot, *few)
    done = attengait("benchmark", *words, cwd=journey)
    assert done.returncode == 0, done.stderr
    assert "stream, cold" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    words = ("layout", "w.zarr", "--codecs", "zstd", "--chunks", 4, "--clip-frames", 16, "--out", table, *few)
    done = attengait("benchmark", *words, cwd=journey)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(table.read_text())
    words = ("soak", "w.zarr", "--clip-frames", 16, "--batch-size", 4, "--clips", 80)
    done = attengait("benchmark", *words, cwd=journey)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["growth"] == []
    monkeypatch.setattr("attengait.benchmarks.soak.growth", lambda looks, batches_bytes: ["files from 1 to 2"])
    refused(attengait("benchmark", *words, cwd=journey), 1, "files from 1 to 2")


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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_preprocessing_with_what_is_kept(
    journey: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    words = [sys.executable, "-m", "attengait", "preprocess", "casia-b", "--workers", "1", "--out", "s.zarr"]
    words += ["--frames", str(journey / "walkers/rgb"), "--silhouettes", str(journey / "walkers/silh")]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        work = tmp_path / "s.zarr.work" / "records"
        while process.poll() is None and not (work.is_dir() and any(work.iterdir())):
            time.sleep(0.005)
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == status, err
    assert err.splitlines()[-1].startswith("attengait: stopped; ")
    assert len(err.splitlines()) == 1


def test_every_command_reads_a_store_behind_a_url(journey: Path, tmp_path: Path) -> None:
    with Server() as web:
        web.serve_folder(journey / "w.zarr", "gait/w.zarr")
        url = f"{web.url}/gait/w.zarr"
        local, remote = (json.loads(attengait("info", where, "--json").stdout) for where in (journey / "w.zarr", url))
        assert remote == local | {"path": url, "bytes": None}
        assert "unknown" in attengait("info", url).stdout
        assert attengait("verify", url).stdout == f"{url}: every checksum and every index record is right\n"
        for where in ("w.zarr", url):
            out = tmp_path / ("remote" if where == url else "local")
            for words in (
                ("show", where, "--out", out.with_suffix(".png")),
                ("embed", "run", where, "--out", out.with_suffix(".npz"), "--device", "cpu"),
                ("evaluate", "run", where, "--json", out.with_suffix(".json"), "--device", "cpu"),
                ("train", where, "--out", out, *TRAINING, "--set", "stop_after_steps=2", "--set", "device=cpu"),
            ):
                done = attengait(*words, cwd=journey)
                assert done.returncode == 0, done.stderr
    for name in ("remote.png", "remote.json", "remote/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("remote", "local")).read_bytes()
    features = [np.load(tmp_path / name)["features"] for name in ("remote.npz", "local.npz")]
    np.testing.assert_array_equal(*features)


def test_preprocessing_writes_to_a_bucket_what_it_writes_to_a_folder(
    journey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("preprocess", "casia-b", "--silhouettes", journey / "walkers/silh", "--modality", "silhouette", "--out")
    with S3Server() as s3:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
        where = "s3://bucket/gait/s.zarr"
        assert f"{where} (new): 40 sequences" in attengait(*words, where, "--dry-run", cwd=tmp_path).stdout
        assert not s3.objects
        done = attengait(*words, where, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{where}: 40 sequences, 720 frames")
        assert f"{where} (finished)" in attengait(*words, where, "--dry-run", cwd=tmp_path).stdout
        assert not list(tmp_path.iterdir())
        assert attengait(*words, tmp_path / "s.zarr").returncode == 0
        assert s3.tree("bucket/gait/s.zarr") == tree(tmp_path / "s.zarr")
        refused(attengait("info", "s3://bucket/x.zarr"), 1, "s3://bucket/x.zarr is not a store")
        refused(attengait(*words, f"{s3.url}/s.zarr"), 1, "can only be read")
        refused(attengait("info", "ftp://host/x.zarr"), 2, "the scheme of ftp://host/x.zarr", "s3, gs, http, https")
