"""Ready silhouettes are kept as they are, as OpenGait keeps GREW's."""

from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
from made import left_out

from attengait.datasets import Pictures, SourceSequence
from attengait.preprocessing.ready_silhouette import ReadySilhouetteRecipe

sets = import_module("flow_sets")


def sequence(folder: Path) -> SourceSequence:
    part = Pictures.of(folder, [path.name for path in folder.iterdir()])
    return SourceSequence(subject="00001train", walk="00", view="a", parts={"silhouettes": part})


def write(folder: Path, numbers: range) -> list[np.ndarray]:
    outlines = [sets.outline(4, number) for number in numbers]
    for number, outline in zip(numbers, outlines, strict=True):
        sets.write_png(folder / f"{number:05d}.png", outline)
    return outlines


def test_silhouettes_are_kept_with_their_grey_edges_and_numbers(tmp_path: Path) -> None:
    outlines = write(tmp_path, range(3, 9))
    blurred = cv2.resize(cv2.resize(outlines[0], (150, 150)), (64, 64), interpolation=cv2.INTER_AREA)
    assert len(np.unique(blurred)) > 2
    sets.write_png(tmp_path / "00003.png", blurred)
    made = ReadySilhouetteRecipe().make(sequence(tmp_path))
    np.testing.assert_array_equal(made.pictures[..., 0], np.stack([blurred, *outlines[1:]]))
    assert (made.frame_numbers.tolist(), made.skipped) == ([3, 4, 5, 6, 7, 8], ())


def test_what_cannot_be_used_costs_itself(tmp_path: Path) -> None:
    write(tmp_path, range(1, 10))
    (tmp_path / "00002.png").write_bytes(b"damaged")
    sets.write_png(tmp_path / "00003.png", np.zeros((64, 64), np.uint8))
    sets.write_png(tmp_path / "00004.png", np.full((80, 60), 255, np.uint8))
    made = ReadySilhouetteRecipe().make(sequence(tmp_path))
    assert made.frame_numbers.tolist() == [1, 5, 6, 7, 8, 9]
    assert left_out(made) == (
        ("unreadable picture", (2,), (str(tmp_path / "00002.png"),)),
        ("wrong size", (4,), (str(tmp_path / "00004.png"),)),
        ("silhouette empty", (3,), ()),
    )
    assert "60 x 80 pixels, but ready silhouettes must have 64 x 64" in made.skipped[1].detail


def test_flow_images_are_no_silhouettes(tmp_path: Path) -> None:
    for number in range(1, 8):
        sets.write_png(tmp_path / f"{number:05d}.png", sets.flow_image(4, number))
    made = ReadySilhouetteRecipe().make(sequence(tmp_path))
    assert len(made.pictures) == 0
    assert [str(each.reason) for each in made.skipped][-1] == "too few pictures"
