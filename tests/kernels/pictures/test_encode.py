"""Stored pictures of one frame: each encoding against a plain transcription and known motion."""

import cv2
import numpy as np
import pytest
from plain_colour import plain_flow_image

from attengait.errors import ParameterError
from attengait.kernels.pictures.encode import ENCODINGS, decode_uv, encode, encode_silhouette

F = np.float32


def walker(height: int, width: int, *, top: int, left: int, rows: int, columns: int) -> np.ndarray:
    silhouette = np.zeros((height, width), np.uint8)
    silhouette[top : top + rows, left : left + columns] = 255
    return silhouette


def constant(u: float, v: float, height: int = 96, width: int = 160) -> np.ndarray:
    return np.full((height, width, 2), (u, v), F)


CENTRAL = walker(96, 160, top=16, left=70, rows=64, columns=20)
"""A walker 64 rows high, whose crop is the picture itself and lies inside it."""


def plain_crop(flow: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    """The recipe's crop of a float32 flow, line by line, 0 outside the picture."""
    rows = np.flatnonzero(silhouette.sum(axis=1))
    flow, silhouette = flow[rows[0] : rows[-1] + 1], silhouette[rows[0] : rows[-1] + 1]
    width = int(64 * flow.shape[1] / flow.shape[0])
    flow = cv2.resize(flow, (width, 64), interpolation=cv2.INTER_CUBIC)
    mass = cv2.resize(silhouette, (width, 64), interpolation=cv2.INTER_CUBIC).sum(axis=0).cumsum()
    middle = int(np.argmax(mass > mass[-1] / 2))
    flow = np.pad(flow, ((0, 0), (32, 32), (0, 0)))
    return flow[:, middle : middle + 64]


def plain_uvm(flow: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    """The three channels of uvm, one value after the other."""
    flow = plain_crop(flow, silhouette)
    picture = np.zeros((64, 64, 3), np.uint8)
    for y, x in np.ndindex(64, 64):
        u, v = flow[y, x]
        for channel, value in enumerate((u, v)):
            picture[y, x, channel] = 128 + max(-127, min(127, round(float(value * F(8)))))
        picture[y, x, 2] = min(255, round(float(np.sqrt(u * u + v * v) * F(8))))
    return picture


def test_colours_of_random_flow_and_silhouettes_equal_the_plain_transcription() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        shape = tuple(random.integers(70, 200, 2))
        small = random.normal(size=(6, 7, 2)).astype(F) * 3
        flow = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_LINEAR)
        silhouette = np.zeros(shape, np.uint8)
        top, left = random.integers(0, shape[0] - 50), random.integers(0, shape[1] - 10)
        figure = (random.random((50, 10)) < 0.8) * np.uint8(255)
        silhouette[top : top + 50, left : left + 10] = figure
        np.testing.assert_array_equal(encode(flow, silhouette, "colour", 64), plain_flow_image(flow, silhouette))


def test_a_still_scene_is_white_in_colour() -> None:
    silhouette = np.zeros((96, 128), np.uint8)
    silhouette[10:90, 50:80] = 255
    assert (encode(np.zeros((96, 128, 2), F), silhouette, "colour", 64) == 255).all()


@pytest.mark.parametrize(
    ("u", "v", "steps"),
    [
        (0, 0, (0, 0, 0)),
        (1, -1, (8, -8, 11)),
        (0.25, 0.5, (2, 4, 4)),
        (-3.0, 4.0, (-24, 32, 40)),
        (0.0624, -0.0624, (0, 0, 1)),
        (0.0626, -0.0626, (1, -1, 1)),
        (15.875, -15.875, (127, -127, 180)),
        (16, -16, (127, -127, 181)),
        (1000, -1000, (127, -127, 255)),
    ],
)
def test_a_constant_flow_gives_its_eighths_of_a_pixel_clipped_to_127_of_them(
    u: float, v: float, steps: tuple[int, int, int]
) -> None:
    expected = np.array([steps[0] + 128, steps[1] + 128, steps[2]])
    for encoding, channels in (("uv", 2), ("uvm", 3)):
        picture = encode(constant(u, v), CENTRAL, encoding, 64)
        assert (picture.dtype, picture.shape) == (np.uint8, (64, 64, channels))
        assert (picture == expected[:channels]).all()


def test_outside_the_picture_nothing_moves() -> None:
    at_the_edge = walker(96, 160, top=16, left=0, rows=64, columns=20)
    uv, uvm = (encode(constant(5, -5), at_the_edge, encoding, 64) for encoding in ("uv", "uvm"))
    # The middle of the walker is column 10, so 22 of the window's 32 columns to its left are outside.
    assert (uv[:, :22] == 128).all()
    assert (uvm[:, :22] == (128, 128, 0)).all()
    assert (uv[:, 22:] == (168, 88)).all()
    assert (uvm[:, 22:] == (168, 88, 57)).all()


@pytest.mark.parametrize("unknown", [np.nan, np.inf, -np.inf, 2e6, -2e6])
def test_unknown_flow_does_not_move_and_leaves_its_neighbours_alone(unknown: float) -> None:
    flow = constant(2, -3)
    flow[40, 80, 1] = unknown
    picture = encode(flow, CENTRAL, "uvm", 64)
    still = (picture == (128, 128, 0)).all(axis=-1)
    assert np.argwhere(still).tolist() == [[24, 32]]
    assert (picture[~still] == (144, 104, 29)).all()


def test_speed_stays_in_pixels_of_the_original_frame_whatever_the_size_of_the_walker() -> None:
    for rows in (20, 40, 80):
        silhouette = walker(96, 160, top=8, left=70, rows=rows, columns=20)
        assert (encode(constant(2, -1), silhouette, "uv", 64)[20:40, 28:36] == (144, 120)).all()


def test_uv_and_uvm_equal_the_plain_transcription_wherever_the_walker_is() -> None:
    random = np.random.default_rng(1)
    for _ in range(12):
        height, width = (int(size) for size in random.integers(70, 200, 2))
        flow = cv2.resize(random.normal(size=(6, 7, 2)).astype(F) * 5, (width, height), interpolation=cv2.INTER_LINEAR)
        top, left = (int(random.integers(0, limit)) for limit in (height - 50, width - 10))
        silhouette = walker(height, width, top=top, left=left, rows=50, columns=10)
        expected = plain_uvm(flow, silhouette)
        np.testing.assert_array_equal(encode(flow, silhouette, "uvm", 64), expected)
        np.testing.assert_array_equal(encode(flow, silhouette, "uv", 64), expected[..., :2])


def test_decoded_flow_is_within_a_sixteenth_of_a_pixel_inside_the_range() -> None:
    random = np.random.default_rng(2)
    flow = np.clip(random.normal(size=(64, 160, 2)).astype(F) * 6, -15.875, 15.875)
    silhouette = walker(64, 160, top=0, left=70, rows=64, columns=20)  # the crop is columns 48 to 111, not resized
    for encoding in ("uv", "uvm"):
        decoded = decode_uv(encode(flow, silhouette, encoding, 64))
        assert decoded.dtype == F
        assert decoded.shape == (64, 64, 2)
        error = np.abs(decoded - flow[:, 48:112])
        assert 0.05 < error.max() <= 1 / 16


def test_no_motion_and_all_steps_survive_decoding() -> None:
    steps = np.arange(-127, 128)
    pictures = np.stack([steps + 128, 128 - steps], axis=-1).astype(np.uint8)
    np.testing.assert_array_equal(decode_uv(pictures), np.stack([steps, -steps], axis=-1).astype(F) / 8)
    np.testing.assert_array_equal(decode_uv(pictures, steps_per_px=4), np.stack([steps, -steps], axis=-1) / 4)


@pytest.mark.parametrize(
    "pictures", [np.zeros((3, 4, 1), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 2)), np.uint8(3)]
)
def test_what_is_no_uv_picture_is_not_decoded(pictures: np.ndarray) -> None:
    with pytest.raises(ParameterError, match=r"^pictures is .*, but must be uint8 \[\.\.\., 2\] or \[\.\.\., 3\]$"):
        decode_uv(np.asarray(pictures))


