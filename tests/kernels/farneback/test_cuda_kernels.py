"""Single kernels of farneback.cu against float64, on the host in every test run and on a GPU where there is one."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from attengait.kernels.farneback.cuda import DeviceFarneback
from attengait.kernels.farneback.taps import bilinear_taps, shrink_taps
from attengait.kernels.farneback.weights import pyramid, window_weights
from attengait.kernels.flow.backends import FarnebackParameters
from attengait.kernels.runtime.compile import find_compiler
from attengait.kernels.runtime.launch import CudaDevice, Device, HostDevice


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    if request.param == "gpu":
        return CudaDevice()
    if find_compiler() is None:
        pytest.skip("no C++ compiler to compile the kernels with")
    return HostDevice()


def solved(equations: np.ndarray, parameters: FarnebackParameters) -> np.ndarray:
    """The flow of averaged equations [P, 5, h, w] in float64, [P, h, w, 2]."""
    weights, radius = window_weights(parameters).astype(np.float64), parameters.winsize // 2
    padded = np.pad(equations.astype(np.float64), ((0, 0), (0, 0), (radius, radius), (radius, radius)), "edge")
    rows = sliding_window_view(padded, len(weights), axis=2) @ weights
    a11, a12, a22, b1, b2 = np.moveaxis(sliding_window_view(rows, len(weights), axis=3) @ weights, 1, 0)
    determinant = a11 * a22 - a12 * a12 + 1e-3
    return np.stack([a11 * b2 - a12 * b1, a22 * b1 - a12 * b2], axis=-1) / determinant[..., None]


def launch_solve(device: Device, equations: np.ndarray, parameters: FarnebackParameters) -> np.ndarray:
    """What the kernel makes of equations [P, 5, h, w], launched as by DeviceFarneback."""
    kernels = DeviceFarneback(device, parameters)
    num, _, height, width = equations.shape
    flows = device.upload(np.full((num, height, width, 2), np.nan, np.float32))
    kernels.solve(device.upload(equations), flows, None)
    return device.download(flows)


def random_equations(height: int, width: int) -> np.ndarray:
    """Those of two pictures with structure everywhere, so that float32 solves them well."""
    generator = np.random.default_rng(0)
    equations = generator.random((2, 5, height, width), np.float32)
    equations[:, (0, 2)] += 1
    equations[:, 1] -= 0.5
    equations[:, 3:] = 8 * equations[:, 3:] - 4
    return 1e3 * equations


@pytest.mark.parametrize("window", ["box", "gaussian"])
@pytest.mark.parametrize("winsize", [2, 3, 4, 7, 10, 15, 40, 99])
@pytest.mark.parametrize("size", [(10, 10), (61, 83), (40, 129)], ids="{0[0]}x{0[1]}".format)
def test_averaged_equations_are_solved_as_in_float64(
    device: Device, size: tuple[int, int], winsize: int, window: str
) -> None:
    """Windows shorter than the strip of a thread, and wider than the picture, are among them."""
    parameters = FarnebackParameters(winsize=winsize, window=window)
    equations = random_equations(*size)
    ours, wanted = launch_solve(device, equations, parameters), solved(equations, parameters)
    # Each of about 2 * winsize sums is rounded to 2^-24 of its size, and the solution has a few more roundings.
    assert np.abs(ours - wanted).max() <= 4e-6 * np.abs(wanted).max()


def test_nothing_is_carried_from_one_window_into_the_next(device: Device) -> None:
    """A running sum would keep what is left of a large number long after it."""
    parameters = FarnebackParameters(winsize=15)
    equations = np.ones((1, 5, 64, 96), np.float32)
    equations[:, 1] = 0
    equations[:, :, 30, 40] = 1e9
    ours, wanted = launch_solve(device, equations, parameters), solved(equations, parameters)
    far = np.ones((64, 96), bool)
    far[30 - 7 : 30 + 8, 40 - 7 : 40 + 8] = False
    np.testing.assert_allclose(ours[0, far], wanted[0, far], rtol=1e-6)


def plain_weights(size: int, source_size: int, blur: np.ndarray) -> np.ndarray:
    """The weight of each source pixel in each pixel, float64 [size, source_size]."""
    blurred = np.zeros((source_size, source_size))
    for position in range(source_size):
        for i, weight in enumerate(blur):
            reflected = abs(position + i - len(blur) // 2)
            blurred[position, min(reflected, 2 * (source_size - 1) - reflected)] += weight
    weights = np.zeros((size, source_size))
    for pixel, (index, bits) in enumerate(bilinear_taps(size, source_size)):
        share = float(bits.view(np.float32))
        weights[pixel] = (1 - share) * blurred[index]
        if share:
            weights[pixel] += share * blurred[index + 1]
    return weights


@pytest.mark.parametrize("pyr_scale", [0.5, 0.25, 0.7, 0.995])
@pytest.mark.parametrize("size", [(10, 33), (64, 64), (240, 320), (131, 97)])
def test_the_table_of_weights_is_the_blur_and_the_resizing_in_one(size: tuple[int, int], pyr_scale: float) -> None:
    height, width = size
    for level in pyramid(width, height, FarnebackParameters(pyr_scale=pyr_scale, levels=4)):
        blur = tuple(level.blur.tolist())
        num_taps = len(blur) + ((level.width, level.height) != (width, height))
        for target, source in ((level.width, width), (level.height, height)):
            table = shrink_taps(target, source, blur, num_taps)
            assert (table.dtype, table.shape) == (np.int32, (1 + num_taps, target))
            assert table[0].min() >= 0
            assert table[0].max() + num_taps <= source
            made = np.zeros((target, source))
            pixels = np.arange(target)
            for i, weights in enumerate(table[1:].view(np.float32)):
                made[pixels, table[0] + i] = weights
            np.testing.assert_allclose(made, plain_weights(target, source, level.blur), rtol=0, atol=1e-7)
