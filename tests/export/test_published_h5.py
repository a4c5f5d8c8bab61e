"""A store as the published program's HDF5 files, and back."""

from importlib import import_module
from pathlib import Path
from typing import Any

import foreign_files
import h5py
import numpy as np
import pytest
import small_stores
import store_fakes

from attengait.datasets import Folders
from attengait.datasets.published_h5 import LAYOUT, sequence_name, stem_of
from attengait.datasets.published_h5 import scan as scan_h5
from attengait.errors import AttenGaitError, ParameterError
from attengait.export import folder as export_folder
from attengait.export.published_h5 import export_h5
from attengait.preprocessing.arrays import ArrayRecipe
from attengait.preprocessing.run import PreprocessConfig, run_preprocessing
from attengait.store import open_store

Heard = import_module("heard").Heard

CASIA_B = (
    *(("001", "nm-01", "090"), ("005", "bg-02", "000"), ("074", "cl-01", "180")),
    *(("075", "nm-01", "018"), ("075", "nm-04", "036")),
    *(("075", "nm-05", "054"), ("124", "cl-02", "162")),
)
TRAIN, GALLERY, PROBES = (f"tfimdb_casiab_{part}_of30_64x64" for part in ("N074_train", "N050_ft", "N050_test"))


def import_files(source: str, folder: Path, out: Path, **options: Any) -> Path:
    recipe = ArrayRecipe(**options)
    run_preprocessing(PreprocessConfig(dataset=source, folders=Folders(files=folder), out=out, recipe=recipe))
    return out


def store_of(tmp_path: Path, names: Any, **options: Any) -> Path:
    random = np.random.default_rng(0)
    arrays = {name: random.integers(0, 256, (3 + i, 64, 64, 3), np.uint8) for i, name in enumerate(names)}
    folder = foreign_files.write_pickles(tmp_path / "in", arrays)
    return import_files("pickles", folder, tmp_path / "s.zarr", **({"shows": "flow", "dataset": "casia-b"} | options))


def listed(path: Path) -> dict[str, Any]:
    """The list as the package deepdish reads it: arrays, numbers, and names in a group."""
    with h5py.File(path, "r") as file:
        columns = {name: file[name][()] for name in ("label", "videoId", "gait", "cam")}
        group = file["file"].attrs
        kind, _, count = group["TITLE"].decode().partition(":")
        assert (kind, group["CLASS"], file.attrs["compressFactor"]) == ("list", b"GROUP", 0)
        return columns | {"file": [group[f"i{i}"].decode() for i in range(int(count))]}


def test_casia_b_lies_where_the_published_trainer_looks(tmp_path: Path) -> None:
    store = open_store(store_of(tmp_path, CASIA_B))
    summary = export_h5(store.path, tmp_path / "out", workers=2)
    assert (summary.num_sequences, summary.array_shape) == (7, "T x 64 x 64 x 3")
    found = {}
    for part in (TRAIN, GALLERY, PROBES):
        table = listed(tmp_path / "out" / f"{part}.h5")
        on_disk = sorted(path.name for path in (tmp_path / "out" / part).iterdir())
        assert sorted(table["file"]) == on_disk
        assert table["videoId"].tolist() == list(range(1, len(on_disk) + 1))
        for label, gait, camera, file in zip(*(table[key] for key in ("label", "gait", "cam", "file")), strict=True):
            name = subject, walk, view = tuple(file.removesuffix(".h5").split("_"))
            assert (label, camera, ("nm", "bg", "cl")[gait]) == (int(subject), int(view), walk[:2])
            found[name] = part
            with h5py.File(tmp_path / "out" / part / file, "r") as opened:
                data = np.zeros(opened["data"].shape, opened["data"].dtype)
                opened["data"].read_direct(data)  # as its loader reads
                assert (opened.attrs["label"], opened.attrs["cams"]) == (label, camera)
                assert opened["frames"][()].tolist() == list(range(len(data)))
            np.testing.assert_array_equal(data, store[name])
    assert found == dict(zip(CASIA_B, [TRAIN] * 3 + [GALLERY] * 2 + [PROBES] * 2, strict=True))


@pytest.mark.parametrize(
    ("names", "options", "part"),
    [
        (CASIA_B, {}, TRAIN),
        (CASIA_B[:2], {"shows": "rgb", "dataset": "mine"}, "tfimdb_mine_N00002_train_of30_64x64"),
        (
            [("00001", "01", "270"), ("00003", "00", "000")],
            {"dataset": "oumvlp"},
            "tfimdb_oumvlp_N00002_train_of30_64x64",
        ),
        (
            [("00001", "4XPn5Z28", "000"), ("unknown", "Ab3", "000"), ("70000", "x1", "000")],
            {"dataset": "grew"},
            "tfimdb_grew_N00003_train_of30_64x64",
        ),
    ],
)
def test_what_was_exported_comes_back_equal(tmp_path: Path, names: Any, options: Any, part: str) -> None:
    before = open_store(store_of(tmp_path, names, **options))
    export_h5(before.path, tmp_path / "out")
    labels = listed(tmp_path / "out" / f"{part}.h5")["label"].tolist()
    if part != TRAIN:
        known = before.sequences.subject.tolist()
        assert labels == [0 if subject == "unknown" else int(subject) for subject in known]
    after = open_store(import_files("h5", tmp_path / "out", tmp_path / "back.zarr"))
    frames, expected = foreign_files.contents_of(after), foreign_files.contents_of(before)
    assert frames.keys() == expected.keys() == set(names)
    for name in names:
        np.testing.assert_array_equal(frames[name], expected[name])
    for key in ("dataset", "modality", "encoding"):
        assert after.attributes[key] == before.attributes[key]
    assert after.attributes["recipe"]["exported_recipe"] == before.attributes["recipe"]


