"""Settings and input of which no store can be made are an error that says why and leaves no store."""

import json
import os
import shlex
import shutil
from importlib import import_module

import cv2
import pytest

from attengait.datasets import Folders
from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.farneback import cpu as farneback_cpu
from attengait.kernels.flow.backends import BACKENDS
from attengait.preprocessing import run as run_module
from attengait.preprocessing.flow import FlowRecipe
from attengait.preprocessing.run import run_preprocessing
from attengait.preprocessing.silhouette import SilhouetteRecipe
from attengait.store.layout import report_location
from attengait.store.skipped import NothingMadeError, count_skipped, lines_of

casia, walks = import_module("casia"), import_module("walks")
config_of, picture, write_walk = casia.config_of, walks.picture, walks.write_walk


def test_frames_are_needed_for_flow_and_refused_for_silhouettes(walkers, tmp_path):
    needs = (
        r"^frames is missing, .*: the modality flow needs the folder of the frames; the modality silhouette does not$"
    )
    with pytest.raises(ParameterError, match=needs):
        config_of(walkers, tmp_path / "w.zarr", frames=None)
    with pytest.raises(ParameterError, match=r"^frames is .*rgb', but must be left out: the modality silhouette"):
        config_of(walkers, tmp_path / "w.zarr", recipe=SilhouetteRecipe())
    folders = Folders(frames=walkers / "rgb", silhouettes=walkers / "silh", files=walkers / "rgb")
    with pytest.raises(ParameterError, match=r"^files is .*rgb', but must be left out: casia-b takes"):
        config_of(walkers, tmp_path / "w.zarr", folders=folders)


@pytest.mark.skipif(BACKENDS["cpu"].missing() is not None, reason="no C++ compiler")
def test_code_that_does_not_compile_is_said_before_anything_is_made(walkers, tmp_path, monkeypatch):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho error: unknown option -march=native >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", shlex.quote(str(compiler)))
    farneback_cpu._library.cache_clear()
    with pytest.raises(AttenGaitError, match=r"could not compile farneback\.cpp: error: unknown option -march=native$"):
        run_preprocessing(config_of(walkers, tmp_path / "w.zarr", recipe=FlowRecipe(flow="cpu")))
    assert list(tmp_path.iterdir()) == [compiler]


def test_bad_parameters_are_refused_before_anything_is_read(walkers, tmp_path):
    for changes, sentence in (
        ({"dataset": "casia-z"}, "dataset .*casia-z"),
        ({"workers": 0}, "workers is 0"),
        ({"codec": "gzip"}, "codec is 'gzip'"),
        ({"chunk_frames": 0}, "chunk_frames is 0"),
    ):
        with pytest.raises(ParameterError, match=sentence):
            config_of(tmp_path / "nowhere", tmp_path / "w.zarr", **changes)


def test_a_mistyped_path_is_said_and_nothing_is_made(walkers, tmp_path):
    with pytest.raises(AttenGaitError, match=r"the folder of frames .* does not exist"):
        run_preprocessing(config_of(tmp_path / "nowhere", tmp_path / "w.zarr"))
    with pytest.raises(AttenGaitError, match="nowhere does not exist: make this folder first"):
        run_preprocessing(config_of(walkers, tmp_path / "nowhere" / "w.zarr"))
    assert list(tmp_path.iterdir()) == []


def test_input_of_which_nothing_can_be_used_is_an_error_with_reasons(tmp_path):
    write_walk(tmp_path / "walkers", "001", "nm-01", 4, seed=0)
    with pytest.raises(AttenGaitError, match=r"nothing came out of 1 sequence \(too few pictures: 1\)"):
        run_preprocessing(config_of(tmp_path / "walkers", tmp_path / "w.zarr"))
    assert json.loads(report_location(tmp_path / "w.zarr").path.read_text())["reason"] == "too few pictures"
    assert not (tmp_path / "w.zarr").exists()


def test_folders_without_a_common_sequence_are_an_error_with_reasons(tmp_path):
    for side, subject in (("rgb", "001"), ("silh", "002")):
        write_walk(tmp_path / subject, subject, "nm-01", 6, seed=0)
        shutil.copytree(tmp_path / subject / side, tmp_path / "walkers" / side)
    with pytest.raises(AttenGaitError, match=r"modality flow \(no silhouettes: 1; no frames: 1\)"):
        run_preprocessing(config_of(tmp_path / "walkers", tmp_path / "w.zarr"))
    assert not (tmp_path / "w.zarr").exists()


@pytest.mark.parametrize("what", ["delete", "truncate", "replace", "delete the folder"])
@pytest.mark.parametrize("recipe", [FlowRecipe(), SilhouetteRecipe()])
def test_input_that_vanishes_or_changes_after_the_plan_is_an_error_and_commits_nothing(
    walkers, tmp_path, monkeypatch, what, recipe
):
    copy, out = tmp_path / "copy", tmp_path / "w.zarr"
    shutil.copytree(walkers, copy)
    file = picture(copy, "silh", "001/nm-01/090", 4)

    def spoil():
        if what == "delete":
            file.unlink()
        elif what == "truncate":
            os.truncate(file, 70)
        elif what == "replace":
            shutil.copy(picture(copy, "silh", "001/nm-01/090", 6), file)
        else:
            shutil.rmtree(copy / "silh")

    def planned(config):
        found = real_plan(config)
        spoil()
        return found

    real_plan = run_module._plan
    monkeypatch.setattr(run_module, "_plan", planned)
    frames = "rgb" if recipe.flow else None
    with pytest.raises(AttenGaitError, match=r"(can no longer be read|changed during the run).*run the same command"):
        run_preprocessing(config_of(copy, out, recipe=recipe, frames=frames))
    assert not (out / "zarr.json").exists()
    records = [json.loads(path.read_text()) for path in (tmp_path / "w.zarr.work" / "records").glob("*.json")]
    assert not any("nm-01" in json.dumps(record) and '"001"' in json.dumps(record) for record in records)


def test_when_nothing_comes_out_the_reasons_are_those_of_a_success(tmp_path):
    write_walk(tmp_path, "001", "nm-01", 9, seed=0)
    for path in (tmp_path / "silh").rglob("*.png"):
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), 0), None, fx=0.5, fy=0.5))
    sizes = "the silhouette has 40 x 24 pixels, the frame 80 x 48"
    with pytest.raises(NothingMadeError, match=f"wrong size: 8 frames in 1 sequence.*{sizes}") as caught:
        run_preprocessing(config_of(tmp_path, tmp_path / "w.zarr"))
    assert lines_of(count_skipped(caught.value.skipped)) == [
        f"skipped, wrong size: 8 frames in 1 sequence, such as 001/nm-01/090: {sizes}",
        "skipped, too few pictures: 1, such as 001/nm-01/090: 0 pictures came out, but 5 or more are needed",
    ]
