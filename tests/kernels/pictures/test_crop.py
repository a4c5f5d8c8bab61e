"""The crop around a walker equals a plain transcription of the recipe, the padding branch included."""

import cv2
import numpy as np

from attengait.kernels.pictures.crop import cut, find_crop, has_walker, source_columns


def plain_crop(picture: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    """The recipe's crop of a whole picture [H, W, 3], as its page says it."""
    rows = [y for y in range(len(silhouette)) if silhouette[y].any()]
    picture, silhouette = picture[rows[0] : rows[-1] + 1], silhouette[rows[0] : rows[-1] + 1]
    height, width = silhouette.shape
    width = int(64 * width / height)
    picture = cv2.resize(picture, (width, 64), interpolation=cv2.INTER_CUBIC)
    silhouette = cv2.resize(silhouette, (width, 64), interpolation=cv2.INTER_CUBIC)
    total, mass, middle = int(silhouette.astype(np.int64).sum()), 0, 0
    for column in range(width):
        mass += int(silhouette[:, column].astype(np.int64).sum())
        if mass > total / 2:
            middle = column
            break
    left, right = middle - 32, middle + 32
    if left <= 0 or right >= width:
        black = np.zeros((64, 32, 3), np.uint8)
        picture = np.concatenate([black, picture, black], axis=1)
        left, right = left + 32, right + 32
    return picture[:, left:right]


def our_crop(picture: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    """The same, from a picture that holds noise wherever the crop should not look."""
    crop = find_crop(silhouette, 64)
    first, last = source_columns(crop, picture.shape[1])
    rows = np.random.default_rng(9).integers(0, 256, (crop.bottom - crop.top, *picture.shape[1:]), dtype=np.uint8)
    rows[:, first:last] = picture[crop.top : crop.bottom, first:last]
    return cut(rows, crop)


def person(shape: tuple[int, int], top: int, bottom: int, left: int, right: int) -> np.ndarray:
    silhouette = np.zeros(shape, np.uint8)
    middle, axes = ((left + right) // 2, (top + bottom) // 2), ((right - left) // 2, (bottom - top) // 2)
    return cv2.ellipse(silhouette, middle, axes, 0, 0, 360, 255, -1)


def test_random_walkers_equal_the_plain_transcription_whatever_lies_outside_the_needed_columns() -> None:
    random = np.random.default_rng(0)
    padded = 0
    for _ in range(400):
        height, width = random.integers(40, 300), random.integers(40, 400)
        top, left = random.integers(0, height - 12), random.integers(0, width - 6)
        bottom, right = random.integers(top + 10, height), random.integers(left + 4, width)
        silhouette = person((height, width), top, bottom, left, right)
        picture = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        crop = find_crop(silhouette, 64)
        padded += crop.left < 0 or crop.left + 64 > crop.width
        np.testing.assert_array_equal(our_crop(picture, silhouette), plain_crop(picture, silhouette))
    assert 50 < padded < 350  # both branches were met


def test_a_walker_at_any_column_equals_the_plain_transcription() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    for column in range(319):
        silhouette = np.zeros((240, 320), np.uint8)
        silhouette[60:180, column : column + 2] = 255
        np.testing.assert_array_equal(our_crop(picture, silhouette), plain_crop(picture, silhouette))


def test_the_window_reaches_beyond_the_left_and_the_right_edge_in_black() -> None:
    picture = np.full((240, 320, 3), 200, np.uint8)
    at_left, at_right = np.zeros((240, 320), np.uint8), np.zeros((240, 320), np.uint8)
    at_left[:, :10] = 255
    at_right[:, -10:] = 255
    left, right = our_crop(picture, at_left), our_crop(picture, at_right)
    assert (left[:, :30] == 0).all()
    assert (left[:, 34:] == 200).all()
    assert (right[:, :30] == 200).all()
    assert (right[:, 34:] == 0).all()


def test_rows_run_from_the_first_to_the_last_that_are_not_zero_with_holes_between() -> None:
    silhouette = np.zeros((100, 120), np.uint8)
    silhouette[20, 50], silhouette[69, 60] = 1, 255
    crop = find_crop(silhouette, 64)
    assert (crop.top, crop.bottom) == (20, 70)
    assert crop.width == 64 * 120 // 50


def test_a_silhouette_that_fills_the_picture_or_one_row_has_a_crop() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    full, row = np.full((50, 60), 255, np.uint8), np.zeros((50, 60), np.uint8)
    row[25] = 255
    for silhouette in (full, row):
        np.testing.assert_array_equal(our_crop(picture, silhouette), plain_crop(picture, silhouette))


def test_a_very_narrow_picture_still_gives_a_square() -> None:
    silhouette = np.full((300, 2), 255, np.uint8)
    assert our_crop(np.full((300, 2, 3), 9, np.uint8), silhouette).shape == (64, 64, 3)


def test_mass_that_vanishes_in_the_resize_puts_the_middle_at_the_left_edge() -> None:
    silhouette = np.zeros((640, 20), np.uint8)
    silhouette[[0, 639], :] = 255  # a tenth of the size looks at neither row
    assert find_crop(silhouette, 64).left == -32


def test_a_walker_is_there_when_the_sum_is_above_the_threshold() -> None:
    silhouette = np.zeros((240, 320), np.uint8)
    silhouette[:50, 0] = 200
    assert not has_walker(silhouette, 10_000)
    silhouette[100, 100] = 1
    assert has_walker(silhouette, 10_000)
    assert has_walker(np.full((4000, 6000), 255, np.uint8), 2**32)
