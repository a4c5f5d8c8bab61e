"""From folders laid out as CASIA-B to a store: what it holds, what is reported, what another run does to it."""

import dataclasses
import json
import os
import shutil
from importlib import import_module

import cv2
import numpy as np
import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.flow.backends import BACKENDS
from attengait.kernels.pictures.encode import encode_silhouette
from attengait.preprocessing import run as run_module
from attengait.preprocessing.flow import FlowRecipe, SilhouetteFlowRecipe
from attengait.preprocessing.run import plan_preprocessing, run_preprocessing
from attengait.preprocessing.silhouette import SilhouetteRecipe
from attengait.store import open_store, summarise
from attengait.store.layout import report_location, work_path
from attengait.store.skipped import Reason
from attengait.store.verify import verify
from attengait.store.workfolder import WorkFolder

casia, fakes, walks = map(import_module, ("casia", "store_fakes", "walks"))
Heard = import_module("heard").Heard
config_of, picture = casia.config_of, walks.picture


@pytest.fixture(scope="module")
def made(walkers, tmp_path_factory):
    """The store of the walkers, to be read only, and the summary of making it."""
    out = tmp_path_factory.mktemp("made") / "w.zarr"
    heard = Heard()
    summary = run_preprocessing(config_of(walkers, out), heard)
    assert heard.counts[0] == (0, 8 + 8 + 7 + 4)
    assert heard.counts[-1] == (27, 27)
    return out, summary


def test_the_store_holds_what_the_recipe_gives_for_each_sequence(walkers, made):
    store = open_store(made[0])
    results = {}
    for sequence in casia.find(walkers / "rgb", walkers / "silh").sequences:
        images = FlowRecipe().make(sequence).pictures
        if len(images):
            results[sequence.name] = images
    assert [store.sequences.name(i) for i in range(len(store.sequences))] == list(results)
    assert list(results) == ["001/bg-01/090", "001/nm-01/090", "002/nm-01/090"]
    with store.reader() as reader:
        clips = reader.read_clips(store.sequences.start, store.sequences.length)
    for clip, images in zip(clips, results.values(), strict=True):
        np.testing.assert_array_equal(clip, images)
        assert clip.std() > 0
    assert verify(made[0]) == []


def test_the_attributes_hold_recipe_and_versions(made):
    attributes = open_store(made[0]).attributes
    assert (attributes["dataset"], attributes["modality"], attributes["encoding"]) == ("casia-b", "flow", "colour")
    assert attributes["recipe"] == json.loads(json.dumps(FlowRecipe().to_dict()))
    assert set(attributes["versions"]) == {"attengait", "opencv", "numpy", "zarr", "numcodecs"}


def test_what_was_skipped_is_reported_and_counted(made):
    out, summary = made
    lines = [json.loads(line) for line in report_location(out).path.read_text().splitlines()]
    assert lines == [each.to_dict() for each in summary.written.skipped]
    reasons = {(line["where"], line["reason"]) for line in lines}
    assert reasons == {
        ("003/nm-01/090", "no silhouettes"),
        ("001/bg-01/090", "unreadable picture"),
        ("002/nm-01/090", "no matching frame number"),
        ("004/nm-01/090", "too few pictures"),
    }
    assert (
        summary.skipped["no matching frame number"].entries,
        summary.skipped["no matching frame number"].frames,
    ) == (
        1,
        1,
    )
    assert summary.skipped["too few pictures"].frames == 0
    text = str(summary)
    assert f"{out}: 3 sequences, {summary.written.num_frames} frames (" in text
    assert "skipped, no matching frame number: 1 frame in 1 sequence" in text
    assert f"details: {report_location(out).path}" in text


def test_a_colour_store_records_no_scale(made):
    store = open_store(made[0])
    assert not any(key.startswith("encoding_") for key in [*store.attributes, *summarise(store)])


