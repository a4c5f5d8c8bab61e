"""Whole stores made by the processes of GPUs, with the host in the place of a GPU, are those of the CPU's processes."""

import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from attengait.datasets import Folders
from attengait.errors import AttenGaitError
from attengait.kernels.runtime.launch import CudaDevice, host_missing
from attengait.pipelines.preprocess import gpus, jpeg
from attengait.pipelines.preprocess.gpus import claimed
from attengait.pipelines.preprocess.shards import make_shards
from attengait.preprocessing.flow import FlowRecipe, SilhouetteFlowRecipe
from attengait.preprocessing.run import PreprocessConfig, run_preprocessing
from attengait.store import open_store
from attengait.store.layout import work_path
from attengait.store.verify import verify
from attengait.store.workfolder import WorkFolder
from attengait.synth import SynthConfig, write_walkers

SUPPORT = Path(__file__).parents[2] / "support"
walks, fakes, devices, gpu_run = map(import_module, ("walks", "store_fakes", "host_devices", "gpu_run"))
Heard = import_module("heard").Heard

pytestmark = pytest.mark.skipif(host_missing() is not None, reason=str(host_missing()))
NUM_WALKS = 14
on_every_device = pytest.mark.parametrize(
    "make_device", [devices.host_device, pytest.param(CudaDevice, marks=pytest.mark.gpu)], ids=["host", "gpu"]
)


def make_on_cpu(root, out, *, frames="rgb", kind=FlowRecipe, **changes):
    config = PreprocessConfig(
        dataset="casia-b",
        folders=Folders(frames=root / frames, silhouettes=root / "silh"),
        out=out,
        recipe=kind(**changes),
        chunk_frames=4,
    )
    return run_preprocessing(config)


