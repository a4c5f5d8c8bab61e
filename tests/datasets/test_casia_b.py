"""CASIA-B's folders: every sequence is found once, in order, and what does not belong is named, not fatal."""

import os
import pickle
from importlib import import_module
from pathlib import Path

import pytest

from attengait.datasets import DATASETS, Pictures, find_dataset
from attengait.datasets.casia_b import LAYOUT
from attengait.errors import AttenGaitError, ParameterError
from attengait.store.skipped import Reason

casia = import_module("casia")


def make(root: Path, name: str, numbers: range | list[int], *, suffix: str = ".png", at: str | None = None) -> Path:
    """Write the files (not pictures) of a sequence such as 001/nm-01/090, in `root`/`at` if that is given."""
    folder = root / (name if at is None else at)
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{name.replace('/', '-')}-{number:03d}{suffix}").write_bytes(b"x" * number)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    frames, silhouettes = tmp_path / "rgb", tmp_path / "silh"
    make(frames, "001/nm-01/090", range(1, 8))
    make(silhouettes, "001/nm-01/090", range(1, 8))
    return frames, silhouettes


def names(folders: tuple[Path, Path]) -> list[str]:
    return [sequence.name for sequence in casia.find(*folders).sequences]


def problems(folders: tuple[Path, Path]) -> list[tuple[str, str]]:
    root = folders[0].parent
    return [(str(problem.reason), problem.where.removeprefix(f"{root}/")) for problem in casia.find(*folders).skipped]


def test_a_sequence_holds_its_pictures_by_number(folders: tuple[Path, Path]) -> None:
    result = casia.find(*folders)
    (sequence,) = result.sequences
    assert (sequence.subject, sequence.walk, sequence.view) == ("001", "nm-01", "090")
    paths = {number: str(folders[0] / f"001/nm-01/090/001-nm-01-090-{number:03d}.png") for number in range(1, 8)}
    assert sequence.frames.by_number == paths
    assert list(sequence.silhouettes.by_number) == list(range(1, 8))
    assert casia.max_images(sequence) == 6
    assert result.skipped == ()


def test_sequences_are_ordered_by_subject_walk_and_view(folders: tuple[Path, Path]) -> None:
    for name in ("010/cl-02/180", "002/nm-02/000", "002/bg-01/018", "002/nm-02/180", "001/bg-01/036"):
        for root in folders:
            make(root, name, range(1, 3))
    expected = ["001/bg-01/036", "001/nm-01/090", "002/bg-01/018", "002/nm-02/000", "002/nm-02/180", "010/cl-02/180"]
    assert names(folders) == expected


def test_numbers_are_ordered_as_numbers_and_matched_ones_bound_the_images(tmp_path: Path) -> None:
    for root, numbers in (
        (tmp_path / "rgb", [998, 999, 1000, 1001]),
        (tmp_path / "silh", [999, 1000, 1001, 1002, 1003]),
    ):
        make(root, "001/nm-01/090", numbers)
    (sequence,) = casia.find(tmp_path / "rgb", tmp_path / "silh").sequences
    assert list(sequence.frames.by_number) == [998, 999, 1000, 1001]
    assert casia.max_images(sequence) == 2


def test_no_common_number_bounds_the_images_at_none(tmp_path: Path) -> None:
    make(tmp_path / "rgb", "001/nm-01/090", [1, 2])
    make(tmp_path / "silh", "001/nm-01/090", [3, 4, 5])
    assert casia.max_images(casia.find(tmp_path / "rgb", tmp_path / "silh").sequences[0]) == 0


def test_silhouettes_alone_need_no_frames_and_have_their_own_digests(folders: tuple[Path, Path]) -> None:
    frames, silhouettes = folders
    make(silhouettes, "002/nm-01/090", range(1, 4))
    both, alone = casia.find(frames, silhouettes), casia.find(None, silhouettes)
    assert [sequence.name for sequence in alone.sequences] == ["001/nm-01/090", "002/nm-01/090"]
    assert alone.skipped == ()
    sequence = alone.sequences[0]
    assert list(sequence.parts) == ["silhouettes"]
    assert sequence.silhouettes == both.sequences[0].silhouettes
    assert sequence.content_digest != both.sequences[0].content_digest
    before = sequence.scan_digest
    os.utime(silhouettes / "001/nm-01/090/001-nm-01-090-003.png", ns=(5, 5))
    touched = casia.find(None, silhouettes).sequences[0]
    assert (touched.content_digest == sequence.content_digest, touched.scan_digest == before) == (True, False)
    with pytest.raises(AttenGaitError, match=r"the folder of silhouettes .* does not exist"):
        casia.find(None, frames.parent / "nowhere")


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".bmp", ".PNG"])
def test_other_picture_suffixes_will_do(folders: tuple[Path, Path], suffix: str) -> None:
    for root in folders:
        make(root, "002/nm-01/090", range(1, 4), suffix=suffix)
    assert names(folders) == ["001/nm-01/090", "002/nm-01/090"]
    assert problems(folders) == []


