"""Pairs of synthetic pictures with one kind of motion each, to compare flow back ends on.

A picture is uint8 [height, width]. A pair is one texture before and after the motion, or two textures without relation.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Pair = tuple[Picture, Picture]


def motion_pair(kind: str, height: int, width: int, *, seed: int = 0) -> Pair:
    """Return the two pictures, uint8 [height, width], of one of `MOTIONS`; equal arguments give equal pictures."""
    return MOTIONS[kind](height, width, np.random.default_rng(seed))


def _texture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Detail of all sizes, from pixels to a quarter of the picture, grey 0 to 255."""
    total = np.zeros((height, width), np.float32)
    for sigma in (1.0, 2.0, 4.0, max(4.0, min(height, width) / 8)):
        noise = rng.standard_normal((height, width)).astype(np.float32)
        blurred = cv2.GaussianBlur(noise, (0, 0), sigma)
        total += blurred / blurred.std()
    return (128 + 30 * total).astype(np.float32)


def _bytes(picture: NDArray[np.float32]) -> Picture:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _warped(height: int, width: int, rng: np.random.Generator, matrix: NDArray[np.float64]) -> Pair:
    texture = _texture(height, width, rng)
    moved = cv2.warpAffine(texture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return _bytes(texture), _bytes(moved)


def _about_centre(height: int, width: int, *, degrees: float, scale: float) -> NDArray[np.float64]:
    matrix: NDArray[np.float64] = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    return matrix


def _translation(height: int, width: int, rng: np.random.Generator) -> Pair:
    return _warped(height, width, rng, np.array([[1, 0, 2.3], [0, 1, -1.4]]))


def _rotation(height: int, width: int, rng: np.random.Generator) -> Pair:
    return _warped(height, width, rng, _about_centre(height, width, degrees=2.0, scale=1.0))


def _zoom(height: int, width: int, rng: np.random.Generator) -> Pair:
    return _warped(height, width, rng, _about_centre(height, width, degrees=0.0, scale=1.03))


def _none(height: int, width: int, rng: np.random.Generator) -> Pair:
    picture = _bytes(_texture(height, width, rng))
    return picture, picture.copy()


def _flat(height: int, width: int, rng: np.random.Generator) -> Pair:
    """A textured square that moves over an even background. On the background no pixel tells what the flow is."""
    side = min(height, width) // 3
    patch = _bytes(_texture(side, side, rng))
    pictures = []
    for shift in (0, 3):
        picture = np.full((height, width), 90, np.uint8)
        top, left = height // 3 + shift // 3, width // 3 + shift
        picture[top : top + side, left : left + side] = patch
        pictures.append(picture)
    return pictures[0], pictures[1]


def _noise(height: int, width: int, rng: np.random.Generator) -> Pair:
    first, second = rng.integers(0, 256, (2, height, width), dtype=np.uint8)
    return first, second


MOTIONS: dict[str, Callable[[int, int, np.random.Generator], Pair]] = {
    "translation": _translation,
    "rotation": _rotation,
    "zoom": _zoom,
    "no motion": _none,
    "flat regions": _flat,
    "noise": _noise,
}
"""How to make a pair, by the kind of motion."""
