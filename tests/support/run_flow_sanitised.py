"""Runs the cpu flow with sanitizers compiled in, on sizes and windows at the edges; prints each step that is done."""

import itertools

import cv2
import numpy as np

from attengait.kernels.farneback import cpu as farneback_cpu
from attengait.kernels.farneback.cpu import CpuFlow
from attengait.kernels.flow.backends import FarnebackParameters
from attengait.kernels.pictures import colour_fast, png
from attengait.kernels.runtime.compile import NATIVE
from attengait.synth.motion import motion_pair

SANITIZERS = ("-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
PARAMETERS = (
    FarnebackParameters(),
    FarnebackParameters(window="gaussian", winsize=40, poly_n=9, poly_sigma=2.0, iterations=5),
    FarnebackParameters(pyr_scale=0.8, levels=6, winsize=2, poly_n=1),
    FarnebackParameters(winsize=99, poly_n=40, poly_sigma=9.0),
)


def main() -> None:
    """Flow, its colours, then a step that must be caught."""
    native = farneback_cpu.FLAGS
    for flags in (native, tuple(flag for flag in native if flag != NATIVE)):
        farneback_cpu.FLAGS = (*flags, *SANITIZERS)
        farneback_cpu._library.cache_clear()
        for height, width in ((10, 10), (10, 133), (97, 11), (71, 93)):
            # Noise moves far out of the picture as well: where it points to must not be read.
            for kind in ("noise", "zoom"):
                pair = motion_pair(kind, height, width)
                for parameters in PARAMETERS:
                    (flow,) = CpuFlow(parameters).flows(pair, [(0, 1)])
                    assert np.isfinite(flow).all()
    print("flow", flush=True)

    colour_fast.FLAGS = (*colour_fast.FLAGS, *SANITIZERS)
    flow[0, 0], flow[1, 1], flow[2, 2] = np.nan, np.inf, 0
    for largest in (0.0, 1e-30, 1e6, np.inf, np.nan):
        colour_fast.colour_flow(flow[3:, 5:], np.float32(largest))
        colour_fast.colour_flow(flow, np.float32(largest))
    colour_fast.largest_magnitude(flow[:, 3:])
    print("colour", flush=True)

    png.FLAGS = (*png.FLAGS, *SANITIZERS)
    # 8 << n is the flag of filter n; all of them together are chosen from row by row.
    for height, width, channels, filters in itertools.product((1, 2, 9), (1, 2, 31), (1, 3), (8, 16, 32, 64, 128, 248)):
        picture = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
        assert (
            png.decode_gray(cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_FILTER, filters])[1].tobytes()) is not None
        )
    print("png", flush=True)

    print("overflow", flush=True)
    solver = farneback_cpu._Solver((64, 64), FarnebackParameters())
    solver.expand(np.zeros((64, 64), np.uint8), solver.room()[: 64 * 64].copy())


main()