@pytest.mark.parametrize(
    "at",
    ["silh/002/bg-01/090", "002/002/bg-01/090", "002/002/002/bg-01/090", "002/bg-01/bg-01/090", "002/bg-01/090/090"],
)
def test_a_folder_nested_in_itself_is_looked_through(folders: tuple[Path, Path], at: str) -> None:
    make(folders[0], "002/bg-01/090", range(1, 4))
    make(folders[1], "002/bg-01/090", range(1, 4), at=at)
    assert names(folders) == ["001/nm-01/090", "002/bg-01/090"]
    assert problems(folders) == []


def test_a_subject_half_of_which_is_nested_is_found_whole(folders: tuple[Path, Path]) -> None:
    for name, at in (("113/nm-01/090", None), ("113/nm-02/090", "113/113/nm-02/090")):
        make(folders[0], name, range(1, 4))
        make(folders[1], name, range(1, 4), at=at)
    assert names(folders) == ["001/nm-01/090", "113/nm-01/090", "113/nm-02/090"]


def test_a_sequence_found_twice_is_used_once_and_named(folders: tuple[Path, Path]) -> None:
    make(folders[1], "001/nm-01/090", range(1, 3), at="001/001/nm-01/090")
    (sequence,) = casia.find(*folders).sequences
    assert len(sequence.silhouettes.names) == 7
    assert problems(folders) == [("sequence twice", "silh/001/001/nm-01/090")]


def test_sequences_on_one_side_only_are_named(folders: tuple[Path, Path]) -> None:
    make(folders[0], "005/bg-01/000", range(1, 4))
    make(folders[1], "005/bg-01/018", range(1, 4))
    make(folders[0], "005/bg-01/036", range(1, 4))
    make(folders[1], "005/bg-01/036", [])  # a folder of no silhouettes
    assert names(folders) == ["001/nm-01/090"]
    assert problems(folders) == [
        ("no silhouettes", "005/bg-01/000"),
        ("no frames", "005/bg-01/018"),
        ("no silhouettes", "005/bg-01/036"),
    ]


def test_foreign_folders_and_pictures_are_named_and_left_out(folders: tuple[Path, Path]) -> None:
    for folder in ("1", "0001", "001/nm-1", "001/NM-01", "001/nm-01/90", "001/nm-01/0900", "notes"):
        (folders[0] / folder).mkdir(parents=True)
    view = folders[0] / "001/nm-01/090"
    for name in ("001-nm-01-090-.png", "002-nm-01-090-008.png", "008.png", "001-nm-01-090-8a.png"):
        (view / name).write_bytes(b"x")
    (view / "001-nm-01-090-009.png").mkdir()
    found = casia.find(*folders)
    assert casia.max_images(found.sequences[0]) == 6
    assert len(found.sequences[0].frames.names) == 7
    assert sorted(problem.reason for problem in found.skipped) == ["foreign folder"] * 8 + ["foreign pictures"]
    assert [p.detail for p in found.skipped if p.reason == "foreign pictures"] == [
        "4 pictures are not files named 001-nm-01-090-NUMBER; the first is 001-nm-01-090-.png"
    ]


def test_files_and_folders_of_other_names_are_counted_wherever_they_lie(folders: tuple[Path, Path]) -> None:
    root = folders[1]
    make(root, "003/nm-02/090", range(1, 4), at="003/nm-02")  # a level too high
    make(root, "001/nm-01/090", range(1, 3), suffix=".tif")
    make(root, "001/nm-01/090", range(8, 12), at="001/nm-01/090/090")
    make(root, "001/nm-01/090", range(12, 14), at="001/nm-01/090/part2")
    for name in ("list.txt", "005.png", "004", "001/001-nm-05-090-001.png", "001/nm-01/notes.txt"):
        (root / name).write_bytes(b"x")
    counts = [each.detail[:2] for each in casia.find(*folders).skipped]
    assert [(*problem, count) for problem, count in zip(problems(folders), counts, strict=True)] == [
        ("foreign folder", "silh/001/nm-01/090/part2", ""),
        ("foreign file", "silh/001/nm-01/090", "2 "),
        ("sequence twice", "silh/001/nm-01/090/090", str(root)[:2]),
        ("foreign file", "silh/001/nm-01", "1 "),
        ("foreign pictures", "silh/001", "1 "),
        ("foreign pictures", "silh/003/nm-02", "3 "),
        ("foreign pictures", "silh", "1 "),
        ("foreign file", "silh", "2 "),
    ]
    said = f"3 pictures are not laid out as {LAYOUT}; the first is 003-nm-02-090-001.png"
    assert casia.find(*folders).skipped[5].detail == said


