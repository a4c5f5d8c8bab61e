"""The colours of flow by compiled code (colour.cpp): the functions of colour.py, many times faster.

Every step is the same, except the arc tangent: different mathematical libraries round it differently. So now and then a
value differs by one. This code is used with flow that is not exactly OpenCV's either. Flow images that must equal the
published ones are made by colour.py.
"""

import ctypes
import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attengait.kernels.pictures.colour import colour_wheel
from attengait.kernels.runtime.compile import NATIVE, build, load

SOURCE = Path(__file__).parent / "colour.cpp"
# No fused operations: they would turn some 255 into 254. No errno and traps: loops can be vectorised.
FLAGS = ("-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")


def largest_magnitude(flow: NDArray[np.float32]) -> np.float32:
    """Return the largest magnitude in a flow [H, W, 2], in pixels per frame; unknown flow does not count.

    Raises AttenGaitError where the code cannot be compiled.
    """
    flow = _with_whole_rows(flow)
    height, width = flow.shape[:2]
    return np.float32(_library().colour_largest_magnitude(flow.ctypes.data, flow.strides[0] // 4, height, width))


def colour_flow(flow: NDArray[np.float32], largest: np.float32) -> NDArray[np.uint8]:
    """Return the colours of a flow, or of any part of one, uint8 [h, w, 3] in the order R, G, B.

    `flow` is float32 [h, w, 2] and `largest` the largest magnitude in the whole frame, both in pixels per frame. No
    motion is white; NaN or a component above 1e6 is black. Raises AttenGaitError where the code cannot be compiled.
    """
    flow = _with_whole_rows(flow)
    height, width = flow.shape[:2]
    colours = np.empty((height, width, 3), np.uint8)
    _library().colour_flow(
        flow.ctypes.data, flow.strides[0] // 4, height, width, largest, _WHEEL.ctypes.data, colours.ctypes.data
    )
    return colours


def _with_whole_rows(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same flow with the pixels of a row side by side in memory."""
    if flow.dtype != np.float32 or flow.ndim != 3 or flow.shape[2] != 2:
        raise TypeError(f"flow is {flow.dtype} {list(flow.shape)}, but must be float32 [h, w, 2]")
    fits = flow.strides[1:] == (8, 4) and flow.strides[0] % 4 == 0 and flow.flags.aligned
    return flow if fits else np.ascontiguousarray(flow)


_WHEEL = np.ascontiguousarray(np.concatenate([colour_wheel(), colour_wheel()[:1]]))


@functools.cache
def _library() -> ctypes.CDLL:
    library = load(build(SOURCE, flags=(NATIVE, *FLAGS)))
    address, number, real, stride = ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_ssize_t
    library.colour_largest_magnitude.argtypes = [address, stride, number, number]
    library.colour_largest_magnitude.restype = real
    library.colour_flow.argtypes = [address, stride, number, number, real, address, address]
    library.colour_flow.restype = None
    return library
