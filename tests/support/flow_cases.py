"""The host as a device, and frames and silhouettes, for the tests of the CUDA kernels that compute flow."""

import cv2
import numpy as np
import pytest

from attengait.kernels.flow.backends import FarnebackParameters
from attengait.kernels.runtime.compile import find_compiler
from attengait.kernels.runtime.launch import HostDevice
from attengait.synth.motion import motion_pair

PUBLISHED = FarnebackParameters()


def host(*, backwards: bool = False) -> HostDevice:
    if find_compiler() is None:
        pytest.skip("no C++ compiler to compile the kernels with")
    return HostDevice(backwards=backwards)


def silhouettes_of(num: int, height: int, width: int) -> list[np.ndarray]:
    """Walkers of several sizes and places: some at the picture's border, one over its whole height, one a row high."""
    outlines = []
    for i in range(num):
        outline = np.zeros((height, width), np.uint8)
        centre = (int(width * (i + 0.5) / num), height // 2)
        cv2.ellipse(outline, centre, (width // 14, height // 3 - 3 * i), 5.0 * i, 0, 360, 255, -1)
        outlines.append(outline)
    outlines[0][:, 3:60] = 255
    outlines[1][:] = 0
    outlines[1][height // 2, width // 4 : width // 2] = 255
    return outlines


def moving_frames(num: int, height: int, width: int) -> list[np.ndarray]:
    first, _ = motion_pair("translation", height + 40, width + 40, seed=3)
    return [np.ascontiguousarray(first[2 * i : 2 * i + height, i : i + width]) for i in range(num)]
