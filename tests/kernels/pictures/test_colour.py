"""Flow colours equal a pixel-by-pixel transcription of the recipe, whole or in part."""

import numpy as np
import pytest

from attengait.kernels.pictures.colour import colour_flow, colour_wheel, largest_magnitude

F = np.float32


def plain_wheel() -> list[tuple[F, F, F]]:
    """The Middlebury wheel, written out: red to yellow 15, to green 6, cyan 4, blue 11, magenta 13, and back 6."""
    wheel = [(F(1), F(i / 15), F(0)) for i in range(15)]
    wheel += [(F(1 - i / 6), F(1), F(0)) for i in range(6)]
    wheel += [(F(0), F(1), F(i / 4)) for i in range(4)]
    wheel += [(F(0), F(1 - i / 11), F(1)) for i in range(11)]
    wheel += [(F(i / 13), F(0), F(1)) for i in range(13)]
    wheel += [(F(1), F(0), F(1 - i / 6)) for i in range(6)]
    return wheel


def plain_colours(flow: np.ndarray) -> np.ndarray:
    """Colours of a whole frame, one pixel after the other."""
    wheel = plain_wheel()
    known = np.isfinite(flow).all(axis=-1) & (np.nan_to_num(np.abs(flow)) <= 1e6).all(axis=-1)
    largest = max((np.sqrt(dx * dx + dy * dy) for dx, dy in flow[known]), default=F(0))
    picture = np.zeros((*flow.shape[:2], 3), np.uint8)
    for y, x in np.argwhere(known):
        dx, dy = flow[y, x]
        if largest > 0:
            dx, dy = dx / largest, dy / largest
        radius = np.sqrt(dx * dx + dy * dy)
        position = (np.arctan2(-dy, -dx) / F(np.pi) + F(1)) / F(2) * F(54)
        below = int(np.floor(position))
        share = position - F(below)
        for channel in range(3):
            colour = (F(1) - share) * wheel[below][channel] + share * wheel[(below + 1) % 55][channel]
            colour = F(1) - radius * (F(1) - colour) if radius <= 1 else F(0.75) * colour
            assert isinstance(colour, F)
            picture[y, x, channel] = int(F(255) * colour)
    return picture


def colours(flow: np.ndarray) -> np.ndarray:
    return colour_flow(flow, largest_magnitude(flow))


def directions(num: int, magnitude: float) -> np.ndarray:
    """Flow in `num` directions all around, float32 [1, num, 2]."""
    angles = np.linspace(-np.pi, np.pi, num)
    return (magnitude * np.stack([np.cos(angles), np.sin(angles)], axis=-1))[None].astype(F)


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 300.0])
def test_random_flow_equals_the_plain_transcription(scale: float) -> None:
    flow = (np.random.default_rng(0).normal(size=(40, 50, 2)) * scale).astype(F)
    np.testing.assert_array_equal(colours(flow), plain_colours(flow))


def test_every_direction_equals_the_plain_transcription() -> None:
    flow = directions(3000, 7.3)
    np.testing.assert_array_equal(colours(flow), plain_colours(flow))


def test_a_fastest_pixel_whose_radius_is_rounded_above_one_equals_the_plain_transcription() -> None:
    num_above = 0
    for flow in np.random.default_rng(3).normal(size=(2000, 1, 1, 2)).astype(F):
        shares = flow[0, 0] / largest_magnitude(flow)
        num_above += np.sqrt(shares[0] * shares[0] + shares[1] * shares[1]) > 1
        np.testing.assert_array_equal(colours(flow), plain_colours(flow))
    assert num_above > 0


def test_axis_aligned_flow_with_either_zero_equals_the_plain_transcription() -> None:
    values = [F(0), F(-0.0), F(1), F(-1), F(0.5), F(-0.5)]
    flow = np.array([[(dx, dy) for dx in values] for dy in values], F)
    np.testing.assert_array_equal(colours(flow), plain_colours(flow))


def test_a_part_coloured_with_the_frame_s_largest_magnitude_equals_the_part_of_the_whole() -> None:
    flow = np.random.default_rng(1).normal(size=(60, 80, 2)).astype(F)
    part = np.s_[11:47, 23:60]
    np.testing.assert_array_equal(colour_flow(flow[part], largest_magnitude(flow)), colours(flow)[part])


def test_the_wheel_has_its_55_colours_in_float32() -> None:
    assert colour_wheel().dtype == F
    np.testing.assert_array_equal(colour_wheel(), np.array(plain_wheel(), F))


def test_no_motion_is_white() -> None:
    assert (colours(np.zeros((4, 5, 2), F)) == 255).all()
    assert (colours(np.full((4, 5, 2), -0.0, F)) == 255).all()


def test_opposite_motions_have_opposite_colours() -> None:
    left, right = colours(np.array([[(-2, 0), (2, 0)]], F))[0]
    assert left[0] < 128 < right[0]  # to the right is red
    assert right[2] < 128 < left[2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.1e6, -2e6, 3e38])
def test_unknown_flow_is_black_and_does_not_dim_the_rest(value: float) -> None:
    flow = np.random.default_rng(2).normal(size=(20, 20, 2)).astype(F)
    flow[3, 4] = (value, 0.5)
    flow[5, 6] = (0.5, value)
    picture = colours(flow)
    np.testing.assert_array_equal(picture, plain_colours(flow))
    assert (picture[3, 4] == 0).all()
    assert (picture[5, 6] == 0).all()
    assert picture.any(axis=-1).sum() == 20 * 20 - 2


def test_a_component_of_exactly_a_million_is_known() -> None:
    flow = np.zeros((2, 2, 2), F)
    flow[0, 0] = (1e6, -1e6)
    assert largest_magnitude(flow) == np.sqrt(F(2e12))
    np.testing.assert_array_equal(colours(flow), plain_colours(flow))