def test_links_are_followed_and_files_of_other_endings_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "h5"
    (tmp_path / "away").mkdir()
    (folder / "nested").mkdir(parents=True)
    for path in (folder / "001_nm-01_090.H5", folder / "nested/002_nm-01_090.hdf5", tmp_path / "away/003_nm-01_090.h5"):
        with h5py.File(path, "w") as file:
            file["data"] = np.zeros((3, 64, 64, 3), np.uint8)
    (folder / "linked").symlink_to(tmp_path / "away")
    (folder / "nested/loop").symlink_to(folder)
    for name in ("004_nm-01_090.hdf", "notes.txt"):
        (folder / "nested" / name).touch()
    scan = scan_h5(Folders(files=folder))
    assert [sequence.subject for sequence in scan.sequences] == ["001", "002", "003"]
    assert [(str(each.reason), each.where.removeprefix(f"{folder}/"), each.detail) for each in scan.skipped] == [
        ("link that leads back to where it is", "nested/loop", f"it leads to {folder}/"),
        ("foreign file", "nested", f"2 files are not laid out as {LAYOUT}; the first is 004_nm-01_090.hdf"),
    ]


@pytest.mark.parametrize("names", [("00001_AAA", "BBB"), ("00001_090_01", "00003_270_00")])
def test_published_flow_of_grew_and_oumvlp_gets_the_channels_of_all_stores(tmp_path: Path, names: Any) -> None:
    """The published program keeps ready flow images as OpenCV reads them."""
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    (tmp_path / "h5").mkdir()
    for stem in (*names, "001_nm-01_090"):
        with h5py.File(tmp_path / "h5" / f"{stem}.h5", "w") as file:
            file["data"] = images
    store = open_store(import_files("h5", tmp_path / "h5", tmp_path / "s.zarr"))
    for index in range(3):
        of_casia_b = store.sequences.name(index) == "001/nm-01/090"
        np.testing.assert_array_equal(store[index], images if of_casia_b else images[..., ::-1])
    assert store.attributes["recipe"]["turned_to_red_green_blue"] == 2
    (said,) = store.attributes["noted"].items()
    assert said[0] == "flow in blue, green, red, turned to red, green, blue"
    assert said[1].endswith("2 files have names of GREW or OUMVLP, whose flow the published program keeps so")
    other = open_store(import_files("h5", tmp_path / "h5", tmp_path / "uvm.zarr", encoding="uvm"))
    np.testing.assert_array_equal(other[1], images)


def test_a_part_of_an_export_is_known_as_one(tmp_path: Path) -> None:
    names = [("00001", "4XPn5Z28", "000"), ("unknown", "Ab3", "000")]
    before = open_store(store_of(tmp_path, names, dataset="grew"))
    export_h5(before.path, tmp_path / "out")
    part = tmp_path / "out/tfimdb_grew_N00002_train_of30_64x64"
    after = open_store(import_files("h5", part, tmp_path / "back.zarr"))
    assert (after.attributes["dataset"], "noted" in after.attributes) == ("grew", False)
    np.testing.assert_array_equal(after[names[0]], before[names[0]])


def test_every_published_name_has_its_inverse() -> None:
    for name in (*CASIA_B, ("00001", "01", "270"), ("00001", "4XPn5Z28", "000"), ("unknown", "4XPn5Z28", "000")):
        stem = stem_of(*name)
        assert stem is not None
        assert sequence_name(stem) == name
    assert stem_of("anna", "nm-01", "090") is None
    assert stem_of("001", "nm-01", "90") is None


def test_a_stopped_run_is_continued_and_ends_in_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path, CASIA_B)
    monkeypatch.setattr(export_folder, "_TASK_FRAMES", 1)  # a task for each file
    export_h5(store, tmp_path / "undisturbed")

    def stop(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"stopped; [1-7] of 7 files are kept: run the same command again"):
        export_h5(store, tmp_path / "out", progress=Heard(stop))
    assert not (tmp_path / "out").exists()
    assert export_h5(store, tmp_path / "out").num_reused > 0
    assert store_fakes.tree(tmp_path / "out") == store_fakes.tree(tmp_path / "undisturbed")
    assert "finished already, nothing was done" in str(export_h5(store, tmp_path / "out"))
    (tmp_path / "out" / f"{TRAIN}.h5").unlink()
    with pytest.raises(AttenGaitError, match=f"lacks 1 of its files, such as {TRAIN}.h5"):
        export_h5(store, tmp_path / "out")


def test_what_the_published_program_cannot_take_is_refused(tmp_path: Path) -> None:
    small_stores.make_store(tmp_path / "grey.zarr", frame_shape=(64, 64, 1))
    small_stores.make_store(tmp_path / "names.zarr", frame_shape=(64, 64, 3), subjects=["anna"] * 5, lengths=(3,))
    with pytest.raises(AttenGaitError, match="has images of 64 x 64 x 1, but the published program takes 64 x 64 x 3"):
        export_h5(tmp_path / "grey.zarr", tmp_path / "out")
    with pytest.raises(AttenGaitError, match="the sequence 'anna/nm-01/090' has no name in the published layouts"):
        export_h5(tmp_path / "names.zarr", tmp_path / "out")
    with pytest.raises(ParameterError, match="workers is 0"):
        export_h5(tmp_path / "names.zarr", tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()