def test_hidden_and_background_files_are_passed_over_silently(folders: tuple[Path, Path]) -> None:
    view = folders[0] / "001/nm-01/090"
    for path in (
        folders[0] / ".DS_Store",
        folders[0] / "001/001.rar",
        view / "._001-nm-01-090-001.png",
        view / "001-bkgrd-090-001.png",
    ):
        path.write_bytes(b"x")
    make(folders[0], "001/bkgrd/090", range(1, 3))
    (folders[0] / ".hidden").mkdir()
    assert names(folders) == ["001/nm-01/090"]
    assert problems(folders) == []


def test_a_frame_number_twice_is_used_once_and_named(folders: tuple[Path, Path]) -> None:
    make(folders[0], "001/nm-01/090", [3], suffix=".jpg")
    (sequence,) = casia.find(*folders).sequences
    assert sequence.frames.by_number[3].endswith("-003.jpg")
    assert len(sequence.frames.names) == 7
    assert problems(folders) == [("frame number twice", "rgb/001/nm-01/090/001-nm-01-090-003.png")]


def test_an_unreadable_folder_is_named(folders: tuple[Path, Path]) -> None:
    folder = make(folders[0], "002/nm-01/090", range(1, 3))
    folder.chmod(0)
    try:
        if os.access(folder, os.R_OK):
            pytest.skip("this user may read every folder")
        assert ("unreadable folder", "rgb/002/nm-01/090") in problems(folders)
    finally:
        folder.chmod(0o755)


def test_links_that_lead_nowhere_or_to_themselves_are_named(folders: tuple[Path, Path]) -> None:
    (folders[0] / "001/nm-01/090/001-nm-01-090-008.png").symlink_to("gone.png")
    (folders[0] / "001/nm-01/090/001-nm-01-090-009.png").symlink_to("001-nm-01-090-009.png")
    (folders[1] / "003").symlink_to("/nowhere")
    (folders[1] / "loop").symlink_to("loop")
    assert len(casia.find(*folders).sequences[0].frames.names) == 7
    assert problems(folders) == [
        ("unreadable file", "rgb/001/nm-01/090/001-nm-01-090-008.png"),
        ("link that leads back to where it is", "rgb/001/nm-01/090/001-nm-01-090-009.png"),
        ("unreadable file", "silh/003"),
        ("link that leads back to where it is", "silh/loop"),
    ]


def test_one_folder_for_both_is_refused(folders: tuple[Path, Path]) -> None:
    (folders[0].parent / "same").symlink_to(folders[1])
    with pytest.raises(ParameterError, match=r"^silhouettes is '.*silh', but must be another folder than that of"):
        casia.find(folders[0].parent / "same", folders[1])


def test_a_missing_folder_a_file_and_a_folder_without_sequences_are_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    frames, _ = folders
    with pytest.raises(AttenGaitError, match=r"^the folder of silhouettes .*/gone does not exist$"):
        casia.find(frames, tmp_path / "gone")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(AttenGaitError, match=r"^the folder of frames .*/file is a file: a folder laid out as"):
        casia.find(tmp_path / "file", frames)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        AttenGaitError, match=r"^the folder of silhouettes .*/empty holds no sequence laid out as .*png$"
    ):
        casia.find(frames, empty)
    (empty / "001.rar").write_bytes(b"x")
    with pytest.raises(AttenGaitError, match=r"unpack them first"):
        casia.find(frames, empty)


def test_folders_without_a_common_sequence_hold_nothing_for_flow(folders: tuple[Path, Path], tmp_path: Path) -> None:
    make(tmp_path / "other", "002/nm-01/090", range(1, 3))
    found = casia.find(folders[0], tmp_path / "other")
    assert found.sequences == ()
    assert [skipped.reason for skipped in found.skipped] == [Reason.NO_SILHOUETTES, Reason.NO_FRAMES]


def test_the_content_digest_follows_names_and_sizes_and_the_scan_digest_times_too(folders: tuple[Path, Path]) -> None:
    make(folders[0], "002/nm-01/090", range(1, 4))
    make(folders[1], "002/nm-01/090", range(1, 4))
    picture = folders[1] / "001/nm-01/090/001-nm-01-090-004.png"
    before = casia.find(*folders)
    assert casia.find(*folders) == before

    os.utime(picture, ns=(1, 123456789))
    touched = casia.find(*folders)
    assert touched.content_digest == before.content_digest
    assert touched.scan_digest != before.scan_digest
    assert touched.sequences[0].scan_digest != before.sequences[0].scan_digest
    assert touched.sequences[1] == before.sequences[1]

    picture.write_bytes(b"another size")
    resized = casia.find(*folders)
    assert resized.sequences[0].content_digest != before.sequences[0].content_digest
    assert resized.content_digest != before.content_digest

    picture.unlink()
    assert casia.find(*folders).content_digest not in {before.content_digest, resized.content_digest}


