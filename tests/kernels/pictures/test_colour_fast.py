"""The compiled colours are those of kernels/colour.py, but for one level in a few values of a million."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from attengait.kernels.pictures import colour, colour_fast
from attengait.kernels.runtime.compile import find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler (c++, g++ or clang++)")


def assert_almost_equal(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    differences = np.abs(ours.astype(int) - theirs)
    assert differences.max(initial=0) <= 1
    assert np.count_nonzero(differences) <= 2 + 1e-5 * differences.size


@pytest.mark.parametrize("shape", [(1, 1), (3, 15), (40, 64), (37, 129), (300, 400)])
def test_colours_and_largest_magnitude_are_those_of_the_plain_functions(shape: tuple[int, int]) -> None:
    flow = np.random.default_rng(0).standard_normal((*shape, 2)).astype(np.float32)
    largest = colour.largest_magnitude(flow)
    assert colour_fast.largest_magnitude(flow) == largest
    assert_almost_equal(colour_fast.colour_flow(flow, largest), colour.colour_flow(flow, largest))


def test_every_direction_has_its_colour() -> None:
    angles = np.linspace(-np.pi, np.pi, 100_000)
    flow = np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)[None]
    assert_almost_equal(colour_fast.colour_flow(flow, np.float32(1)), colour.colour_flow(flow, np.float32(1)))


@pytest.mark.parametrize("largest", [0.0, 1e-30, 1.0, 1e6])
def test_axes_zeros_unknown_and_extreme_values_are_coloured_alike(largest: float) -> None:
    values = np.array([0.0, -0.0, 1e-38, 1e-30, -0.5, 1.0, 1.0000001, 1e6, -1e6, 1.1e6, np.inf, -np.inf, np.nan])
    flow = np.stack(np.meshgrid(values, values), -1).astype(np.float32)
    with np.errstate(all="ignore"):
        assert colour_fast.largest_magnitude(flow) == colour.largest_magnitude(flow)
        theirs = colour.colour_flow(flow, np.float32(largest))
    assert_almost_equal(colour_fast.colour_flow(flow, np.float32(largest)), theirs)


def test_no_motion_is_white_and_unknown_flow_black() -> None:
    flow = np.zeros((2, 3, 2), np.float32)
    flow[1, 2] = np.nan
    expected = np.full((2, 3, 3), 255, np.uint8)
    expected[1, 2] = 0
    np.testing.assert_array_equal(colour_fast.colour_flow(flow, np.float32(0)), expected)
    assert colour_fast.largest_magnitude(flow) == 0


def test_a_part_of_a_flow_is_coloured_as_the_whole_is() -> None:
    flow = np.random.default_rng(1).standard_normal((50, 70, 2)).astype(np.float32)
    largest = colour_fast.largest_magnitude(flow)
    whole = colour_fast.colour_flow(flow, largest)
    for part in (
        (slice(7, 31), slice(11, 64)),
        (slice(None, None, 2), slice(None, None, 3)),
        (slice(4, 4), slice(None)),
    ):
        np.testing.assert_array_equal(colour_fast.colour_flow(flow[part], largest), whole[part])
    assert colour_fast.largest_magnitude(flow[:, ::-1]) == largest


@pytest.mark.parametrize("flow", [np.zeros((4, 5, 2)), np.zeros((4, 5, 3), np.float32), np.zeros((4, 5), np.float32)])
def test_what_is_no_flow_is_refused(flow: np.ndarray) -> None:
    for function in (colour_fast.largest_magnitude, lambda flow: colour_fast.colour_flow(flow, np.float32(1))):
        with pytest.raises(TypeError, match=r"^flow is .*\], but must be float32 \[h, w, 2\]$"):
            function(flow)


def test_the_source_compiles_without_a_warning(tmp_path: Path) -> None:
    command = [
        str(find_compiler()),
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Wshadow",
        "-shared",
        "-fPIC",
        *colour_fast.FLAGS,
    ]
    command += [str(colour_fast.SOURCE), "-o", str(tmp_path / "library.so")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
