"""The data sets in OpenGait's pickles: each in its own names, with faults, to its own table."""

import json
import zipfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import foreign_files
import numpy as np
import pytest

from attengait.datasets import Folders, find_dataset
from attengait.datasets.opengait_sets import NAMINGS
from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.runs import subjects_set_aside
from attengait.pipelines.stream import ClipStream
from attengait.sampling.plan import ClipBatch
from attengait.store import Store, open_store

attengait = import_module("command").attengait

LENGTH = 18
SMALL = (
    *("size=tiny", "blocks_per_stage=2", "clip_frames=16", "subjects_per_batch=2", "clips_per_subject=2"),
    *("device=cpu", "precision=fp32", "stop_after_steps=2", "loggers=", "validate_every_steps=0"),
)
FILES = {
    "gait3d": ("{view}.pkl",),
    "ccpg": ("{view}-aligned-sils.pkl", "{view}-sils.pkl", "{view}-rgbs.pkl", "{view}-ratios.pkl"),
    "sustech1k": (
        *("03-{view}-Camera-Pose.pkl", "06-{view}-Camera-Sils_aligned.pkl", "07-{view}-Camera-Sils_raw.pkl"),
        "14-sync-{view}-Camera-Sils_aligned.pkl",
    ),
    "casia-e": ("{view}.pkl",),
    "hid": ("{walk}.pkl",),
    "grew": ("{view}.pkl",),
}
SUBJECTS = {
    "gait3d": ("0001", "0002", "0003", "0004"),
    "ccpg": ("000", "001", "100", "101"),
    "sustech1k": ("0000", "0002", "0001", "0003"),
    "casia-e": ("001", "003", "002", "1004"),
    "hid": ("00000", "00002", "00001", "00003"),
    "grew": ("00001train", "00002train", "00001", "00002"),
}
"""Two to train on, and two to test."""
WALKS = {
    "gait3d": ("camid0_videoid2", "camid12_videoid1"),
    "ccpg": ("U0_D0_BG", "U0_D0", "U1_D1", "U1_D0", "U0_D3", "U3_D3"),
    "sustech1k": ("00-nm", "01-nm", "02-bg-nt"),
    "casia-e": ("H-scene1-nm-1", "L-scene2-nm-2", "H-scene3_s-bg-1", "L-scene3-cl-2"),
    "hid": ("1", "2"),
    "grew": ("00", "01", "02"),
}
VIEWS = {
    "gait3d": ("seq0",),
    "ccpg": ("01_0", "02_0"),
    "sustech1k": ("000", "090-near"),
    "casia-e": ("000", "090", "270"),
    "hid": ("default",),
    "grew": ("4XPn5Z28", "79XJefi8"),
}
PROBES = {"gait3d": "{}-camid12_videoid1-seq0", "hid": "{}-2-default"}
"""Those of PROBE_SET."""
VIDEOS = ("video7", "video8")
"""Unlabelled, of HID and GREW."""


def build(folder: Path, name: str, sequences: list[tuple[str, str, str]]) -> None:
    """The silhouettes' file of each sequence holds them; all others hold zeros of other shapes."""
    outlines = foreign_files.outlines(LENGTH, 64, 64)
    wanted = next(file for file in FILES[name] if file in NAMINGS[name].files)
    for number, (subject, walk, view) in enumerate(sequences):
        for file in FILES[name]:
            array = np.roll(outlines, number, axis=0) if file == wanted else np.zeros((LENGTH, 3, 9, 9), np.uint8)
            foreign_files.write_pickles(folder, {(subject, walk, view): array}, file.format(walk=walk, view=view))


def of_set(name: str) -> list[tuple[str, str, str]]:
    labelled = [(subject, walk, view) for subject in SUBJECTS[name] for walk in WALKS[name] for view in VIEWS[name]]
    if name == "grew":  # the training part has walk 00, the gallery 01 and 02
        labelled = [place for place in labelled if place[0].endswith("train") == (place[1] == "00")]
        return labelled + [("probe", "03", video) for video in VIDEOS] + [("distractor", "04", "x")]
    return labelled + [("probe", video, "default") for video in VIDEOS] * (name == "hid")


