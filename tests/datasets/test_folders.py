"""Any tree that a layout describes: read in the one way it can be read, or refused, or counted by name."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from walks import write_walk

from attengait.datasets import Folders, Scan, find_dataset
from attengait.datasets.layout import parse_layout
from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.preprocess.run import preprocess
from attengait.preprocessing.executors import LocalProcesses
from attengait.preprocessing.flow import FlowRecipe
from attengait.preprocessing.silhouette import SilhouetteRecipe
from attengait.store import open_store

CASIA_B = "{subject}/{walk}/{view}/{subject}-{walk}-{view}-{frame}.png"


def make(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x" * number)
    return root


def scan(silhouettes: Path, layout: str | None, *constants: str, **other: Any) -> Scan:
    folders = Folders(silhouettes=silhouettes, layout=layout, constants=constants or None, **other)
    return find_dataset("folders").scan(folders)


def said(result: Scan) -> list[str]:
    return [f"{each.reason}: {each.detail}" for each in result.skipped]


def test_fields_may_stand_within_a_name_and_become_columns(tmp_path: Path) -> None:
    make(tmp_path, "p7_day1/left_fast_f0002.png", "p7_day1/left_fast_f0001.png", "p8_day2/left_slow_f10.png")
    first, second = scan(tmp_path, "p{subject}_{date}/{view}_{walk}_f{frame}.png").sequences
    assert (first.name, dict(first.columns)) == ("7/fast/left", {"date": "day1"})
    assert first.silhouettes.by_number == {
        number: f"{tmp_path}/p7_day1/left_fast_f000{number}.png" for number in (1, 2)
    }
    assert (second.name, dict(second.columns)) == ("8/slow/left", {"date": "day2"})
    assert list(second.silhouettes.by_number) == [10]


def test_the_number_of_a_frame_may_stand_anywhere_in_the_name(tmp_path: Path) -> None:
    make(tmp_path, "1/a/12-of-90.png", "1/a/7-of-90.png")
    (sequence,) = scan(tmp_path, "{subject}/{walk}/{frame}-of-{view}.png").sequences
    assert [Path(path).name for path in sequence.silhouettes.files] == ["7-of-90.png", "12-of-90.png"]
    assert sequence.silhouettes.matching([7, 12, 90]) == {7, 12}
    assert sequence.silhouettes.first_and_last == (7, 12)


def test_repeated_fields_must_be_equal_and_others_are_counted(tmp_path: Path) -> None:
    make(
        tmp_path,
        *("001/bg-01/090/001-bg-01-090-001.png", "001/bg-01/090/001-bg-01-090-1.png", "001/bg-01/090/notes.txt"),
        *("001/bg-01/090/002-bg-01-090-002.png", "001/bg-01/090/deep/er.png", "top.png"),
    )
    result = scan(tmp_path, CASIA_B)
    (sequence,) = result.sequences
    assert sequence.name == "001/bg-01/090"
    assert said(result) == [
        "frame number twice: 001-bg-01-090-001.png is used",
        "foreign folder: ",
        f"foreign names: 2 files do not fit {CASIA_B}, such as 002-bg-01-090-002.png",
        f"foreign names: 1 files do not fit {CASIA_B}, such as top.png",
    ]


def test_a_name_that_can_be_read_in_two_ways_is_counted_and_not_guessed(tmp_path: Path) -> None:
    make(tmp_path, "001-nm-01-090-001.png", "001-nm01-090-001.png")
    result = scan(tmp_path, "{subject}-{walk}-{view}-{frame}.png")
    assert [sequence.name for sequence in result.sequences] == ["001/nm01/090"]
    (sentence,) = said(result)
    assert "1 files can be read in two ways or more, such as 001-nm-01-090-001.png" in sentence
    assert "subject 001, walk nm, view 01-090" in sentence
    assert "subject 001-nm, walk 01, view 090" in sentence


def test_constants_stand_for_what_the_paths_lack(tmp_path: Path) -> None:
    make(tmp_path, "anna/1.png")
    (sequence,) = scan(tmp_path, "{subject}/{frame}.png", "walk=normal", "view=090", "site=hall").sequences
    assert (sequence.name, dict(sequence.columns)) == ("anna/normal/090", {"site": "hall"})
    with pytest.raises(ParameterError, match=r"must have the field \{walk\}, or be given as a constant such as walk=1"):
        scan(tmp_path, "{subject}/{frame}.png", "view=090")
    with pytest.raises(ParameterError, match=r"must be without the field \{subject\} where constant gives its value"):
        scan(tmp_path, "{subject}/{frame}.png", "subject=1", "walk=1", "view=1")
    for word in ("view", "view=", "=1", "view=a/b"):
        with pytest.raises(ParameterError, match=r"constant is '.*', but must be NAME=VALUE"):
            scan(tmp_path, "{subject}/{frame}.png", word)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("{walk}/{view}/{frame}.png", r"must have the field \{subject\}$"),
        ("{subject}{walk}/{view}/{frame}.png", r"must have something between \{subject\} and \{walk\}"),
        ("{subject}/{walk}/{view}/{frame}/a.png", r"must have \{frame\} in the name of the file"),
        ("{subject}/{walk}/{view}/{frame}", r"must end in one of .png"),
        ("{subject}/{walk}/{view}.png", r"must end in one of .avi.*without \{frame\}, videos"),
        ("{subject}/{walk}/../{view}-{frame}.png", "must be names with / between them"),
        ("/{subject}/{walk}/{view}-{frame}.png", "must be names with / between them"),
        ("{subject}/{walk}/{view}-{frame.png", r"must have no \{ but those of fields"),
        ("{subject}/{walk}/{view}-{Camera}-{frame}.png", "must have fields of small letters, .*, not 'Camera'"),
        ("{subject}/{walk}/{view}-{length}-{frame}.png", "must have fields of small letters, .*, not 'length'"),
        ("{subject}/{walk}/{view}-{}-{frame}.png", "must have fields of small letters, .*, not ''"),
    ],
)
def test_a_layout_that_cannot_be_read_is_one_sentence(pattern: str, sentence: str) -> None:
    with pytest.raises(ParameterError, match=f"layout is .*{sentence}"):
        parse_layout(pattern, {})


def test_a_layout_that_does_not_tell_sequences_apart_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "1/a/camera1/1.png", "1/a/camera2/1.png")
    with pytest.raises(ParameterError, match=r"1/a/0 is there with camera camera1 and with camera camera2"):
        scan(tmp_path, "{subject}/{walk}/{camera}/{frame}.png", "view=0")


def test_frames_and_silhouettes_may_lie_side_by_side(tmp_path: Path) -> None:
    make(tmp_path, "1/a/0/rgb/1.jpg", "1/a/0/mask/1.png", "1/a/0/mask/note.txt")
    layouts = {"layout": "{subject}/{walk}/{view}/rgb/{frame}.jpg"}
    own = "{subject}/{walk}/{view}/mask/{frame}.png"
    result = scan(tmp_path, **layouts, silhouette_layout=own, frames=tmp_path)
    (sequence,) = result.sequences
    assert [Path(path).parent.name for part in sequence.parts.values() for path in part.files] == ["rgb", "mask"]
    assert all(each.detail.endswith("such as note.txt") for each in result.skipped)
    with pytest.raises(ParameterError, match=r"silhouettes is .*, but must be another folder"):
        scan(tmp_path, **layouts, frames=tmp_path)


def test_no_file_is_a_frame_and_its_own_silhouette(tmp_path: Path) -> None:
    make(tmp_path, "1/a/0/rgb/1.png", "1/a/0/rgb/2.png")
    own = "{subject}/{walk}/{view}/{kind}/{frame}.png"
    with pytest.raises(ParameterError, match=r"silhouette_layout is .*, but must fit no file .*, such as .*/rgb/1.png"):
        scan(tmp_path, "{subject}/{walk}/{view}/rgb/{frame}.png", frames=tmp_path, silhouette_layout=own)


def test_what_is_missing_or_fits_nowhere_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    with pytest.raises(ParameterError, match="layout is missing"):
        scan(tmp_path, None)
    with pytest.raises(AttenGaitError, match=r"the folder of silhouettes .* holds nothing laid out as \{subject\}/"):
        scan(tmp_path, CASIA_B)
    with pytest.raises(AttenGaitError, match="does not exist"):
        scan(tmp_path / "no", CASIA_B)
    with pytest.raises(ParameterError, match=r"must have \{frame\}: silhouettes are pictures"):
        scan(tmp_path, "{subject}/{walk}/{view}.mp4")
    with pytest.raises(ParameterError, match=r"layout is '.*', but must be left out: casia-b takes"):
        find_dataset("casia-b").check("casia-b", Folders(silhouettes=tmp_path, layout=CASIA_B))


def test_the_same_pictures_in_another_tree_give_the_same_store(tmp_path: Path) -> None:
    for seed, walk in enumerate(("nm-01", "bg-01")):
        write_walk(tmp_path, "001", walk, 9, seed)
    executor = LocalProcesses(num_workers=1)
    recipe = FlowRecipe(flow="opencv")
    sides = {"frames": tmp_path / "rgb", "silhouettes": tmp_path / "silh"}
    summary = preprocess("casia-b", tmp_path / "a.zarr", **sides, recipe=recipe, executor=executor)
    for path in sorted(tmp_path.glob("*/001/*/*/*.png")):
        side, _, walk, view, name = path.relative_to(tmp_path).parts
        new = tmp_path / "other" / side / f"{walk}.{view}.hall" / f"{name.split('-')[-1].removesuffix('.png')}_1.png"
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, new)
    sides = {"frames": tmp_path / "other/rgb", "silhouettes": tmp_path / "other/silh"}
    other = preprocess(
        "folders",
        tmp_path / "b.zarr",
        **sides,
        layout="{walk}.{view}.{site}/{frame}_{subject}.png",
        recipe=recipe,
        executor=executor,
    )
    made, same = open_store(summary), open_store(other)
    assert len(made) == len(same) == 2
    for mine, other_one in zip(made, same, strict=True):
        assert (mine == other_one).all()
    assert made.sequences.walk.tolist() == same.sequences.walk.tolist() == ["bg-01", "nm-01"]
    assert same.table()["site"].tolist() == ["hall", "hall"]
    alone = preprocess(
        "folders",
        tmp_path / "c.zarr",
        silhouettes=sides["silhouettes"],
        layout="{walk}.{view}.{site}/{frame}_{subject}.png",
        recipe=SilhouetteRecipe(),
        executor=executor,
    )
    assert alone.written.num_frames == 18


def test_videos_have_a_layout_of_their_own(tmp_path: Path) -> None:
    make(tmp_path / "videos", "1/fast_left.mp4", "1/bad.mp4")
    make(tmp_path / "masks", "1/fast/left/3.png")
    result = scan(
        tmp_path / "masks",
        "{subject}/{walk}_{view}.mp4",
        frames=tmp_path / "videos",
        silhouette_layout="{subject}/{walk}/{view}/{frame}.png",
    )
    (sequence,) = result.sequences
    assert (sequence.frames.kind, sequence.frames.where) == ("video", f"{tmp_path}/videos/1/fast_left.mp4")
    assert said(result) == ["foreign names: 1 files do not fit {subject}/{walk}_{view}.mp4, such as bad.mp4"]