def test_silhouettes_alone_give_a_picture_for_every_frame_with_a_walker(walkers, made, tmp_path):
    out = tmp_path / "s.zarr"
    changes = {"frames": None, "recipe": SilhouetteRecipe()}
    plan = plan_preprocessing(config_of(walkers, out, **changes))
    assert (plan.num_sequences, plan.max_frames, list(plan.skipped)) == (4, 9 + 9 + 8 + 5, [])
    summary = run_preprocessing(config_of(walkers, out, **changes))
    assert (summary.written.num_frames, summary.skipped) == (31, {})
    store = open_store(out)
    names = [store.sequences.name(i) for i in range(len(store.sequences))]
    assert names == ["001/bg-01/090", "001/nm-01/090", "002/nm-01/090", "004/nm-01/090"]
    assert store.sequences.length.tolist() == [9, 9, 8, 5]
    assert store.frame_shape == (64, 64, 1)
    assert (store.attributes["modality"], store.attributes["encoding"]) == ("silhouette", "gray")
    assert (summarise(store)["modality"], summarise(store)["recipe"]["name"]) == ("silhouette", "attengait-silhouette")
    with store.reader() as reader:
        (clip,) = reader.read_clips(store.sequences.start[:1], store.sequences.length[:1])
    silhouette = cv2.imread(str(picture(walkers, "silh", "001/bg-01/090", 1)), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(clip[0], encode_silhouette(silhouette, 64))
    assert verify(out) == []
    assert run_preprocessing(config_of(walkers, out, **changes)).written.already_finished
    with pytest.raises(ParameterError, match="modality is 'flow', but must be 'silhouette'"):
        run_preprocessing(config_of(walkers, out))


def test_one_run_makes_a_store_of_silhouette_and_flow(walkers, made, tmp_path):
    out = tmp_path / "both.zarr"
    summary = run_preprocessing(config_of(walkers, out, recipe=SilhouetteFlowRecipe()))
    store, flow = open_store(out), open_store(made[0])
    assert summary.flow == "opencv"
    assert (store.frame_shape, store.attributes["modality"]) == ((64, 64, 4), "silhouette+flow")
    assert store.attributes["channels"] == ["silhouette", "flow-r", "flow-g", "flow-b"]
    assert store.sequences.length.tolist() == flow.sequences.length.tolist()
    np.testing.assert_array_equal(store[0][..., 1:], flow[0])
    assert set(np.unique(store[0][:, :, :4, 0])) <= {0, 255}
    assert verify(out) == []


def test_frame_numbers_are_kept_of_pictures_and_silhouettes(walkers, made, tmp_path):
    store = open_store(made[0])
    assert store.frame_numbers(0).tolist() == [3, 4, 5, 6, 7, 8, 9]  # frame 1 is damaged
    assert store.frame_numbers(1).tolist() == list(range(2, 10))
    assert store.frame_times(0) is None
    out = tmp_path / "s.zarr"
    run_preprocessing(config_of(walkers, out, frames=None, recipe=SilhouetteRecipe()))
    assert open_store(out).frame_numbers(0).tolist() == list(range(1, 10))


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_copy_of_the_input_elsewhere_gives_the_same_bytes_whatever_the_workers(walkers, made, tmp_path, codec):
    shutil.copytree(walkers, tmp_path / "copy")
    run_preprocessing(config_of(tmp_path / "copy", tmp_path / "w.zarr", workers=2, codec=codec))
    if codec == "none":
        assert fakes.tree(tmp_path / "w.zarr") == fakes.tree(made[0])
    else:
        theirs, ours = open_store(made[0]), open_store(tmp_path / "w.zarr")
        np.testing.assert_array_equal(ours.sequences.crc32c, theirs.sequences.crc32c)


def test_a_dry_run_writes_nothing_and_says_how_large_it_gets(walkers, made, tmp_path):
    plan = plan_preprocessing(config_of(walkers, tmp_path / "w.zarr"))
    assert list(tmp_path.iterdir()) == []
    store = open_store(made[0])
    assert (plan.num_sequences, plan.max_frames) == (4, 27)
    assert (plan.num_shards, plan.shard_frames) == (store.layout.num_shards, store.shard_frames)
    shards = [path for path in (made[0] / "frames" / "c").rglob("0") if path.is_file()]
    assert plan.raw_bytes == sum(path.stat().st_size for path in shards)
    assert "4 sequences, at most 27 frames" in str(plan)
    assert "skipped, no silhouettes: 1" in str(plan)


def test_running_again_does_nothing_and_says_so(walkers, made):
    before = fakes.tree(made[0].parent)
    summary = run_preprocessing(config_of(walkers, made[0]))
    assert summary.written.already_finished
    assert "it was finished already, nothing was done" in str(summary)
    assert fakes.tree(made[0].parent) == before


def replace_backend(monkeypatch, name, **changes):
    monkeypatch.setitem(BACKENDS, name, dataclasses.replace(BACKENDS[name], **changes))


def test_a_backend_that_cannot_be_used_is_said_before_the_input_is_looked_at(walkers, made, tmp_path, monkeypatch):
    replace_backend(monkeypatch, "cuda", missing=lambda: "there is no GPU")
    config = config_of(tmp_path / "nowhere", tmp_path / "w.zarr", recipe=FlowRecipe(flow="cuda"))
    for run in (run_preprocessing, plan_preprocessing):
        with pytest.raises(AttenGaitError, match=r"^flow backend cuda cannot be used: there is no GPU$"):
            run(config)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_store_needs_no_backend(walkers, made, monkeypatch):
    replace_backend(monkeypatch, "opencv", missing=lambda: "there is no OpenCV")
    assert run_preprocessing(config_of(walkers, made[0])).written.already_finished


def test_versions_of_a_backend_s_packages_are_recorded(walkers, tmp_path, monkeypatch):
    replace_backend(monkeypatch, "opencv", packages=("pytest", "no-such-package"))
    run_preprocessing(config_of(walkers, tmp_path / "w.zarr"))
    assert open_store(tmp_path / "w.zarr").attributes["versions"]["pytest"] == pytest.__version__


@pytest.mark.parametrize("run", [run_preprocessing, plan_preprocessing])
def test_another_recipe_on_the_same_path_is_refused(walkers, made, tmp_path, run):
    begun = config_of(walkers, tmp_path / "begun.zarr")
    begin(begun)
    for path in (made[0], begun.out):
        with pytest.raises(ParameterError, match=r"recipe\.gap is 'bridge', but must be 'skip'"):
            run(config_of(walkers, path, recipe=FlowRecipe(gap="bridge")))


def begin(config):
    """Leave behind what a run killed right after planning leaves."""
    work = WorkFolder(work_path(config.out))
    work.path.mkdir()
    work.write_plan(run_module._plan(config)[2])


@pytest.mark.parametrize("run", [run_preprocessing, plan_preprocessing])
def test_input_that_changed_since_is_noticed(walkers, made, tmp_path, run):
    shutil.copytree(walkers, tmp_path / "copy")
    file = picture(tmp_path / "copy", "rgb", "001/nm-01/090", 3)
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(AttenGaitError, match=r"was made from another input"):
        run(config_of(tmp_path / "copy", made[0]))


def test_what_was_done_to_silhouettes_is_said_once_and_recorded(walkers, made, tmp_path):
    copy, out = tmp_path / "copy", tmp_path / "w.zarr"
    shutil.copytree(walkers, copy)
    for path in (copy / "silh").rglob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path), 0) // 255)
    summary = run_preprocessing(config_of(copy, out))
    assert summary.skipped[Reason.SILHOUETTE_VALUES].frames > 0
    (line,) = (line for line in str(summary).splitlines() if line.startswith("noted, "))
    noted = open_store(out).attributes["noted"]
    assert line == f"noted, silhouette with other values than 0 and 255: {noted[str(Reason.SILHOUETTE_VALUES)]}"
    assert line.endswith("its values 0 and 1 were read as 0 and 255")
    np.testing.assert_array_equal(open_store(out).sequences.crc32c, open_store(made[0]).sequences.crc32c)
    assert "noted" not in open_store(made[0]).attributes


def test_an_offset_of_the_numbers_is_recorded_and_gives_the_right_pairs(walkers, made, tmp_path):
    copy, out = tmp_path / "copy", tmp_path / "w.zarr"
    shutil.copytree(walkers, copy)
    for path in sorted((copy / "silh").rglob("*.png")):
        stem, _, number = path.stem.rpartition("-")
        path.rename(path.with_name(f"{stem}-{int(number) - 1:03d}.png"))
    with pytest.raises(
        ParameterError, match=r"silhouette_offset is missing, but must be given: .* silhouettes 0 to 8, frames 1 to 9"
    ):
        run_preprocessing(config_of(copy, out))
    run_preprocessing(config_of(copy, out, recipe=FlowRecipe(silhouette_offset=1)))
    store, expected = open_store(out), open_store(made[0])
    assert store.attributes["recipe"]["silhouette_offset"] == 1
    assert "silhouette_offset" not in expected.attributes["recipe"]
    np.testing.assert_array_equal(store.sequences.crc32c, expected.sequences.crc32c)
