"""Ready flow images are kept as they are, and resized where they have another size."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from made import left_out

from attengait.datasets import DATASETS, Adapter, Folders, Pictures, Scan, SourceSequence
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
