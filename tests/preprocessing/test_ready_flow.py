"""Ready flow images are kept as they are, and resized where they have another size."""

from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
from made import left_out

from attengait.datasets import DATASETS, Adapter, Folders, Pictures, Scan, SourceSequence
from attengait.datasets.flow_video import FlowVideo
from attengait.errors import ParameterError
from attengait.preprocessing.ready_flow import ReadyFlowRecipe
from attengait.preprocessing.run import PreprocessConfig, run_preprocessing
from attengait.store import open_store


def write(folder: Path, shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    """Random pictures w-1.png, w-2.png and so on; returns them, RGB."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    for number, picture in enumerate(pictures, 1):
        assert cv2.imwrite(str(folder / f"w-{number}.png"), picture[..., ::-1])
    return pictures


def sequence(folder: Path) -> SourceSequence:
    flow = Pictures.of(folder, [path.name for path in folder.iterdir()])
    return SourceSequence(subject="00001", walk="a", view="000", parts={"flow": flow})


def test_pictures_of_the_right_size_are_kept_and_others_are_resized(tmp_path: Path) -> None:
    pictures = write(tmp_path, [(64, 64)] * 5 + [(80, 60)])
    for resize, how in (("cubic", cv2.INTER_CUBIC), ("linear", cv2.INTER_LINEAR)):
        made = ReadyFlowRecipe(resize=resize).make(sequence(tmp_path))
        np.testing.assert_array_equal(made.pictures[:5], np.stack(pictures[:5]))
        np.testing.assert_array_equal(made.pictures[5], cv2.resize(pictures[5], (64, 64), interpolation=how))
        assert (made.frame_numbers.tolist(), made.skipped) == ([1, 2, 3, 4, 5, 6], ())


def test_a_damaged_picture_costs_itself(tmp_path: Path) -> None:
    write(tmp_path, [(64, 64)] * 6)
    (tmp_path / "w-3.png").write_bytes(b"damaged")
    made = ReadyFlowRecipe().make(sequence(tmp_path))
    assert made.frame_numbers.tolist() == [1, 2, 4, 5, 6]
    assert left_out(made) == (("unreadable picture", (3,), (str(tmp_path / "w-3.png"),)),)


def test_a_source_of_ready_flow_images_becomes_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = write(tmp_path / "in", [(64, 64)] * 5)

    def scan(folders: Folders) -> Scan:
        assert folders.files is not None
        return Scan(sequences=(sequence(folders.files),))

    monkeypatch.setitem(DATASETS, "ready", Adapter(scan=scan, takes=("files",)))
    config = PreprocessConfig(
        dataset="ready", folders=Folders(files=tmp_path / "in"), out=tmp_path / "s.zarr", recipe=ReadyFlowRecipe()
    )
    run_preprocessing(config)
    store = open_store(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store[0], np.stack(pictures))
    assert (store.attributes["modality"], store.attributes["encoding"]) == ("flow", "colour")
    assert store.frame_numbers(0).tolist() == [1, 2, 3, 4, 5]


def test_an_unknown_interpolation_is_refused() -> None:
    with pytest.raises(ParameterError, match="nearest"):
        ReadyFlowRecipe(resize="nearest")


def test_a_grey_picture_is_no_flow_image_but_one_without_motion_is(tmp_path: Path) -> None:
    write(tmp_path, [(64, 64)] * 5)
    silhouette = np.zeros((64, 64), np.uint8)
    silhouette[10:50, 20:40] = 255
    assert cv2.imwrite(str(tmp_path / "w-6.png"), silhouette)
    assert cv2.imwrite(str(tmp_path / "w-7.png"), np.full((64, 64), 255, np.uint8))
    made = ReadyFlowRecipe().make(sequence(tmp_path))
    assert made.frame_numbers.tolist() == [1, 2, 3, 4, 5, 7]
    assert (made.pictures[5] == 255).all()
    assert left_out(made) == (("grey picture instead of a flow image", (6,), ()),)


def test_a_video_of_flow_gives_its_frames_with_their_times_and_is_recorded_as_lossy(tmp_path: Path) -> None:
    videos, sets = import_module("videos"), import_module("flow_sets")
    images = [sets.flow_image(3, number, size=96) for number in range(1, 9)]
    path = videos.encode(tmp_path / "seq_0001.mp4", [image[..., ::-1] for image in images], "mp4v")
    part = FlowVideo(path=str(path), max_images=8)
    walk = SourceSequence(subject="00001", walk="01", view="090", parts={"flow": part})
    recipe, scan = ReadyFlowRecipe(resize="linear").fit(Scan(sequences=(walk,)))
    assert recipe.attributes["recipe"]["lossy"] is True
    made = recipe.make(scan.sequences[0])
    expected = np.stack([cv2.resize(image, (64, 64), interpolation=cv2.INTER_LINEAR) for image in images])
    assert abs(made.pictures.astype(int) - expected).mean() < 10
    assert made.frame_numbers.tolist() == list(range(1, 9))
    assert made.times_seconds is not None
    np.testing.assert_allclose(made.times_seconds, np.arange(8) / 25, atol=1e-3)
    assert made.skipped == ()


def test_a_video_that_breaks_is_used_up_to_there(tmp_path: Path) -> None:
    videos, sets = import_module("videos"), import_module("flow_sets")
    images = [sets.flow_image(3, number)[..., ::-1] for number in range(1, 13)]
    path = videos.encode(tmp_path / "seq_0001.mp4", images, "mp4v")
    data = bytearray(path.read_bytes())
    content = data.index(b"mdat") + 4
    data[content + 9 * (data.index(b"moov") - content) // 10 : data.index(b"moov") - 4] = b"\xff" * (
        data.index(b"moov") - 4 - (content + 9 * (data.index(b"moov") - content) // 10)
    )
    path.write_bytes(data)
    walk = SourceSequence(subject="1", walk="1", view="1", parts={"flow": FlowVideo(path=str(path), max_images=12)})
    made = ReadyFlowRecipe().make(walk)
    ((reason, lost, files),) = left_out(made)
    assert (reason, files) == ("broken video", (str(path),))
    assert made.frame_numbers.tolist() + list(lost) == list(range(1, 13))
    assert 5 <= len(made.pictures) < 12


def test_pictures_are_not_lossy(tmp_path: Path) -> None:
    write(tmp_path, [(64, 64)] * 5)
    recipe, _ = ReadyFlowRecipe().fit(Scan(sequences=(sequence(tmp_path),)))
    assert recipe.attributes["recipe"]["lossy"] is False
