"""OUMVLP's folders: pictures and videos of flow are found by subject, view and sequence; the rest is named."""

from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import attengait
from attengait.cli.main import app
from attengait.datasets import Folders, find_dataset
from attengait.datasets.flow_video import FlowVideo, num_coded_frames
from attengait.datasets.oumvlp import scan
from attengait.datasets.source import Fault
from attengait.errors import AttenGaitError, ParameterError
from attengait.preprocessing.ready import ready_recipe
from attengait.store import open_store
from attengait.store.skipped import Reason

sets, videos = import_module("flow_sets"), import_module("videos")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sets.make_oumvlp(tmp_path / "of", frames=5, subjects=("00001", "10307"), views=("000", "270"))
    return tmp_path / "of"


def write_video(path: Path, frames: int = 6) -> Path:
    images = [sets.flow_image(5, number)[..., ::-1] for number in range(1, frames + 1)]
    return Path(videos.encode(path, images, "mp4v"))


def found(root: Path) -> list[tuple[str, str]]:
    skipped = scan(Folders(flow_images=root)).skipped
    return [(str(each.reason), each.where.removeprefix(f"{root}/")) for each in skipped]


def test_a_sequence_has_a_subject_a_view_and_a_number(root: Path) -> None:
    result = scan(Folders(flow_images=root))
    assert [sequence.name for sequence in result.sequences] == [
        f"{subject}/{walk}/{view}" for subject in ("00001", "10307") for walk in ("00", "01") for view in ("000", "270")
    ]
    assert list(result.sequences[0].parts["flow"].by_number) == [1, 2, 3, 4, 5]
    assert result.skipped == ()


@pytest.mark.parametrize("name", ["frame_0012.png", "0011_0012.png", "00012_flow.png", "00001-000-0012.png"])
def test_a_picture_has_the_last_number_of_its_name(root: Path, name: str) -> None:
    folder = root / "00001/000_00"
    (folder / "0005.png").rename(folder / name)
    assert list(scan(Folders(flow_images=root)).sequences[0].parts["flow"].by_number) == [1, 2, 3, 4, 12]


def test_what_does_not_belong_is_named(root: Path) -> None:
    (root / "00001/000_00/flow.png").write_bytes(b"x")
    (root / f"00001/000_00/{'9' * 30}.png").write_bytes(b"x")
    (root / "00001/000_00/notes.txt").write_bytes(b"x")
    (root / "00001/090_01").mkdir()
    (root / "00001/90_01").mkdir()
    (root / "00001/flow.zip").write_bytes(b"x")
    (root / "7").mkdir()
    (root / "ID_list.csv").write_text("x")
    assert Counter(found(root)) == Counter(
        [
            (Reason.FOREIGN_PICTURES, "00001/000_00"),
            (Reason.FOREIGN_FILE, "00001/000_00"),
            (Reason.NO_FLOW, "00001/090_01"),
            (Reason.FOREIGN_FOLDER, "00001/90_01"),
            (Reason.PACKED, "00001/flow.zip"),
            (Reason.FOREIGN_FOLDER, "7"),
            (Reason.FOREIGN_FILE, "ID_list.csv"),
        ]
    )
    pictures = next(each for each in scan(Folders(flow_images=root)).skipped if each.reason == Reason.FOREIGN_PICTURES)
    assert pictures.detail.startswith("2 of its entries")


def test_videos_are_found_with_a_view_without_one_and_without_a_subject(tmp_path: Path) -> None:
    for name in ("00001/015_01/seq_0001.mp4", "00001/seq_0007.mp4", "seq_0042.mp4"):
        write_video(tmp_path / name, frames=6)
    result = scan(Folders(flow_images=tmp_path))
    assert [sequence.name for sequence in result.sequences] == [
        "00001/01/015",
        "00001/seq_0007/unknown",
        "probe/probe/seq_0042",
    ]
    assert all(sequence.parts["flow"].max_images == 6 for sequence in result.sequences)
    assert result.skipped == ()


def test_pictures_come_before_a_video_and_one_video_before_another(root: Path) -> None:
    write_video(root / "00001/000_00/seq_0001.mp4")
    for number in (1, 2):
        write_video(root / f"00001/090_00/seq_{number:04d}.mp4")
    sequences = {sequence.name: sequence.parts["flow"] for sequence in scan(Folders(flow_images=root)).sequences}
    assert sequences["00001/00/000"].kind == "pictures"
    assert sequences["00001/00/090"].where.endswith("seq_0001.mp4")
    assert found(root) == [
        (Reason.FOREIGN_FILE, "00001/000_00"),
        (Reason.SEQUENCE_TWICE, "00001/090_00/seq_0002.mp4"),
    ]


def test_the_coded_frames_of_a_video_are_counted_by_its_header(tmp_path: Path) -> None:
    assert num_coded_frames(str(write_video(tmp_path / "a.mp4", frames=9))) == 9
    faults: list[Fault] = []
    images = list(FlowVideo(path=str(tmp_path / "a.mp4"), max_images=9).read_flow(faults))
    assert [image.number for image in images] == list(range(1, 10))
    assert faults == []
    # The order is red, green and blue, and a video keeps the colours roughly.
    assert abs(images[0].pixels.astype(int) - sets.flow_image(5, 1)).mean() < 10
    part = FlowVideo(path=str(tmp_path / "a.mp4"), max_images=7)
    assert len(list(part.read_flow(faults))) == 7
    assert [(fault.reason, fault.number) for fault in faults] == [(Reason.BROKEN_VIDEO, number) for number in (8, 9)]


