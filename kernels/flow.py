"""Dense optical flow between frames: a small registry of backends.

Frames are uint8 [H, W] grey pictures of one size. Flow is float32 [H, W, 2], (dx, dy) in pixels per frame: what is at
(x, y) in the first frame of a pair is at (x + dx, y + dy) in the second.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError

Gray = NDArray[np.uint8]
Flow = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class FarnebackParameters:
    """Parameters of Farneback's method under OpenCV's names (`cv2.calcOpticalFlowFarneback`); the published values."""

    pyr_scale: float = 0.5
    """Size of a pyramid level over that of the next larger one."""
    levels: int = 3
    """Levels below the full resolution, fewer where a picture would fall under 32 pixels."""
    winsize: int = 15
    """Side of the averaging window, in pixels."""
    iterations: int = 3
    """Updates of the flow at each level."""
    poly_n: int = 5
    """Pixels on either side from which a neighbourhood's polynomial is fitted."""
    poly_sigma: float = 1.2
    """Standard deviation of that fit's weights, in pixels."""

    def __post_init__(self) -> None:
        for name, least in (("levels", 0), ("winsize", 1), ("iterations", 1), ("poly_n", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ParameterError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if not _is_real(self.pyr_scale) or not 0 < self.pyr_scale < 1:
            raise ParameterError(f"pyr_scale must be between 0 and 1, both excluded, got {self.pyr_scale!r}")
        if not _is_real(self.poly_sigma) or not 0 < self.poly_sigma < math.inf:
            raise ParameterError(f"poly_sigma must be a number above 0, got {self.poly_sigma!r}")


class FlowBackend(Protocol):
    """Computes the flow of many pairs of frames of one sequence."""

    def flows(self, grays: Sequence[Gray], pairs: Sequence[tuple[int, int]]) -> Iterator[Flow]:
        """Yield one flow, float32 [H, W, 2] in pixels per frame, for each pair of indices into `grays`.

        `grays` are uint8 [H, W] of one size. A flow belongs to whoever receives it: it is not written again.
        """
        ...


class OpenCVFlow:
    """Farneback's method by OpenCV on the CPU (`cv2.calcOpticalFlowFarneback`, flags 0)."""

    def __init__(self, parameters: FarnebackParameters) -> None:
        self._parameters = parameters

    def flows(self, grays: Sequence[Gray], pairs: Sequence[tuple[int, int]]) -> Iterator[Flow]:
        """Yield the pairs' flows one by one; only one is held."""
        p = self._parameters
        for first, second in pairs:
            yield cv2.calcOpticalFlowFarneback(
                grays[first],
                grays[second],
                None,
                p.pyr_scale,
                p.levels,
                p.winsize,
                p.iterations,
                p.poly_n,
                p.poly_sigma,
                0,
            )


BACKENDS: dict[str, Callable[[FarnebackParameters], FlowBackend]] = {"opencv": OpenCVFlow}
"""How to make each flow backend, by its name."""


def check_backend(name: str) -> None:
    """Raise ParameterError unless `name` is a flow backend's."""
    if name not in BACKENDS:
        raise ParameterError(f"flow must be one of {', '.join(BACKENDS)}, got {name!r}")


def make_backend(name: str, parameters: FarnebackParameters) -> FlowBackend:
    """Return the flow backend of that name. Raises ParameterError for an unknown one."""
    check_backend(name)
    return BACKENDS[name](parameters)


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
