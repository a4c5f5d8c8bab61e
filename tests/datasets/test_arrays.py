"""Arrays of other programs as frames of a store."""

from typing import Any

import numpy as np
import pytest

from attengait.datasets.arrays import ArrayError, JointsError, as_two_values, picture_shape, to_frames

RANDOM = np.random.default_rng(0)


def pixels(*shape: int) -> Any:
    return RANDOM.integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7, 64, 64), (64, 64, 1)),
        ((7, 64, 44), (64, 44, 1)),
        ((7, 3, 64, 64), (64, 64, 3)),
        ((7, 64, 64, 3), (64, 64, 3)),
        ((7, 2, 64, 44), (64, 44, 2)),
        ((7, 1, 64, 64), (64, 64, 1)),
        ((7, 16, 64, 64), (64, 64, 16)),
        ((7, 3, 256, 128), (256, 128, 3)),
    ],
)
def test_channels_are_found_wherever_they_are(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    array = pixels(*shape)
    assert picture_shape(shape, pad=False) == expected
    frames = to_frames(array, pad=False)
    assert frames.shape == (7, *expected)
    axes = array if array.ndim == 4 else array[:, None]
    expected_frames = axes if shape[-1] == expected[2] else np.moveaxis(axes, 1, -1)
    np.testing.assert_array_equal(frames, expected_frames)


@pytest.mark.parametrize("shape", [(), (7,), (7, 64), (7, 17, 64, 64), (7, 3, 3, 3), (1, 7, 3, 64, 64), (7, 4, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArrayError, match="its shape is"):
        picture_shape(shape, pad=True)


@pytest.mark.parametrize(("width", "left", "right"), [(44, 10, 10), (43, 10, 11), (64, 0, 0), (70, 0, 0)])
def test_narrow_frames_get_zeros_on_both_sides(width: int, left: int, right: int) -> None:
    array = pixels(3, 64, width)
    assert picture_shape(array.shape, pad=True) == (64, max(64, width), 1)
    frames = to_frames(array, pad=True)[..., 0]
    np.testing.assert_array_equal(frames, np.pad(array, ((0, 0), (0, 0), (left, right))))
    # What OpenGait cuts off when it takes 64 columns to 44 is what was added.
    if width == 44:
        np.testing.assert_array_equal(frames[..., 10:-10], array)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16])
def test_whole_numbers_up_to_255_are_taken_as_they_are(dtype: Any) -> None:
    array = pixels(2, 8, 8)
    np.testing.assert_array_equal(to_frames(array.astype(dtype), pad=True)[..., 0], array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_from_0_to_1_are_scaled(dtype: Any) -> None:
    array = pixels(2, 8, 8)
    np.testing.assert_array_equal(to_frames((array / 255).astype(dtype), pad=True)[..., 0], array)


def test_masks_become_white_and_bytes_stay() -> None:
    mask = pixels(2, 8, 8) > 127
    np.testing.assert_array_equal(to_frames(mask, pad=True)[..., 0], mask * 255)
    ones = np.ones((2, 8, 8), np.uint8)
    np.testing.assert_array_equal(to_frames(ones, pad=True)[..., 0], ones)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ([0, 256], "from 0.0 to 256.0, not from 0 to 255"),
        ([-1, 5], "from -1.0 to 5.0"),
        ([0, 1.5], "neither from 0 to 1 nor whole"),
        ([0, np.nan], "nan"),
        ([0, np.inf], "inf"),
    ],
)
def test_values_that_are_no_pixels_are_refused(values: list[float], part: str) -> None:
    array = np.zeros((2, 8, 8))
    array[0, 0, :2] = values
    with pytest.raises(ArrayError, match=part):
        to_frames(array, pad=True)


@pytest.mark.parametrize(
    "shape",
    [
        (60, 17, 3),
        (60, 17, 2),
        (60, 25, 3),
        (60, 133, 4),
        (60, 3, 17),
        (60, 1, 17, 3),
        (60, 2, 18, 2),
        (60, 17, 5),
        (60, 17, 6),
        (3, 60, 17, 1),
        (3, 60, 17, 2),
        (2, 300, 25, 2),
    ],
)
def test_joints_are_called_by_their_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(JointsError, match=r"its shape is .* seem to be the joints of a body, not pictures") as caught:
        picture_shape(shape, pad=True)
    assert caught.value.reason == "joints of a body instead of pictures"


@pytest.mark.parametrize(
    ("values", "dtype"), [((0, 65535), np.uint16), ((0, 1000), np.int64), ((-1, 1), np.int8), ((0.0, 0.5), np.float32)]
)
def test_two_numbers_are_two_values_whatever_they_are(values: tuple[float, float], dtype: Any) -> None:
    picture = np.zeros((2, 64, 44), bool)
    picture[:, 5:50, 10:30] = True
    mapped = as_two_values(np.where(picture, values[1], values[0]).astype(dtype))
    np.testing.assert_array_equal(mapped, picture.astype(np.uint8))
    for other in (mapped, picture, np.arange(12.0).reshape(3, 2, 2), np.full((2, 3, 3), 7), np.array([np.nan, 1.0])):
        assert as_two_values(other) is other