def test_a_header_that_lies_or_ends_counts_no_frames(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mp4", frames=9).read_bytes()
    sizes = data.index(b"stsz") + 4
    lies = bytearray(data)
    lies[sizes + 8 : sizes + 12] = b"\xff\xff\xff\xff"
    constant = bytearray(lies)
    constant[sizes + 4 : sizes + 8] = b"\x00\x00\x10\x00"
    sound = data.replace(b"vide", b"soun")
    for content in (b"", b"no video", data[: len(data) // 2], bytes(lies), bytes(constant), sound):
        (tmp_path / "b.mp4").write_bytes(content)
        assert num_coded_frames(str(tmp_path / "b.mp4")) == 0
    for at in range(0, len(data), 7):  # whatever is cut off, it is no error
        (tmp_path / "b.mp4").write_bytes(data[:at])
        assert 0 <= num_coded_frames(str(tmp_path / "b.mp4")) <= 9


def test_a_video_without_frames_is_named(root: Path) -> None:
    (root / "00001/seq_0003.mp4").write_bytes(b"broken")
    assert found(root) == [(Reason.BROKEN_VIDEO, "00001/seq_0003.mp4")]


def test_folders_of_no_use_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="flow_images is missing"):
        scan(Folders())
    (tmp_path / "file").write_text("x")
    with pytest.raises(AttenGaitError, match="is a file"):
        scan(Folders(flow_images=tmp_path / "file"))
    with pytest.raises(AttenGaitError, match="holds no sequence laid out as SUBJECT/VIEW_SEQUENCE"):
        scan(Folders(flow_images=tmp_path))
    with pytest.raises(AttenGaitError, match="holds no sequence laid out as Silhouette_VIEW-SEQUENCE"):
        scan(Folders(silhouettes=tmp_path))
    with pytest.raises(ParameterError, match="oumvlp takes flow_images and silhouettes only"):
        find_dataset("oumvlp").check("oumvlp", Folders(frames=tmp_path))
    with pytest.raises(ParameterError, match="must be another folder than flow_images"):
        scan(Folders(flow_images=tmp_path, silhouettes=tmp_path))


@pytest.fixture
def silhouettes(root: Path, tmp_path: Path) -> Path:
    """OUMVLP's folders of the same sequences."""
    for sequence in scan(Folders(flow_images=root)).sequences:
        folder = tmp_path / f"OUMVLP/Silhouette_{sequence.view}-{sequence.walk}/{sequence.subject}"
        folder.mkdir(parents=True)
        for number in range(1, 7):
            picture = np.zeros((100, 120), np.uint8)
            picture[10:90, 40 + number : 60 + number] = 255
            sets.write_png(folder / f"{number:04d}.png", picture)
    return tmp_path / "OUMVLP"


def test_silhouettes_have_the_names_of_the_flow(root: Path, silhouettes: Path) -> None:
    both = scan(Folders(flow_images=root, silhouettes=silhouettes))
    assert [sorted(sequence.parts) for sequence in both.sequences] == [["flow", "silhouettes"]] * 8
    assert both.skipped == ()
    alone = scan(Folders(silhouettes=silhouettes)).sequences
    assert [sequence.name for sequence in alone] == [sequence.name for sequence in both.sequences]
    (silhouettes / "Silhouette_090_01").mkdir()
    (silhouettes / "Silhouette_000-00/1").mkdir()
    (silhouettes / "Silhouette_000-00/00009").mkdir()
    (silhouettes / "Silhouette_015-00.zip").write_bytes(b"x")
    assert {(each.reason, Path(each.where).name) for each in scan(Folders(silhouettes=silhouettes)).skipped} == {
        (Reason.FOREIGN_FOLDER, "Silhouette_090_01"),
        (Reason.FOREIGN_FOLDER, "1"),
        (Reason.NO_SILHOUETTES, "00009"),
        (Reason.PACKED, "Silhouette_015-00.zip"),
    }


def test_silhouettes_are_cut_out_by_the_command_and_by_the_function(silhouettes: Path, tmp_path: Path) -> None:
    command, function = tmp_path / "command.zarr", tmp_path / "function.zarr"
    words = ["preprocess", "oumvlp", "--silhouettes", str(silhouettes), "--out", str(command)]
    with pytest.raises(ParameterError, match="must be flow or silhouette: oumvlp is distributed as ready pictures"):
        ready_recipe("oumvlp", "silhouette+flow")
    done = CliRunner().invoke(app, [*words, "--modality", "silhouette"], catch_exceptions=False)
    assert done.exit_code == 0
    attengait.preprocess("oumvlp", function, silhouettes=silhouettes)
    made = [open_store(path) for path in (command, function)]
    assert made[0].attributes["digest"] == made[1].attributes["digest"]
    assert (made[0].attributes["recipe"]["name"], made[0].attributes["modality"]) == (
        "attengait-silhouette",
        "silhouette",
    )
    assert [made[0][i].shape for i in range(8)] == [(6, 64, 64, 1)] * 8
    assert made[0][0].any(axis=(1, 2, 3)).all()