@pytest.fixture(scope="module")
def walkers(tmp_path_factory):
    """Synthetic walkers of the usual size, as pictures; to be read only."""
    root = tmp_path_factory.mktemp("walkers")
    write_walkers(root, SynthConfig(subjects=1, walks=("nm-01",), views=(36, 90), frames=7, workers=2))
    return root


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Small walks, with most that can be wrong with them; to be read only."""
    root = tmp_path_factory.mktemp("damaged")
    for i in range(NUM_WALKS):
        walks.write_walk(root, f"{i + 1:03d}", "nm-01", 5 + i % 4, seed=i)

    def picture(side, subject, number):
        return walks.picture(root, side, f"{subject}/nm-01/090", number)

    corrupt = picture("rgb", "002", 3)
    corrupt.write_bytes(corrupt.read_bytes()[:-30])
    picture("silh", "003", 4).unlink()
    picture("silh", "004", 2).write_bytes(b"")
    shutil.copy(picture("silh", "001", 1), picture("silh", "004", 7))
    shutil.rmtree(root / "silh" / "005")
    return root


@pytest.fixture(scope="module")
def undisturbed(damaged, tmp_path_factory):
    """The files of a store that one process made of the small walks."""
    folder = tmp_path_factory.mktemp("undisturbed")
    gpu_run.run(damaged, folder / "w.zarr", 1)
    return fakes.tree(folder)


def clips(path):
    store = open_store(path)
    with store.reader() as reader:
        return np.concatenate(reader.read_clips(store.sequences.start, store.sequences.length)).astype(int)


def assert_agree(ours, theirs):
    """The same sequences and report, and pictures within the tolerance of the kernels."""
    stores = open_store(ours), open_store(theirs)
    for column in ("subject", "walk", "view", "start", "length"):
        assert getattr(stores[0].sequences, column).tolist() == getattr(stores[1].sequences, column).tolist()
    reports = [path.with_suffix(".zarr.skipped.jsonl").read_text() for path in (ours, theirs)]
    assert reports[0] == reports[1]
    difference = np.abs(clips(ours) - clips(theirs))
    assert (difference == 0).mean() >= 0.995
    assert (difference <= 2).mean() >= 0.999
    assert verify(ours) == []


@on_every_device
@pytest.mark.parametrize("encoding", ["colour", "uv", "uvm"])
def test_a_store_agrees_with_that_of_opencv(walkers, tmp_path, encoding, make_device):
    gpu_run.run(walkers, tmp_path / "gpu.zarr", 1, encoding=encoding, make_device=make_device)
    make_on_cpu(walkers, tmp_path / "cpu.zarr", encoding=encoding)
    assert_agree(tmp_path / "gpu.zarr", tmp_path / "cpu.zarr")
    assert clips(tmp_path / "gpu.zarr").std() > 1
    attributes = open_store(tmp_path / "gpu.zarr").attributes
    assert (attributes["recipe"]["flow"], attributes["encoding"]) == ("cuda", encoding)


def test_silhouette_and_flow_are_made_together(walkers, tmp_path):
    gpu_run.run(walkers, tmp_path / "gpu.zarr", 1, kind=SilhouetteFlowRecipe)
    make_on_cpu(walkers, tmp_path / "cpu.zarr", kind=SilhouetteFlowRecipe)
    assert_agree(tmp_path / "gpu.zarr", tmp_path / "cpu.zarr")
    assert open_store(tmp_path / "gpu.zarr").frame_shape == (64, 64, 4)


@pytest.mark.parametrize("gap", ["skip", "bridge"])
def test_damaged_input_costs_the_same_as_on_the_cpu(damaged, tmp_path, gap):
    summary = gpu_run.run(damaged, tmp_path / "gpu.zarr", 1, gap=gap)
    expected = make_on_cpu(damaged, tmp_path / "cpu.zarr", gap=gap)
    assert_agree(tmp_path / "gpu.zarr", tmp_path / "cpu.zarr")
    assert summary.skipped == expected.skipped
    assert {"unreadable picture", "no matching frame number", "no silhouettes"} <= set(summary.skipped)


def test_the_bytes_do_not_depend_on_the_number_of_processes_and_each_gpu_has_its_own(
    damaged, undisturbed, tmp_path, monkeypatch
):
    """Other numbers of reading threads are those of other tests below."""
    monkeypatch.setenv("DEVICE_PROCESSES", str(tmp_path / "processes"))
    heard, out = Heard(), tmp_path / "out"
    out.mkdir()
    gpu_run.run(damaged, out / "w.zarr", 3, heard, num_readers=1, make_device=devices.noted_device)
    assert fakes.tree(out) == undisturbed
    # One picture less than frames; the fifth walk has no silhouettes, the third one fewer.
    planned = sum(4 + i % 4 for i in range(NUM_WALKS) if i != 4) - 1
    assert (heard.counts[0], heard.counts[-1]) == ((0, planned), (planned, planned))
    # No device is made in the process that waits for the others.
    processes = (tmp_path / "processes").read_text().split()
    assert len(set(processes)) == len(processes) == 3
    assert str(os.getpid()) not in processes


@on_every_device
def test_a_device_that_reads_at_the_last_moment_makes_the_same_bytes(damaged, undisturbed, tmp_path, make_device):
    """On a GPU slightly other values are right, so two runs must agree."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    late = devices.late_device if make_device is devices.host_device else make_device
    if make_device is not devices.host_device:
        gpu_run.run(damaged, tmp_path / "first" / "w.zarr", 1, make_device=make_device, num_readers=1)
        undisturbed = fakes.tree(tmp_path / "first")
    gpu_run.run(damaged, tmp_path / "second" / "w.zarr", 1, make_device=late, num_readers=3)
    assert fakes.tree(tmp_path / "second") == undisturbed


def test_threads_that_read_make_the_bytes_that_processes_make(damaged, undisturbed, tmp_path, monkeypatch):
    asked = []

    def by_threads(*arguments, in_processes, **options):
        asked.append(in_processes)
        make_shards(*arguments, in_processes=False, **options)

    monkeypatch.setattr(gpus, "make_shards", by_threads)
    monkeypatch.setattr(gpus, "run_in_workers", lambda function, works, **more: [function(work) for work in works])
    gpu_run.run(damaged, tmp_path / "w.zarr", 1)
    assert asked == [True]
    assert fakes.tree(tmp_path) == undisturbed


