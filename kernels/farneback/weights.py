"""The levels of Farneback's pyramid, and the weights of its averages, as the kernels of farneback.cu take them."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError
from attengait.kernels.flow.backends import LEAST_SIDE_PX, FarnebackParameters

LEAST_LEVEL_SIDE = 32
"""A level whose height or width would fall below this many pixels is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One level of the pyramid."""

    width: int
    height: int
    blur: NDArray[np.float32]
    """[2 * radius + 1], weights of the Gaussian that precedes resizing."""


def pyramid(width: int, height: int, parameters: FarnebackParameters) -> list[Level]:
    """Return the levels for frames of a size, full resolution first; raises ParameterError for frames below 10 x 10."""
    if min(width, height) < LEAST_SIDE_PX:
        raise ParameterError(
            f"frames is {width} x {height} pixels, but must be at least {LEAST_SIDE_PX} x {LEAST_SIDE_PX}"
        )
    levels, scale = [_level(width, height, 1.0)], 1.0
    for _ in range(parameters.levels):
        scale *= parameters.pyr_scale
        if min(width * scale, height * scale) < LEAST_LEVEL_SIDE:
            break
        levels.append(_level(round(width * scale), round(height * scale), scale))
    return levels


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpansionWeights:
    """The weights of a polynomial expansion."""

    taps: NDArray[np.float32]
    """[3, 2 * poly_n + 1]: the Gaussian g, i g and i^2 g for i from -poly_n to poly_n."""
    ig11: np.float32
    ig03: np.float32
    ig33: np.float32
    ig55: np.float32
    """Entries of the inverted normal matrix of the basis 1, x, y, x^2, y^2, xy, under OpenCV's names."""


@functools.cache
def expansion_weights(poly_n: int, poly_sigma: float) -> ExpansionWeights:
    """Return the weights for a half width in pixels and a Gaussian's standard deviation in pixels."""
    i = np.arange(-poly_n, poly_n + 1)
    g = np.exp(-(i**2) / (2.0 * poly_sigma**2)).astype(np.float32)
    g = (g / g.sum(dtype=np.float64)).astype(np.float32)
    m0, m2, m4 = (float((g.astype(np.float64) * i**power).sum()) for power in (0, 2, 4))
    a, b, c, d = m0 * m0, m0 * m2, m0 * m4, m2 * m2
    determinant = a * (c + d) - 2 * b * b
    return ExpansionWeights(
        taps=np.stack([g, i.astype(np.float32) * g, (i**2).astype(np.float32) * g]),
        ig11=np.float32(1 / b),
        ig03=np.float32(-b / determinant),
        ig33=np.float32((a * c - b * b) / ((c - d) * determinant)),
        ig55=np.float32(1 / d),
    )


def window_weights(parameters: FarnebackParameters) -> NDArray[np.float32]:
    """Return the averaging window's weights along one direction, float32 [2 * (winsize // 2) + 1]."""
    radius = parameters.winsize // 2
    i = np.arange(-radius, radius + 1)
    # Divided by winsize. OpenCV does so for even sizes, too, although their windows are one pixel wider.
    weights: NDArray[np.float64] = np.full(len(i), 1 / parameters.winsize)
    if parameters.window == "gaussian":
        weights = np.exp(-(i**2) / (2 * (0.3 * radius) ** 2))
        weights /= weights.sum()
    return weights.astype(np.float32)


def _level(width: int, height: int, scale: float) -> Level:
    sigma = (1 / scale - 1) / 2
    size = max(round(5 * sigma) | 1, 3)
    if sigma == 0:  # OpenCV then takes the smallest of its fixed tables
        return Level(width=width, height=height, blur=np.array([0.25, 0.5, 0.25], np.float32))
    i = np.arange(size) - size // 2
    blur = np.exp(-(i**2) / (2 * sigma**2))
    return Level(width=width, height=height, blur=(blur / blur.sum()).astype(np.float32))
