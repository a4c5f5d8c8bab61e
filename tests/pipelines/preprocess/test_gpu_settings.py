"""Which GPUs and how many readers make a store, and what is refused before anything is made."""

import dataclasses
from importlib import import_module
from types import SimpleNamespace

import pytest

from attengait.datasets import Folders, Pictures
from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.flow.backends import BACKENDS, FarnebackParameters
from attengait.kernels.runtime.gpu import Driver, Gpu
from attengait.kernels.runtime.launch import host_missing
from attengait.pipelines.preprocess import gpus
from attengait.pipelines.preprocess import run as run_module
from attengait.pipelines.preprocess.gpus import GpuProcesses
from attengait.pipelines.preprocess.run import MOST_READERS, choose_executor
from attengait.preprocessing.flow import FlowRecipe
from attengait.preprocessing.run import PreprocessConfig, plan_preprocessing, run_preprocessing
from attengait.preprocessing.silhouette import SilhouetteRecipe

devices, gpu_run = import_module("host_devices"), import_module("gpu_run")

pytestmark = pytest.mark.skipif(host_missing() is not None, reason=str(host_missing()))


def test_what_is_not_flow_cuda_is_refused(tmp_path):
    engine = GpuProcesses(gpus=(0,), num_readers=1, make_device=devices.host_device)
    for recipe, what in ((FlowRecipe(), "flow is 'opencv'"), (SilhouetteRecipe(), "modality is 'silhouette'")):
        with pytest.raises(ParameterError, match=f"^{what}, but must be computed by the flow cuda to run on GPUs$"):
            engine.check(recipe)


def test_parameters_are_checked_before_the_input_is_looked_at(tmp_path):
    for changes, sentence in (
        ({"gpus": ()}, "but must be different numbers"),
        ({"gpus": (0, 0)}, "but must be different numbers"),
        ({"gpus": (-1,)}, "but must be different numbers"),
        ({"num_readers": 0}, "workers is 0, but must be at least 1"),
        ({"flow": "cpu"}, "flow is 'cpu', but must be cuda or nvof"),
    ):
        with pytest.raises(ParameterError, match=sentence):
            GpuProcesses(**{"gpus": (0,), "num_readers": 1, **changes})


def test_hardware_flow_runs_on_the_gpus_that_are_asked_for(monkeypatch, tmp_path):
    executor = choose_executor(FlowRecipe(flow="nvof"), gpus=[1, 2], workers=3)
    assert (executor.gpus, executor.flow, executor.num_readers) == ((1, 2), "nvof", 3)
    taken = []
    monkeypatch.setattr(gpus, "HardwareFlow", lambda parameters, gpu: taken.append(gpu))
    monkeypatch.setattr(gpus, "make_shards", lambda *arguments, **more: None)
    monkeypatch.setattr(gpus, "run_in_workers", lambda function, works, **more: [function(work) for work in works])
    executor.run(FlowRecipe(flow="nvof"), [SimpleNamespace(sequences=[])] * 2, lambda: None)
    assert taken == [1, 2]
    jpegs = SimpleNamespace(parts={"frames": Pictures.of("f", ["a-1.jpg"])})
    assert executor.versions([jpegs]) == {}  # OpenCV decodes
    with pytest.raises(ParameterError, match="flow is 'cuda', but must be computed by the flow nvof to run on GPUs"):
        executor.check(FlowRecipe(flow="cuda"))


def test_cores_are_shared_among_the_readers_of_gpus_unless_their_number_is_given(monkeypatch):
    for cores, chosen, expected in (
        (8, [0], 7),
        (8, [0, 1], 3),
        (1, [0], 1),
        (4, [0, 1, 2, 3], 1),
        (64, [0], MOST_READERS),
    ):
        monkeypatch.setattr(run_module, "usable_cores", lambda cores=cores: cores)
        assert choose_executor(FlowRecipe(flow="cuda"), gpus=chosen).num_readers == expected
    assert choose_executor(FlowRecipe(flow="cuda"), workers=40).num_readers == 40


def test_hardware_flow_of_another_gpu_than_the_recorded_one_is_refused(monkeypatch):
    def call(function, tasks, *, num_workers, on_result):
        for task in tasks:
            on_result(function(task))

    monkeypatch.setattr(gpus, "run_in_workers", call)
    monkeypatch.setattr(gpus.nvof, "missing", lambda gpu: "there is no GPU 3" if gpu == 3 else None)
    monkeypatch.setattr(gpus.nvof, "recorded_parameters", lambda gpu: {"device": "T4" if gpu == 2 else "H100"})
    for chosen, sentence in (
        ((1,), None),
        (
            (1, 2),
            r"^flow nvof on GPU 2 is \{'device': 'T4'\}, but the store records that of GPU 0, \{'device': 'H100'\}",
        ),
        ((3,), "^flow backend nvof cannot be used: there is no GPU 3$"),
    ):
        executor = GpuProcesses(gpus=chosen, num_readers=1, flow="nvof")
        if sentence is None:
            executor.check(FlowRecipe(flow="nvof"))
        else:
            with pytest.raises(AttenGaitError, match=sentence):
                executor.check(FlowRecipe(flow="nvof"))


def test_too_few_gpus_are_one_sentence_before_anything_is_made(tmp_path, monkeypatch):
    only_one = Driver(gpus=(Gpu(name="H100", memory_bytes=1 << 36, compute_capability=(9, 0)),))
    monkeypatch.setattr(gpus, "find_driver", lambda: only_one)
    monkeypatch.setitem(BACKENDS, "cuda", dataclasses.replace(BACKENDS["cuda"], missing=lambda: None))
    config = PreprocessConfig(
        dataset="casia-b",
        folders=Folders(frames=tmp_path / "nowhere", silhouettes=tmp_path / "nowhere"),
        out=tmp_path / "w.zarr",
        recipe=FlowRecipe(flow="cuda"),
        executor=GpuProcesses(gpus=(0, 1), num_readers=1),
    )
    for run in (run_preprocessing, plan_preprocessing):
        with pytest.raises(AttenGaitError, match=r"^there is no GPU 1: this machine has 1, counted from 0$"):
            run(config)
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_no_gpu_takes_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ParameterError, match="poly_n is 241, but must be at most 240 for flow cuda"):
        gpu_run.run(tmp_path, tmp_path / "w.zarr", 1, farneback=FarnebackParameters(poly_n=241))
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_it_is_said_as_for_any_backend(monkeypatch):
    sentence = "there is no GPU"
    absent = dataclasses.replace(BACKENDS["cuda"], missing=lambda: sentence)
    monkeypatch.setitem(BACKENDS, "cuda", absent)
    with pytest.raises(AttenGaitError, match=r"^flow backend cuda cannot be used: there is no GPU$"):
        GpuProcesses(gpus=(0,), num_readers=1).check(FlowRecipe(flow="cuda"))