def test_a_mirrored_scene_gives_mirrored_columns_with_u_turned_round() -> None:
    flow = cv2.resize(np.random.default_rng(3).normal(size=(6, 8, 2)).astype(F) * 9, (160, 64))
    silhouette = walker(64, 160, top=0, left=30, rows=64, columns=20)
    mirrored = encode(flow[:, ::-1] * F((-1, 1)), silhouette[:, ::-1], "uvm", 64)
    expected = encode(flow, silhouette, "uvm", 64)[:, ::-1].astype(int)
    expected[..., 0] = 256 - expected[..., 0]
    np.testing.assert_array_equal(mirrored, expected)
    assert (encode(flow, silhouette, "uvm", 64)[..., :2] == 1).any(), "nothing is clipped"


def test_a_silhouette_is_cropped_as_colours_are() -> None:
    random = np.random.default_rng(4)
    for _ in range(20):
        height, width = (int(size) for size in random.integers(70, 200, 2))
        top, left = (int(random.integers(0, limit)) for limit in (height - 50, width - 10))
        silhouette = walker(height, width, top=top, left=left, rows=50, columns=10)
        silhouette[top + 10 : top + 30, left : left + 4] = 0
        resized = cv2.resize(silhouette[top : top + 50], (64 * width // 50, 64), interpolation=cv2.INTER_CUBIC)
        mass = resized.sum(axis=0).cumsum()
        middle = int(np.argmax(mass > mass[-1] / 2))
        picture = encode_silhouette(silhouette, 64)
        assert picture.shape == (64, 64, 1)
        np.testing.assert_array_equal(picture[..., 0], np.pad(resized, ((0, 0), (32, 32)))[:, middle : middle + 64])


def test_every_encoding_has_the_channels_it_says() -> None:
    for name, encoding in ENCODINGS.items():
        assert encode(constant(1, 2), CENTRAL, name, 32).shape == (32, 32, encoding.channels)


def test_an_unknown_encoding_is_refused_by_name() -> None:
    with pytest.raises(ParameterError, match=r"^encoding is 'hsv', but must be one of colour, uv, uvm$"):
        encode(np.zeros((9, 9, 2), F), np.full((9, 9), 255, np.uint8), "hsv", 8)