@pytest.mark.parametrize("name", SUBJECTS)
def test_each_comes_in_trains_on_its_training_set_alone_and_has_its_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "in", name, of_set(name))
    (tmp_path / "in" / "notes" / "a" / "b").mkdir(parents=True)
    (tmp_path / "in" / "notes" / "a" / "b" / "b.pkl").write_bytes(
        next((tmp_path / "in").joinpath(*of_set(name)[0]).glob("*.pkl")).read_bytes()
    )
    train, test = SUBJECTS[name][:2], SUBJECTS[name][2:]
    partition: dict[str, Any] = {"TRAIN_SET": train, "TEST_SET": (*test, "probe") if name in ("hid", "grew") else test}
    if name in PROBES:
        partition["PROBE_SET"] = [PROBES[name].format(subject) for subject in test]
    (tmp_path / "p.json").write_text(json.dumps(partition))

    def run(*words: object) -> str:
        done = attengait(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    said = run("import", "pickles", "in", "--dataset", name, "--out", "s.zarr", "--workers", 1)
    assert "skipped, foreign folder: 1, such as notes/a/b" in said
    store = open_store(tmp_path / "s.zarr")
    assert store.attributes["dataset"] == name
    assert len(store.sequences) == len(of_set(name))
    assert set(store.sequences.length.tolist()) == {LENGTH}
    sets = [word for setting in SMALL for word in ("--set", setting)]
    drawn = clips_drawn(monkeypatch)
    run("train", "s.zarr", "--out", "run", "--partition", "p.json", *sets)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert set(config["subjects"]) == set(train)
    assert len(drawn) >= 2  # steps
    assert {store.sequences.subject[i] for batch in drawn for i in batch.sequences.tolist()} == set(train)
    for batch in drawn:
        assert_clips_are_of(store, batch)
    words = ("evaluate", "run", "s.zarr", "--protocol", name, "--partition", "p.json", "--json")
    run(*words, "table.json")
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["protocol"] == name
    assert table["counts"]["subjects"] == len(test)
    assert table["counts"]["missing_sequences"] == 0 or name == "casia-e"  # which has more walks
    assert table["mean"] is not None
    if name == "casia-e":
        assert {tuple(row["views"]) for row in table["rank1"].values()} == {("000", "090")}  # without view 270
    if name == "hid":
        said = run(*words[:-1], "--submission", "h.zip")
        assert "h.zip: 2 probes, 4 gallery items" in said
        with zipfile.ZipFile(tmp_path / "h.zip") as archive:
            header, *rows = archive.read("h.csv").decode().splitlines()
        assert header == "videoID,label"
        assert [row.split(",")[0] for row in rows] == list(VIDEOS)
        assert {row.split(",")[1] for row in rows} <= set(test)


def clips_drawn(patch: pytest.MonkeyPatch) -> list[ClipBatch]:
    """The batches that a training takes from its stream, as they are taken."""
    drawn, take = [], ClipStream.__next__

    def taken(stream: ClipStream) -> ClipBatch:
        drawn.append(replace(batch := take(stream), clips=batch.clips.clone()))
        return batch

    patch.setattr(ClipStream, "__next__", taken)
    return drawn


def assert_clips_are_of(store: Store, batch: ClipBatch) -> None:
    """Each clip shows consecutive frames of the sequence that the batch names."""
    with store.reader() as reader:
        for clip, i in zip(batch.clips.numpy(), batch.sequences.tolist(), strict=True):
            first, length = store.sequences.start[i], store.sequences.length[i]
            frames = reader.read_clips([first], [length])[0]
            starts = range(length - len(clip) + 1)
            assert any(np.array_equal(clip, frames[start : start + len(clip)]) for start in starts)


@pytest.mark.parametrize(
    ("name", "walk", "view", "expected"),
    [
        ("gait3d", "camid33_videoid2", "seq0", {"camera": "33", "video": "2"}),
        ("ccpg", "U0_D0_BG", "01_0", {"outfit": "U0_D0", "bag": "BG", "camera": "01"}),
        ("ccpg", "U3_D3", "10", {"outfit": "U3_D3", "bag": "", "camera": "10"}),
        ("sustech1k", "02-bg-nt", "000-far", {"number": "02", "condition": "bg-nt"}),
        (
            *("casia-e", "L-scene3_s-cl-2", "090"),
            {"height": "L", "scene": "scene3_s", "condition": "cl", "number": "2"},
        ),
    ],
)
def test_what_the_names_tell_becomes_columns(
    name: str, walk: str, view: str, expected: dict[str, str], tmp_path: Path
) -> None:
    subject = NAMINGS[name].example.partition("/")[0]
    build(tmp_path, name, [(subject, walk, view)])
    (sequence,) = find_dataset(name).scan(Folders(files=tmp_path)).sequences
    assert sequence.columns == expected


def test_the_parts_of_grew_are_kept_and_only_one_is_trained_on(tmp_path: Path) -> None:
    build(tmp_path / "in", "grew", of_set("grew"))
    scan = find_dataset("grew").scan(Folders(files=tmp_path / "in"))
    parts = {sequence.subject: sequence.columns["part"] for sequence in scan.sequences}
    assert parts.pop("00001train") == parts.pop("00002train") == "train"
    assert parts == {"00001": "gallery", "00002": "gallery", "probe": "probe", "distractor": "distractor"}
    done = attengait("import", "pickles", "in", "--dataset", "grew", "--out", "s.zarr", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert subjects_set_aside(open_store(tmp_path / "s.zarr")) == parts.keys()
    with pytest.raises(ParameterError, match=r"silhouettes is .* but must be left out beside files, which are pickles"):
        find_dataset("grew").scan(Folders(files=tmp_path / "in", silhouettes=tmp_path))


def test_unlabelled_videos_of_hid_are_views_of_the_subject_probe(tmp_path: Path) -> None:
    build(tmp_path, "hid", [("00000", "1", "default"), ("probe", "video7", "default"), ("probe", "video8", "default")])
    found = [sequence.name for sequence in find_dataset("hid").scan(Folders(files=tmp_path)).sequences]
    assert found == ["00000/1/default", "probe/video7/video7", "probe/video8/video8"]


def test_a_sequence_without_its_silhouettes_is_counted(tmp_path: Path) -> None:
    build(tmp_path, "ccpg", [("100", "U0_D0", "01_0"), ("100", "U0_D0", "02_0")])
    (tmp_path / "100/U0_D0/02_0/02_0-aligned-sils.pkl").unlink()
    scan = find_dataset("ccpg").scan(Folders(files=tmp_path))
    assert [sequence.name for sequence in scan.sequences] == ["100/U0_D0/01_0"]
    assert [(str(each.reason), each.where) for each in scan.skipped] == [("no such file", "100/U0_D0/02_0")]


def test_a_pattern_takes_another_file(tmp_path: Path) -> None:
    build(tmp_path, "sustech1k", [("0000", "01-nm", "000")])
    (sequence,) = find_dataset("sustech1k").scan(Folders(files=tmp_path, pattern="14-*")).sequences
    assert sequence.array.where.endswith("14-sync-000-Camera-Sils_aligned.pkl")


def test_another_data_set_is_refused_in_one_sentence(tmp_path: Path) -> None:
    build(tmp_path, "gait3d", [("0001", "camid0_videoid2", "seq0")])
    with pytest.raises(AttenGaitError, match=r"holds no sequence of casia-e, which has names like 001/H-scene1-nm-1"):
        find_dataset("casia-e").scan(Folders(files=tmp_path))


def test_the_only_pickle_of_a_folder_is_not_taken_for_the_silhouettes_by_any_name(tmp_path: Path) -> None:
    build(tmp_path, "sustech1k", [("0000", "01-nm", "000"), ("0000", "01-nm", "090")])
    for path in sorted((tmp_path / "0000/01-nm/090").glob("*.pkl")):
        path.unlink() if not path.name.startswith("07") else None
    scan = find_dataset("sustech1k").scan(Folders(files=tmp_path))
    assert [sequence.name for sequence in scan.sequences] == ["0000/01-nm/000"]
    assert [(str(each.reason), each.where) for each in scan.skipped] == [("no such file", "0000/01-nm/090")]
    (tmp_path / "0000/01-nm/090").joinpath("07-090-Camera-Sils_raw.pkl").rename(tmp_path / "0000/01-nm/090/090.pkl")
    assert len(find_dataset("sustech1k").scan(Folders(files=tmp_path)).sequences) == 2  # as an export names it
    for path in sorted((tmp_path / "0000/01-nm").glob("*/*.pkl")):
        path.rename(path.with_name("other.pkl"))
    with pytest.raises(AttenGaitError, match=r"with a file named 06-\{view\}-.* or \{view\}.pkl; choose another one"):
        find_dataset("sustech1k").scan(Folders(files=tmp_path))


def test_a_name_in_other_letters_is_not_taken_for_another_data_set(tmp_path: Path) -> None:
    build(tmp_path / "in", "gait3d", [("0001", "camid0_videoid2", "seq0")])
    done = attengait("import", "pickles", "in", "--dataset", "Gait3D", "--out", "s.zarr", cwd=tmp_path)
    assert done.returncode != 0
    assert "dataset is 'Gait3D', but must be 'gait3d', or the name of another data set" in done.stderr