def run_script(root, out, num_gpus, **environment):
    arguments = [sys.executable, str(SUPPORT / "gpu_run.py"), str(root), str(out), str(num_gpus)]
    return subprocess.run(
        arguments,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1200,
        start_new_session=True,
    )


def test_killed_again_and_again_a_run_continues_to_the_same_bytes(damaged, undisturbed, tmp_path):
    out, kept = tmp_path / "w.zarr", []
    # The plan; then a shard and its record, for each shard; then what finishes the store.
    for i, (last, whom, num_gpus) in enumerate([(1, "parent", 1), (2, "parent", 1), (5, "group", 2), (3, "parent", 2)]):
        counter = tmp_path.with_name(f"{tmp_path.name}-{i}")
        done = run_script(damaged, out, num_gpus, STORE_KILL=f"{last} {whom}", STORE_KILL_COUNTER=str(counter))
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        kept.append(WorkFolder(work_path(out)).num_records())
    assert kept[0] == 0
    assert kept == sorted(kept)
    assert kept[-1] >= 3, kept
    summary = gpu_run.run(damaged, out, 1)
    assert summary.written.num_shards_reused >= 3
    assert fakes.tree(tmp_path) == undisturbed


def test_stopped_half_way_a_run_continues_to_the_same_bytes(damaged, undisturbed, tmp_path):
    def stop(done):
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"stopped; \d of \d shards are kept"):
        gpu_run.run(damaged, tmp_path / "w.zarr", 1, Heard(stop))
    assert multiprocessing.active_children() == []
    gpu_run.run(damaged, tmp_path / "w.zarr", 2)
    assert fakes.tree(tmp_path) == undisturbed


def test_a_file_that_is_gone_meanwhile_is_said_as_on_the_cpu_and_costs_nothing_that_is_done(
    damaged, undisturbed, tmp_path
):
    root = tmp_path / "copy"
    shutil.copytree(damaged, root)
    gone = walks.picture(root, "rgb", f"{NUM_WALKS:03d}/nm-01/090", 2)

    def remove(done):
        if gone.exists():
            gone.rename(gone.with_suffix(".away"))

    (tmp_path / "out").mkdir()
    with pytest.raises(AttenGaitError) as found:
        gpu_run.run(root, tmp_path / "out" / "w.zarr", 1, Heard(remove))
    assert re.match(
        rf"{gone} can no longer be read: No such file or directory; \d of \d shards are kept", str(found.value)
    )
    assert multiprocessing.active_children() == []
    gone.with_suffix(".away").rename(gone)
    gpu_run.run(root, tmp_path / "out" / "w.zarr", 1)
    made = fakes.tree(tmp_path / "out")
    # JSON writes letters outside ASCII in another way.
    here, there = (json.dumps(str(path))[1:-1].encode() for path in (root, damaged))
    made["w.zarr.skipped.jsonl"] = made["w.zarr.skipped.jsonl"].replace(here, there)
    assert made == undisturbed


def test_a_gpu_that_fails_stops_the_others_with_one_sentence(damaged, tmp_path):
    sentence = r"^GPU 1 \(host\) failed: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure; 0 of \d shards are kept"
    with pytest.raises(AttenGaitError, match=sentence):
        gpu_run.run(damaged, tmp_path / "w.zarr", 2, make_device=devices.failing_device, num_readers=1)
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_is_said(damaged, tmp_path):
    with pytest.raises(AttenGaitError, match=r"^a worker process died.*; 0 of \d shards are kept"):
        gpu_run.run(damaged, tmp_path / "w.zarr", 2, make_device=devices.dying_device)
    assert multiprocessing.active_children() == []


def test_every_shard_is_taken_by_one_process(tmp_path):
    tasks = [SimpleNamespace(shard=i, temporary=tmp_path) for i in range(7)]
    one, other = claimed(tasks), claimed(tasks)
    taken = [next(one).shard, next(other).shard, next(other).shard, next(one).shard]
    assert taken == [0, 1, 2, 3]
    assert [task.shard for task in other] == [4, 5, 6]
    assert list(one) == []


