"""The journey of a user from walkers to a table."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoints import rewrite_as_0_1_0
from command import FLOW, TRAINING, attengait, refused
from servers import S3Server, Server
from store_fakes import tree
from walks import link_walkers

from attengait.kernels.flow.backends import BACKENDS


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
