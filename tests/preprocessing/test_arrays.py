"""Stores from OpenGait's pickles and from the published program's HDF5 files."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import foreign_files
import h5py
import numpy as np
import pytest

from attengait.datasets import Folders, opengait
from attengait.datasets import published_h5 as hdf5
from attengait.errors import AttenGaitError, ParameterError
from attengait.preprocessing.arrays import ArrayRecipe
from attengait.preprocessing.executors import LocalProcesses
from attengait.preprocessing.run import PreprocessConfig, plan_preprocessing, run_preprocessing
from attengait.report.contact_sheet import contact_sheet
from attengait.store import open_store, summarise
from attengait.store.description import Description, describe, to_json
from attengait.store.verify import verify


def config(tmp_path: Path, source: str = "pickles", **options: Any) -> PreprocessConfig:
    """Options of the recipe (`modality` is `shows`), of the configuration, `workers`, `folder` and `file`."""
    folders = Folders(files=options.pop("folder", tmp_path / "in"), pattern=options.pop("file", None))
    names = {"dataset": "dataset", "modality": "shows", "encoding": "encoding", "pad": "pad"}
    recipe = ArrayRecipe(**{names[name]: options.pop(name) for name in list(options) if name in names})
    executor = LocalProcesses(num_workers=options.pop("workers", 1))
    settings = {"out": tmp_path / "s.zarr", **options}
    return PreprocessConfig(dataset=source, folders=folders, recipe=recipe, executor=executor, **settings)


def same(contents: dict[Any, Any], expected: dict[Any, Any]) -> None:
    assert contents.keys() == expected.keys()
    for name, frames in contents.items():
        np.testing.assert_array_equal(frames, expected[name], err_msg=str(name))


def test_silhouettes_come_in_as_they_are_into_a_store_that_everything_reads(tmp_path: Path) -> None:
    arrays = foreign_files.arrays(64, 64)
    foreign_files.write_pickles(tmp_path / "in", arrays)
    summary = run_preprocessing(config(tmp_path, workers=2, dataset="mine"))
    assert (summary.written.num_sequences, summary.written.num_frames, summary.skipped) == (4, 69, {})
    store = open_store(tmp_path / "s.zarr")
    same(foreign_files.contents_of(store), {name: array[..., None] for name, array in arrays.items()})
    assert verify(tmp_path / "s.zarr") == []
    assert len(contact_sheet(store, tmp_path / "sheet.png")) == 4
    known = summarise(store)
    assert (known["dataset"], known["modality"], known["encoding"]) == ("mine", "silhouette", "gray")
    assert (known["frames_from"], known["recipe"]["name"]) == ("pickles", "import-pickles")
    assert "nothing was done" in str(run_preprocessing(config(tmp_path, dataset="mine")))
    with pytest.raises(ParameterError, match="dataset"):
        run_preprocessing(config(tmp_path, dataset="another"))


@pytest.mark.parametrize(("pad", "shape"), [(True, (64, 64, 1)), (False, (64, 44, 1))])
def test_narrow_silhouettes_are_padded_unless_told_otherwise(
    tmp_path: Path, pad: bool, shape: tuple[int, int, int]
) -> None:
    arrays = foreign_files.arrays(64, 44)
    foreign_files.write_pickles(tmp_path / "in", arrays)
    run_preprocessing(config(tmp_path, pad=pad, codec="lz4"))
    store = open_store(tmp_path / "s.zarr")
    assert (store.frame_shape, store.codec) == (shape, "lz4")
    cut = slice(10, 54) if pad else slice(None)
    same(
        {name: frames[:, :, cut, 0] for name, frames in foreign_files.contents_of(store).items()},
        arrays,
    )
    if pad:
        assert not any(
            frames[:, :, [*range(10), *range(54, 64)]].any() for frames in foreign_files.contents_of(store).values()
        )


@pytest.mark.parametrize("is_first", [True, False])
def test_channels_may_come_first_or_last(tmp_path: Path, is_first: bool) -> None:
    arrays = foreign_files.arrays(64, 64, 3)
    there = {name: np.moveaxis(array, -1, 1) if is_first else array for name, array in arrays.items()}
    foreign_files.write_pickles(tmp_path / "in", there)
    run_preprocessing(config(tmp_path, modality="flow"))
    store = open_store(tmp_path / "s.zarr")
    assert (store.attributes["modality"], store.attributes["encoding"]) == ("flow", "colour")
    same(foreign_files.contents_of(store), arrays)


def test_what_is_broken_costs_its_own_sequence_and_is_reported(tmp_path: Path) -> None:
    arrays = foreign_files.arrays(64, 64)
    folder = foreign_files.write_pickles(tmp_path / "in", arrays)

    class Malicious:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "pwned"),)

    whole = (folder / "001/nm-01/000/000.pkl").read_bytes()
    (folder / "001/nm-01/000/000.pkl").write_bytes(whole[:-5000])
    (folder / "001/nm-01/090/090.pkl").write_bytes(pickle.dumps(Malicious()))
    extra: dict[str, Any] = {
        "000": np.zeros((5, 32, 32), np.uint8),
        "010": np.full((5, 64, 64), np.nan),
        "020": np.zeros((5, 17), np.uint8),
        "030": foreign_files.outlines(5, 64, 64).astype(float),
    }
    foreign_files.write_pickles(folder, {("003", "nm-01", view): array for view, array in extra.items()})
    (folder / "003/nm-01/040").mkdir()
    summary = run_preprocessing(config(tmp_path))
    assert not (tmp_path / "pwned").exists()
    report = [json.loads(line) for line in (tmp_path / "s.zarr.skipped.jsonl").read_text().splitlines()]
    reasons = {entry["where"]: entry["reason"] for entry in report}
    assert reasons == {
        "001/nm-01/000": "unreadable file",
        "001/nm-01/090": "refused pickle",
        "003/nm-01/000": "wrong size",
        "003/nm-01/010": "array that holds no frames",
        "003/nm-01/020": "array that holds no frames",
        "003/nm-01/040": "no pickle",
    }
    assert all(str(folder) in entry["detail"] for entry in report)
    assert {reason: count.entries for reason, count in summary.skipped.items()}["array that holds no frames"] == 2
    kept = {name: arrays[name][..., None] for name in (("001", "bg-01", "090"), ("002", "nm-01", "090"))}
    kept["003", "nm-01", "030"] = foreign_files.outlines(5, 64, 64)[..., None]
    same(foreign_files.contents_of(open_store(tmp_path / "s.zarr")), kept)


def test_files_in_wrong_places_or_with_other_endings_are_counted(tmp_path: Path) -> None:
    folder = foreign_files.write_pickles(tmp_path / "in", foreign_files.arrays(64, 64))
    (folder / "001/nm-01/000/000.pkl").rename(folder / "001/nm-01/000.pkl")
    (folder / "001/nm-01/090/090.pkl").rename(folder / "001/nm-01/090/090.PKL")
    for place in ("002/a.npy", "002/nm-01/b.txt", "list.csv", "002/nm-01/090/c.pickle"):
        (folder / place).touch()
    (folder / "002/nm-01/090/part2").mkdir()
    found = opengait.scan(Folders(files=folder))
    assert [sequence.name for sequence in found.sequences] == ["001/bg-01/090", "001/nm-01/090", "002/nm-01/090"]
    counted = [(str(each.reason), each.where.removeprefix(f"{folder}/"), each.detail[-9:]) for each in found.skipped]
    assert sorted(counted) == [
        ("foreign file", str(folder), " list.csv"),
        ("foreign file", "001/nm-01", "s 000.pkl"),
        ("foreign file", "002", " is a.npy"),
        ("foreign file", "002/nm-01", " is b.txt"),
        ("foreign file", "002/nm-01/090", " c.pickle"),
        ("foreign folder", "002/nm-01/090/part2", ""),
        ("no pickle", "001/nm-01/000", str(folder / "001/nm-01/000")[-9:]),
    ]


def test_a_dry_run_says_what_comes_out_and_writes_nothing(tmp_path: Path) -> None:
    foreign_files.write_pickles(tmp_path / "in", foreign_files.arrays(64, 44))
    plan = plan_preprocessing(config(tmp_path))
    assert (plan.num_sequences, plan.max_frames, plan.state) == (4, 69, "new")
    assert os.listdir(tmp_path) == ["in"]


def test_one_of_several_files_is_chosen_by_its_name(tmp_path: Path) -> None:
    silhouettes, colours = foreign_files.arrays(64, 64), foreign_files.arrays(64, 64, 3)
    folder = foreign_files.write_pickles(tmp_path / "in", silhouettes, "1_sil.pkl")
    foreign_files.write_pickles(folder, colours, "{view}-aligned-rgbs.pkl")
    with pytest.raises(ParameterError, match=r"file is missing: .* holds 2 files \(090-aligned-rgbs.pkl, 1_sil.pkl\)"):
        run_preprocessing(config(tmp_path))
    with pytest.raises(ParameterError, match=r"file is '\*', but must choose one of the 2 files"):
        run_preprocessing(config(tmp_path, file="*"))
    with pytest.raises(AttenGaitError, match=r"with names like 'x\*'"):
        run_preprocessing(config(tmp_path, file="x*"))
    for file, out in (("1_sil", "a.zarr"), ("1_sil.pkl", "b.zarr"), ("*-rgbs.pkl", "c.zarr")):
        options = {"modality": "rgb"} if out == "c.zarr" else {}
        run_preprocessing(config(tmp_path, file=file, out=tmp_path / out, **options))
        expected = colours if out == "c.zarr" else {name: array[..., None] for name, array in silhouettes.items()}
        same(foreign_files.contents_of(open_store(tmp_path / out)), expected)


@pytest.mark.parametrize(
    ("folder", "part"),
    [
        ("nowhere", "does not exist"),
        ("empty", "holds no sequence laid out as subject/type/view"),
        ("file", "is a file"),
    ],
)
@pytest.mark.parametrize("source", ["pickles", "h5"])
def test_folders_of_no_use_are_one_sentence(tmp_path: Path, folder: str, part: str, source: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    if source == "h5" and folder == "empty":
        part = "does not hold one .h5 file for each sequence"
    with pytest.raises(AttenGaitError, match=part):
        run_preprocessing(config(tmp_path, source, folder=tmp_path / folder))


def test_a_folder_in_which_every_file_is_broken_is_an_error_that_says_why(tmp_path: Path) -> None:
    foreign_files.write_pickles(tmp_path / "in", {("001", "nm-01", "090"): ["no array"]})
    with pytest.raises(AttenGaitError, match=r"no file holds frames: .*090\.pkl holds a list"):
        plan_preprocessing(config(tmp_path))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"source": "csv"}, "dataset .*csv"),
        ({"source": "h5", "file": "x"}, "pattern is 'x', but must be left out: h5 takes files only"),
        ({"codec": "rar"}, "codec"),
        ({"chunk_frames": 0}, "chunk_frames"),
        ({"workers": 0}, "workers"),
    ],
)
def test_bad_parameters_are_refused(tmp_path: Path, options: dict[str, Any], part: str) -> None:
    with pytest.raises(ParameterError, match=part):
        config(tmp_path, **{"source": "pickles", **options})


EXPORTED = Description(
    attributes={"dataset": "d", "modality": "flow", "encoding": "uvm", "encoding_steps_per_px": 8, "encoding_offset": 0}
)


@pytest.mark.parametrize(
    ("channels", "told", "expected"),
    [
        (1, {}, {"dataset": "imported", "modality": "silhouette", "encoding": "gray"}),
        (3, {"modality": "rgb", "dataset": "x"}, {"dataset": "x", "modality": "rgb", "encoding": "rgb"}),
        (5, {"modality": "other"}, {"dataset": "imported", "modality": "other", "encoding": "unknown"}),
        (3, {"exported": EXPORTED}, EXPORTED.attributes),
        (3, {"exported": EXPORTED, "dataset": "x", "encoding": "uvm"}, EXPORTED.attributes | {"dataset": "x"}),
        (3, {"exported": EXPORTED, "modality": "rgb"}, {"dataset": "d", "modality": "rgb", "encoding": "rgb"}),
        (3, {"exported": EXPORTED, "encoding": "colour"}, {"dataset": "d", "modality": "flow", "encoding": "colour"}),
        (
            3,
            {"modality": "silhouette+flow", "encoding": "uv"},
            {"dataset": "imported", "modality": "silhouette+flow", "encoding": "gray+uv"}
            | {"encoding_steps_per_px": 8, "encoding_offset": 128, "channels": ["silhouette", "flow-u", "flow-v"]},
        ),
        (
            2,
            {"modality": "flow", "encoding": "uv"},
            {"dataset": "imported", "modality": "flow", "encoding": "uv"}
            | {"encoding_steps_per_px": 8, "encoding_offset": 128},
        ),
    ],
)
def test_a_store_says_what_was_exported_or_told(channels: int, told: Any, expected: dict[str, Any]) -> None:
    assert describe(channels, **told).attributes == expected


@pytest.mark.parametrize(
    ("channels", "told", "part"),
    [
        (3, {}, "modality is missing, but must be one of flow, .* for images of 3 channels"),
        (1, {"modality": "depth"}, "modality .*depth"),
        (2, {"modality": "flow"}, "channels of the files is 2, but must be 3 for modality flow, encoding colour"),
        (3, {"modality": "silhouette"}, "but must be 1 for modality silhouette"),
        (3, {"modality": "flow", "encoding": "hsv"}, "encoding .*hsv"),
        (3, {"modality": "rgb", "encoding": "uv"}, "only flow takes it"),
        (1, {"exported": EXPORTED}, "channels of the files is 1, but must be 3 for .* encoding uvm"),
    ],
)
def test_what_does_not_fit_the_files_is_refused(channels: int, told: Any, part: str) -> None:
    with pytest.raises(ParameterError, match=part):
        describe(channels, **told)


def test_a_description_can_claim_no_other_attributes_and_a_damaged_one_is_one_sentence(tmp_path: Path) -> None:
    folder = foreign_files.write_pickles(tmp_path / "in", foreign_files.arrays(16, 16))
    attributes = {"dataset": "d", "modality": "silhouette", "encoding": "gray", "format": "x", "version": 7}
    (folder / "attengait.json").write_bytes(to_json(Description(attributes=attributes)))
    run_preprocessing(config(tmp_path))
    assert open_store(tmp_path / "s.zarr").attributes["version"] == 1
    for content in ("{", "[]", '{"format": "x", "version": 1}'):
        (folder / "attengait.json").write_text(content)
        with pytest.raises(AttenGaitError, match=r"attengait\.json is damaged"):
            plan_preprocessing(config(tmp_path))


def test_the_published_files_come_in_by_their_names(tmp_path: Path) -> None:
    train, test = tmp_path / "in" / "tfimdb_casiab_N074_train_of30_64x64", tmp_path / "in" / "test"
    train.mkdir(parents=True)
    test.mkdir()
    arrays = foreign_files.arrays(64, 64, 3)
    for (subject, walk, view), array in arrays.items():
        folder = train if subject == "001" else test
        foreign_files.write_hdf5(folder / f"{subject}_{walk}_{view}.h5", array, label=np.uint16(int(subject)))
    # The list that lies beside the sequences.
    with h5py.File(tmp_path / "in" / f"{train.name}.h5", "w") as file:
        file["label"] = [1, 1, 1]
    (train / "002_nm-01_000.h5").write_bytes(b"no HDF5")
    foreign_files.write_hdf5(train / "002_nm-01_018.h5", arrays["001", "nm-01", "000"], compressFactor=np.uint8(100))
    foreign_files.write_hdf5(train / "002_nm-01_090.h5", arrays["002", "nm-01", "090"])
    with h5py.File(train / "002_nm-01_036.h5", "w") as file:
        file.create_group("data")
    summary = run_preprocessing(config(tmp_path, "h5", workers=2))
    assert {reason: count.entries for reason, count in summary.skipped.items()} == {
        "unreadable file": 3,
        "sequence twice": 1,
    }
    store = open_store(tmp_path / "s.zarr")
    same(foreign_files.contents_of(store), arrays)
    assert [store.attributes[key] for key in ("modality", "encoding", "frames_from")] == ["flow", "colour", "h5"]
    assert "h5py" in store.attributes["versions"]


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("001_nm-01_090", ("001", "nm-01", "090")),
        ("124-cl-02-180", ("124", "cl-02", "180")),
        ("00001_270_01", ("00001", "01", "270")),
        ("00001_4XPn5Z28", ("00001", "4XPn5Z28", "000")),
        ("001_4XPn5Z28", ("001", "4XPn5Z28", "000")),
        ("4XPn5Z28", ("unknown", "4XPn5Z28", "000")),
        ("a-b", None),
        ("", None),
    ],
)
def test_names_of_every_published_data_set_are_understood(stem: str, name: tuple[str, str, str] | None) -> None:
    assert hdf5.sequence_name(stem) == name


def test_without_h5py_one_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AttenGaitError, match=r"needs h5py: run pip install \. in AttenGait's checkout$"):
        plan_preprocessing(config(tmp_path, "h5"))