def test_the_content_digest_of_a_copy_elsewhere_is_the_same(folders: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    make(copy, "001/nm-01/090", range(1, 8), at="001/001/nm-01/090")
    assert casia.find(copy, folders[1]).content_digest == casia.find(*folders).content_digest


def test_a_picture_that_changes_sides_changes_the_content_digest(tmp_path: Path) -> None:
    digests = set()
    for frames, silhouettes in (([1, 2], [3]), ([1], [2, 3])):
        root = tmp_path / str(len(frames))
        make(root / "rgb", "001/nm-01/090", frames)
        make(root / "silh", "001/nm-01/090", silhouettes)
        digests.add(casia.find(root / "rgb", root / "silh").content_digest)
    assert len(digests) == 2


def test_a_sequence_travels_compactly_to_another_process() -> None:
    file_names = [f"001-nm-01-090-{number:03d}.png" for number in range(1, 161)]
    pictures = Pictures.of("/data/silh/001/nm-01/090", file_names)
    sequence = casia.sequence_of(pictures, pictures)
    pickled = pickle.dumps(sequence)
    assert pickle.loads(pickled) == sequence
    assert len(pickled) < 320 * 24


@pytest.mark.parametrize("walk", ["nm-\N{ARABIC-INDIC DIGIT ZERO}\N{ARABIC-INDIC DIGIT ONE}", "nm-\uff10\uff11"])
def test_digits_of_other_scripts_are_no_walk(folders: tuple[Path, Path], walk: str) -> None:
    for root in folders:
        make(root, f"001/{walk}/090", range(1, 4))
    assert names(folders) == ["001/nm-01/090"]
    assert [reason for reason, _ in problems(folders)] == ["foreign folder"] * 2


def test_pictures_without_a_file_are_empty() -> None:
    assert Pictures.of("folder", []).by_number == {}


def test_datasets_are_found_by_name() -> None:
    assert find_dataset("casia-b") is DATASETS["casia-b"]
    with pytest.raises(ParameterError, match=r"^dataset .*casia'.*casia-b"):
        find_dataset("casia")


def test_the_walkers_are_found(shared: Path, tmp_path: Path) -> None:
    """Only the layout: the segments' names and lengths, not the pictures."""
    import json

    segments = json.loads((shared / "walkers" / "segments.json").read_text())
    for segment in segments:
        name = f"{segment['subject']}/{segment['sequence']}/{segment['view']}"
        for root in ("rgb", "silh"):
            make(tmp_path / root, name, range(1, len(segment["boxes"]) + 1))
    found = casia.find(tmp_path / "rgb", tmp_path / "silh")
    assert len(found.sequences) == 45
    assert sum(casia.max_images(sequence) for sequence in found.sequences) == 2294


@pytest.mark.parametrize("root", ["002", "002/002"])
def test_a_root_called_like_a_subject_holds_all_its_subjects(tmp_path: Path, root: str) -> None:
    for name in ("001/nm-01/090", "002/nm-01/090", "003/nm-01/090"):
        make(tmp_path / root, name, range(1, 4))
    found = casia.find(None, tmp_path / "002")
    assert [sequence.name for sequence in found.sequences] == ["001/nm-01/090", "002/nm-01/090", "003/nm-01/090"]
    assert found.skipped == ()


def test_a_link_that_leads_back_is_one_entry_wherever_it_is(folders: tuple[Path, Path]) -> None:
    root = folders[1]
    (root / "001/001").symlink_to(".")
    (root / "001/nm-02").symlink_to("..")
    (root / "001/nm-01/018").mkdir()
    (root / "001/nm-01/018/018").symlink_to("../018")
    (root / "002").symlink_to(root)
    assert names(folders) == ["001/nm-01/090"]
    assert problems(folders) == [
        ("link that leads back to where it is", f"silh/{place}")
        for place in ("001/001", "001/nm-01/018/018", "001/nm-02", "002")
    ]


def test_links_that_lead_to_each_other_end(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (folders[1] / "001/001").symlink_to(tmp_path / "other")
    (tmp_path / "other/001").symlink_to(folders[1] / "001")
    assert names(folders) == ["001/nm-01/090"]
    assert [reason for reason, _ in problems(folders)] == ["link that leads back to where it is"]


def test_a_link_to_a_folder_elsewhere_is_followed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for root in folders:
        make(tmp_path / "elsewhere", "002/nm-01/090", range(1, 4))
        (root / "002").symlink_to(tmp_path / "elsewhere/002")
    assert names(folders) == ["001/nm-01/090", "002/nm-01/090"]
    assert problems(folders) == []
