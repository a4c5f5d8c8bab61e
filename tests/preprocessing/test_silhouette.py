"""Crops of silhouettes: every frame with a walker gives one, whatever its neighbours are; what is left out is named."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from made import left_out

from attengait.datasets import Pictures, SourceSequence
from attengait.errors import ParameterError
from attengait.kernels.pictures.encode import encode_silhouette
from attengait.preprocessing.silhouette import SilhouetteRecipe


def figure(number: int, height: int = 96, width: int = 128) -> np.ndarray:
    picture = np.zeros((height, width), np.uint8)
    return cv2.ellipse(picture, (20 + 5 * number, 50), (8 + number, 35), 0, 0, 360, 255, -1)


def path_of(folder: Path, number: int) -> Path:
    return folder / f"001-nm-01-090-{number:03d}.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten silhouettes."""
    for number in range(1, 11):
        cv2.imwrite(str(path_of(tmp_path, number)), figure(number))
    return tmp_path


def sequence(folder: Path) -> SourceSequence:
    pictures = Pictures.of(folder, [path.name for path in folder.iterdir()])
    return SourceSequence(subject="001", walk="nm-01", view="090", parts={"silhouettes": pictures})


def test_every_frame_gives_its_crop_the_first_and_those_after_a_gap_too(folder: Path) -> None:
    path_of(folder, 4).unlink()
    numbers = [1, 2, 3, 5, 6, 7, 8, 9, 10]
    recipe = SilhouetteRecipe()
    result = recipe.make(sequence(folder))
    assert result.frame_numbers.tolist() == numbers
    np.testing.assert_array_equal(result.pictures, np.stack([encode_silhouette(figure(n), 64) for n in numbers]))
    assert result.pictures.shape == (9, *recipe.frame_shape)
    assert left_out(result) == ()
    assert recipe.max_pictures(sequence(folder)) == 9


def test_what_is_unreadable_or_empty_is_named_and_costs_itself_only(folder: Path) -> None:
    path_of(folder, 2).write_bytes(b"damaged")
    cv2.imwrite(str(path_of(folder, 5)), np.zeros((96, 128), np.uint8))
    cv2.imwrite(str(path_of(folder, 7)), figure(7, width=200))  # of another size, which does not matter here
    result = SilhouetteRecipe().make(sequence(folder))
    assert result.frame_numbers.tolist() == [1, 3, 4, 6, 7, 8, 9, 10]
    assert left_out(result) == (
        ("unreadable picture", (2,), (str(path_of(folder, 2)),)),
        ("silhouette empty", (5,), ()),
    )


def test_the_threshold_and_the_least_number_of_frames_count(folder: Path) -> None:
    sums = {number: int(figure(number).sum()) for number in range(1, 11)}
    recipe = SilhouetteRecipe(silhouette_threshold=sums[5])
    assert recipe.make(sequence(folder)).frame_numbers.tolist() == [6, 7, 8, 9, 10]
    result = replace(recipe, min_frames=6).make(sequence(folder))
    assert result.pictures.shape == (0, 64, 64, 1)
    assert left_out(result)[-1] == ("too few pictures", (), ())


def test_the_store_learns_modality_encoding_and_every_parameter() -> None:
    assert SilhouetteRecipe().attributes == {
        "modality": "silhouette",
        "encoding": "gray",
        "recipe": {
            "name": "attengait-silhouette",
            "version": 1,
            "crop_size": 64,
            "silhouette_threshold": 10000,
            "min_frames": 5,
        },
    }


@pytest.mark.parametrize(("name", "value"), [("crop_size", 63), ("silhouette_threshold", -1), ("min_frames", 0)])
def test_a_parameter_out_of_range_is_named_with_its_value(name: str, value: int) -> None:
    with pytest.raises(ParameterError, match=rf"^{name} is {value}, but must be "):
        replace(SilhouetteRecipe(), **{name: value})
