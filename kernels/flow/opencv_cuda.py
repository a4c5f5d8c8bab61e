"""Farneback's method by OpenCV's own CUDA code. It needs an OpenCV that was built with CUDA; no wheel is.

This module has not been run on a GPU yet; its tests replace cv2.cuda. The results differ from those of the CPU code,
mainly because cv2.cuda resizes without half-pixel centres. One pair is one call, which runs about 58 kernels.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2

from attengait.errors import require
from attengait.kernels.flow.backends import FarnebackParameters, Flow, FlowBackend, Gray

_POLY_N = (5, 7)
_LARGEST_GAUSSIAN_WINDOW = 201
"""cv2.cuda has room for 100 weights on each side of the pixel in the middle."""


def missing() -> str | None:
    """None if OpenCV's CUDA flow can be used, else one sentence that says why not."""
    cuda = _cv2_cuda()
    if not hasattr(cuda, "FarnebackOpticalFlow_create"):
        return "it needs an OpenCV built with CUDA and its contributed modules, which no wheel is"
    if cuda.getCudaEnabledDeviceCount() < 1:
        return "OpenCV finds no CUDA GPU that it was built for"
    return None


class OpenCVCudaFlow(FlowBackend):
    """Farneback's method by OpenCV on the GPU (`cv2.cuda.FarnebackOpticalFlow`)."""

    def __init__(self, parameters: FarnebackParameters) -> None:
        p = parameters
        require(p.poly_n in _POLY_N, "poly_n", p.poly_n, "5 or 7 for flow opencv-cuda")
        largest = _LARGEST_GAUSSIAN_WINDOW
        is_accepted = p.window != "gaussian" or p.winsize <= largest
        require(is_accepted, "winsize", p.winsize, f"at most {largest} for flow opencv-cuda and a gaussian window")
        # Every parameter is given: this class has other defaults than the function on the CPU.
        self._farneback = _cv2_cuda().FarnebackOpticalFlow_create(
            numLevels=p.levels,
            pyrScale=p.pyr_scale,
            fastPyramids=False,
            winSize=p.winsize,
            numIters=p.iterations,
            polyN=p.poly_n,
            polySigma=p.poly_sigma,
            flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN if p.window == "gaussian" else 0,
        )

    def flows(self, grays: Sequence[Gray], pairs: Sequence[tuple[int, int]]) -> Iterator[Flow]:
        """Yield the pairs' flows one by one; each frame is uploaded for each of its pairs."""
        cuda = _cv2_cuda()
        for first, second in pairs:
            before, after = cuda.GpuMat(), cuda.GpuMat()
            before.upload(grays[first])
            after.upload(grays[second])
            flow: Flow = self._farneback.calc(before, after, None).download()
            yield flow


def _cv2_cuda() -> Any:
    """The module cv2.cuda, or None if there is none. In wheels only a part of it exists."""
    return getattr(cv2, "cuda", None)
