"""GREW's folders: each part is found and named apart, and what does not belong is named, not fatal."""

import shutil
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from attengait.datasets import Folders, find_dataset
from attengait.datasets.grew import scan
from attengait.errors import AttenGaitError, ParameterError
from attengait.store.skipped import Reason

sets = import_module("flow_sets")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sets.make_grew(tmp_path, frames=5, train_subjects=2, gallery_subjects=2)
    return tmp_path


def flow(root: Path) -> Folders:
    return Folders(flow_images=root / "flow")


def found(root: Path) -> list[tuple[str, str]]:
    place = f"{root}/"
    return [(str(each.reason), each.where.removeprefix(place)) for each in scan(flow(root)).skipped]


def test_each_part_has_subjects_and_walks_of_its_own(root: Path) -> None:
    result = scan(flow(root))
    assert [(sequence.name, sequence.columns["part"]) for sequence in result.sequences] == [
        ("00001/01/aa0", "gallery"),
        ("00001/02/bb0", "gallery"),
        ("00001train/00/tr00Xy", "train"),
        ("00001train/00/tr01Xy", "train"),
        ("00002/01/aa1", "gallery"),
        ("00002/02/bb1", "gallery"),
        ("00002train/00/tr10Xy", "train"),
        ("00002train/00/tr11Xy", "train"),
        ("distractor/04/di0", "distractor"),
        ("distractor/04/di1", "distractor"),
        ("distractor/04/di2", "distractor"),
        ("probe/03/00234567", "probe"),
        ("probe/03/01234567", "probe"),
    ]
    assert result.skipped == ()


def test_an_image_has_the_number_of_its_second_frame(root: Path) -> None:
    sequence = scan(flow(root)).sequences[0]
    folder = root / "flow/test/gallery/00001/aa0"
    paths = {number + 1: f"{folder}/{number:05d}_{number + 1:05d}_flow.png" for number in range(1, 6)}
    assert sequence.parts["flow"].by_number == paths


def test_silhouettes_have_the_same_names_as_flow_images(root: Path) -> None:
    alone = scan(Folders(silhouettes=root / "silhouettes"))
    both = scan(Folders(flow_images=root / "flow", silhouettes=root / "silhouettes"))
    names = [sequence.name for sequence in scan(flow(root)).sequences]
    assert [sequence.name for sequence in alone.sequences] == names
    assert [sequence.name for sequence in both.sequences] == names
    assert list(alone.sequences[0].silhouettes.by_number) == [1, 2, 3, 4, 5]
    assert all(set(sequence.parts) == {"flow", "silhouettes"} for sequence in both.sequences)


def test_a_missing_number_leaves_the_others_as_they_are(root: Path) -> None:
    (root / "flow/train/00001/tr00Xy/00003_00004_flow.png").unlink()
    sequence = next(each for each in scan(flow(root)).sequences if each.view == "tr00Xy")
    assert list(sequence.parts["flow"].by_number) == [2, 3, 5, 6]


def test_what_does_not_belong_is_named(root: Path) -> None:
    train = root / "flow/train"
    (train / "00001/tr01Xy/Thumbs.db").write_bytes(b"x")
    (train / "00001/tr01Xy/gei.png").write_bytes(b"x")
    (train / "00001/tr01Xy/00000_00002_flow.png").write_bytes(b"x")
    (train / "00003").mkdir()
    (train / "00003/empty").mkdir()
    (train / "someone").mkdir()
    (train / "00004.tgz").write_bytes(b"x")
    (root / "flow/readme.txt").write_text("x")
    (root / "flow/validation").mkdir()
    assert Counter(found(root)) == Counter(
        [
            (Reason.FOREIGN_FILE, "flow/train/00001/tr01Xy"),
            (Reason.FOREIGN_PICTURES, "flow/train/00001/tr01Xy"),
            (Reason.FRAME_TWICE, "flow/train/00001/tr01Xy/00001_00002_flow.png"),
            (Reason.NO_FLOW, "flow/train/00003/empty"),
            (Reason.FOREIGN_FOLDER, "flow/train/someone"),
            (Reason.PACKED, "flow/train/00004.tgz"),
            (Reason.FOREIGN_FILE, "flow/readme.txt"),
            (Reason.FOREIGN_FOLDER, "flow/validation"),
        ]
    )


def test_an_empty_gallery_sequence_keeps_its_number(root: Path) -> None:
    shutil.rmtree(root / "flow/test/gallery/00001/aa0")
    (root / "flow/test/gallery/00001/aa0").mkdir()
    names = [sequence.name for sequence in scan(flow(root)).sequences]
    assert names[0] == "00001/02/bb0"


def test_some_parts_alone_are_enough(root: Path) -> None:
    shutil.rmtree(root / "flow/test")
    shutil.rmtree(root / "flow/distractors")
    assert {sequence.columns["part"] for sequence in scan(flow(root)).sequences} == {"train"}


def test_a_distractor_that_is_there_twice_is_named(root: Path) -> None:
    shutil.copytree(root / "flow/distractors/di0", root / "flow/distractor/di0")
    before, after = scan(flow(root)), found(root)
    assert [each.view for each in before.sequences if each.subject == "distractor"].count("di0") == 1
    assert (Reason.SEQUENCE_TWICE, "flow/distractors/di0") in after


def test_folders_of_no_use_are_refused_in_one_sentence(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="flow_images is missing"):
        scan(Folders())
    with pytest.raises(AttenGaitError, match="does not exist"):
        scan(Folders(flow_images=tmp_path / "nowhere"))
    with pytest.raises(AttenGaitError, match=r"holds no sequence laid out as train/SUBJECT"):
        scan(Folders(flow_images=root / "flow/train"))
    with pytest.raises(AttenGaitError, match=r"00001_00002_flow\.png"):
        scan(Folders(flow_images=root / "silhouettes"))
    with pytest.raises(ParameterError, match="another folder than flow_images"):
        scan(Folders(flow_images=root / "flow", silhouettes=root / "flow"))
    with pytest.raises(ParameterError, match="grew takes flow_images, silhouettes, files and pattern only"):
        find_dataset("grew").check("grew", Folders(frames=root))


def test_a_changed_file_changes_the_digests(root: Path) -> None:
    before = scan(flow(root)).sequences[0]
    path = root / "flow/test/gallery/00001/aa0/00001_00002_flow.png"
    path.write_bytes(path.read_bytes() + b"x")
    after = scan(flow(root)).sequences[0]
    assert before.content_digest != after.content_digest
    assert before.scan_digest != after.scan_digest