def test_videos_are_read_as_on_the_cpu_also_after_a_kill(tmp_path):
    walker = SynthConfig(subjects=2, walks=("nm-01",), views=(90,), frames=7, video=True, workers=2)
    write_walkers(tmp_path, walker)
    # The plan, a shard, its record. No process outlives the kill: the script's output ends with the last of them.
    done = run_script(
        tmp_path, tmp_path / "gpu.zarr", 1, STORE_KILL="3 parent", STORE_KILL_COUNTER=str(tmp_path / "counter")
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    summary = gpu_run.run(tmp_path, tmp_path / "gpu.zarr", 1)
    assert (summary.written.num_frames, summary.written.num_shards_reused) == (12, 1)
    make_on_cpu(tmp_path, tmp_path / "cpu.zarr", frames="video")
    assert_agree(tmp_path / "gpu.zarr", tmp_path / "cpu.zarr")
    assert open_store(tmp_path / "gpu.zarr").attributes["frames_from"] == "video"


@pytest.mark.skipif(jpeg.missing() is not None, reason=str(jpeg.missing()))
def test_jpeg_is_decoded_by_dali_and_by_opencv_where_dali_is_missing(tmp_path, monkeypatch, caplog):
    for i in range(2):
        walks.write_walk(tmp_path, f"00{i + 1}", "nm-01", 7, seed=i, suffix="jpg")
    broken = walks.picture(tmp_path, "rgb", "001/nm-01/090", 1, "jpg")
    broken.write_bytes(broken.read_bytes()[:20] + bytes(180) + broken.read_bytes()[200:])
    gpu_run.run(tmp_path, tmp_path / "dali.zarr", 1)
    assert "OpenCV decodes" not in caplog.text
    monkeypatch.setattr(jpeg, "missing", lambda: "the decoders are gone")
    with caplog.at_level(logging.WARNING):
        gpu_run.run(tmp_path, tmp_path / "opencv.zarr", 1)
    said = "OpenCV decodes the JPEG pictures, on the CPU: the decoders are gone"
    assert [record.getMessage() for record in caplog.records] == [said]
    np.testing.assert_array_equal(clips(tmp_path / "dali.zarr"), clips(tmp_path / "opencv.zarr"))
    assert_agree(tmp_path / "dali.zarr", tmp_path / "opencv.zarr")
    versions = [open_store(tmp_path / name).attributes["versions"] for name in ("dali.zarr", "opencv.zarr")]
    assert [any("dali" in package for package in each) for each in versions] == [True, False]
    assert versions[0] == versions[1] | jpeg.versions()


@pytest.mark.skipif(jpeg.missing() is not None, reason=str(jpeg.missing()))
def test_pictures_that_dali_refuses_are_counted_in_the_store_and_its_report(tmp_path):
    walks.write_walk(tmp_path, "001", "nm-01", 7, seed=1, suffix="jpg")
    for number in (2, 5):
        picture = walks.picture(tmp_path, "rgb", "001/nm-01/090", number, "jpg")
        picture.write_bytes(cv2.imencode(".ras", cv2.imread(str(picture)))[1].tobytes())
    summary = gpu_run.run(tmp_path, tmp_path / "w.zarr", 1)
    assert summary.written.num_frames == 6
    said = "picture that DALI refused, decoded by OpenCV"
    assert f"noted, {said}: 2 frames in 1 sequence, such as 001/nm-01/090: nvImageCodec failure: '#4'" in str(summary)
    assert list(open_store(tmp_path / "w.zarr").attributes["noted"]) == [said]
    (line,) = (tmp_path / "w.zarr.skipped.jsonl").read_text().splitlines()
    assert (json.loads(line)["reason"], json.loads(line)["frames"]) == (said, [2, 5])


def test_where_the_frames_are_png_no_decoder_is_recorded(undisturbed):
    assert "dali" not in json.dumps(json.loads(undisturbed["w.zarr/zarr.json"])["attributes"]["versions"])
