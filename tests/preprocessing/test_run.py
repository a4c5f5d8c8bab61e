"""From folders laid out as CASIA-B to a store: what comes out, what is reported, what is refused."""

import dataclasses
import json
import os
import shlex
import shutil
from importlib import import_module

import cv2
import numpy as np
import pytest

from attengait.datasets import DATASETS, Folders, casia_b
from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.farneback import cpu as farneback_cpu
from attengait.kernels.flow.backends import BACKENDS
from attengait.kernels.pictures.encode import encode_silhouette
from attengait.preprocessing import run as run_module
from attengait.preprocessing.executors import LocalProcesses
from attengait.preprocessing.flow import FlowRecipe, SilhouetteFlowRecipe
from attengait.preprocessing.run import PreprocessConfig, plan_preprocessing, run_preprocessing
from attengait.preprocessing.silhouette import SilhouetteRecipe
from attengait.store import open_store, summarise
from attengait.store.layout import report_location, work_path
from attengait.store.skipped import NothingMadeError, Reason, count_skipped, lines_of
from attengait.store.verify import verify
from attengait.store.workfolder import WorkFolder

casia, fakes, walks = map(import_module, ("casia", "store_fakes", "walks"))
Heard = import_module("heard").Heard
picture, write_walk = walks.picture, walks.write_walk


@pytest.fixture(scope="module")
def walkers(tmp_path_factory):
    """Five walks, of which two are sound; to be read only."""
    root = tmp_path_factory.mktemp("walkers")
    for i, (subject, walk) in enumerate([("001", "nm-01"), ("001", "bg-01"), ("002", "nm-01"), ("003", "nm-01")]):
        write_walk(root, subject, walk, 9, seed=i)
    write_walk(root, "004", "nm-01", 5, seed=9)
    shutil.rmtree(root / "silh" / "003")
    picture(root, "silh", "002/nm-01/090", 9).unlink()
    damaged = picture(root, "rgb", "001/bg-01/090", 1)
    damaged.write_bytes(damaged.read_bytes()[:100])
    return root


def config_of(root, out, *, workers=1, frames="rgb", **changes):
    """A configuration for the walkers in `root`; without `frames` for silhouettes alone."""
    folders = Folders(frames=frames and root / frames, silhouettes=root / "silh")
    settings = {"recipe": FlowRecipe(), "chunk_frames": 4, **changes}
    executor = LocalProcesses(num_workers=workers)
    return PreprocessConfig(**{"dataset": "casia-b", "folders": folders, "out": out, "executor": executor} | settings)


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


@pytest.mark.parametrize("encoding", ["uv", "uvm"])
def test_another_encoding_is_stored_with_its_channels_and_scale(walkers, tmp_path, encoding):
    out, recipe = tmp_path / "w.zarr", FlowRecipe(encoding=encoding)
    run_preprocessing(config_of(walkers, out, recipe=recipe))
    store = open_store(out)
    assert store.frame_shape == recipe.frame_shape
    assert (store.attributes["modality"], store.attributes["encoding"]) == ("flow", encoding)
    assert (store.attributes["encoding_steps_per_px"], store.attributes["encoding_offset"]) == (8, 128)
    assert store.attributes["recipe"]["encoding"] == encoding
    summary = summarise(store)
    assert (summary["encoding"], summary["encoding_steps_per_px"]) == (encoding, 8)
    first = casia.find(walkers / "rgb", walkers / "silh").sequences[0]
    with store.reader() as reader:
        (clip,) = reader.read_clips(store.sequences.start[:1], store.sequences.length[:1])
    np.testing.assert_array_equal(clip, recipe.make(first).pictures)
    assert verify(out) == []
    with pytest.raises(ParameterError, match=f"encoding is 'colour', but must be '{encoding}'"):
        run_preprocessing(config_of(walkers, out))


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


def test_silhouettes_that_changed_since_are_noticed_and_other_frames_do_not_matter(walkers, tmp_path):
    copy, out = tmp_path / "copy", tmp_path / "s.zarr"
    shutil.copytree(walkers, copy)
    changes = {"frames": None, "recipe": SilhouetteRecipe()}
    run_preprocessing(config_of(copy, out, **changes))
    shutil.rmtree(copy / "rgb")
    assert run_preprocessing(config_of(copy, out, **changes)).written.already_finished
    picture(copy, "silh", "001/nm-01/090", 3).unlink()
    with pytest.raises(AttenGaitError, match=r"was made from another input"):
        run_preprocessing(config_of(copy, out, **changes))


def test_silhouettes_stopped_half_way_are_continued_to_the_same_bytes(walkers, tmp_path):
    class Stop(KeyboardInterrupt):
        pass

    def stop(done):
        if any((tmp_path / "stopped.zarr.work" / "records").glob("*.json")):  # a shard is done
            raise Stop

    changes = {"frames": None, "recipe": SilhouetteRecipe()}
    run_preprocessing(config_of(walkers, tmp_path / "whole.zarr", **changes))
    with pytest.raises(Stop):
        run_preprocessing(config_of(walkers, tmp_path / "stopped.zarr", **changes), Heard(stop))
    summary = run_preprocessing(config_of(walkers, tmp_path / "stopped.zarr", **changes))
    assert summary.written.num_shards_reused > 0
    assert fakes.tree(tmp_path / "stopped.zarr") == fakes.tree(tmp_path / "whole.zarr")


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


def test_a_data_set_may_add_columns_of_its_own(walkers, tmp_path, monkeypatch):
    def scan(folders):
        found = casia_b.scan(folders)
        cameras = (
            dataclasses.replace(s, columns={"camera": f"c{i}", "year": 2000 + i}) for i, s in enumerate(found.sequences)
        )
        return dataclasses.replace(found, sequences=tuple(cameras))

    monkeypatch.setitem(DATASETS, "cameras", dataclasses.replace(DATASETS["casia-b"], scan=scan))
    out = tmp_path / "w.zarr"
    run_preprocessing(config_of(walkers, out, dataset="cameras"))
    store = open_store(out)
    assert store.attributes["columns"] == ["camera", "year"]
    assert store.sequences.extra["camera"].tolist() == ["c0", "c1", "c2"]
    assert store.sequences.columns["year"].tolist() == [2000, 2001, 2002]
    assert verify(out) == []
    # Another camera is another input.
    monkeypatch.setitem(DATASETS, "cameras", DATASETS["casia-b"])
    with pytest.raises(AttenGaitError, match=r"was made from another input"):
        run_preprocessing(config_of(walkers, out, dataset="cameras"))


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


def test_the_summary_names_the_flow(walkers, tmp_path):
    flow = run_preprocessing(config_of(walkers, tmp_path / "flow.zarr"))
    assert " frames (flow by opencv, " in str(flow)
    silhouettes = config_of(walkers, tmp_path / "silhouettes.zarr", frames=None, recipe=SilhouetteRecipe())
    assert "flow" not in str(run_preprocessing(silhouettes)).splitlines()[0].partition("(")[2]


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
