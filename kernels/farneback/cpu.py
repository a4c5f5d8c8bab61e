"""Farneback's flow on one core by our own code (farneback.cpp), compiled at first use for this machine's processor.

It computes what OpenCV computes, in float32, but several times faster. A frame is expanded once for both of its pairs.
All iterations on a level are done in one sweep, while the rows are in the cache. All loops use vector instructions.
While the compiled code runs, ctypes lets other threads run. Frames are uint8 [H, W], flow is float32 [H, W, 2],
(dx, dy) in pixels per frame.

Source: G. Farnebäck, Two-Frame Motion Estimation Based on Polynomial Expansion, with the details of
`cv2.calcOpticalFlowFarneback`.
"""

import ctypes
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError, require
from attengait.kernels.flow.backends import LEAST_SIDE_PX, FarnebackParameters, Flow, FlowBackend, Gray
from attengait.kernels.pictures import colour_fast
from attengait.kernels.pictures.crop import find_crop
from attengait.kernels.pictures.encode import ENCODINGS, Picture, encode_colour
from attengait.kernels.runtime.compile import NATIVE, build, find_compiler, load

LARGEST_PARAMETER = 9999
"""Largest winsize, iterations and poly_n."""
MOST_HELD = 8
"""How many expanded frames are kept for later pairs. Each takes 27 bytes for each of its pixels."""

_FOLDER = Path(__file__).parent
_RUNTIME = _FOLDER.parent / "runtime"
SOURCE = _FOLDER / "farneback.cpp"
HEADERS = (*(_FOLDER / name for name in ("levels.h", "matrices.h", "window.h")), _RUNTIME / "vectors.h")
# Products and sums may be fused: every processor since 2013 can do that. No flag here may change what NaN means.
FLAGS = (NATIVE, "-O3", "-ffp-contract=fast", f"-I{_RUNTIME}")


def missing() -> str | None:
    """Return why this flow cannot be used here, in one sentence, or None."""
    if find_compiler() is None:
        return "it needs a C++ compiler (c++, g++ or clang++ on the path, or the one that CXX names)"
    return None


class CpuFlow(FlowBackend):
    """Farneback's method on one core."""

    def __init__(self, parameters: FarnebackParameters) -> None:
        """Compile the code, unless that was done before.

        Raises ParameterError for parameters that are too large, AttenGaitError if the code cannot be compiled.
        """
        for name in ("winsize", "iterations", "poly_n"):
            value = getattr(parameters, name)
            require(value <= LARGEST_PARAMETER, name, value, f"at most {LARGEST_PARAMETER} for flow cpu")
        self._parameters = parameters
        _library()

    def flows(self, grays: Sequence[Gray], pairs: Sequence[tuple[int, int]]) -> Iterator[Flow]:
        """Yield the pairs' flows one by one. At most MOST_HELD expanded frames are kept for later pairs.

        Raises ParameterError for frames below 10 x 10 pixels or of different sizes, AttenGaitError if memory does not
        suffice.
        """
        if not pairs:
            return
        last_use = {index: n for n, pair in enumerate(pairs) for index in pair}
        shape = grays[pairs[0][0]].shape
        solver = _Solver(shape, self._parameters)
        try:
            held: dict[int, NDArray[np.float32]] = {}
            spare: list[NDArray[np.float32]] = []
            for n, pair in enumerate(pairs):
                for index in pair:
                    if index not in held:
                        held[index] = solver.expand(grays[index], spare.pop() if spare else solver.room())
                flow = solver.flow(held[pair[0]], held[pair[1]])
                done = [index for index in held if last_use[index] <= n]
                done += [index for index in held if index not in done][MOST_HELD:]
                spare += [held.pop(index) for index in done]
                yield flow
        finally:
            solver.close()

    def pictures(
        self,
        grays: Sequence[Gray],
        pairs: Sequence[tuple[int, int]],
        silhouettes: Sequence[Picture],
        encoding: str,
        size: int,
    ) -> Picture:
        """Return the flow image of each pair, uint8 [P, size, size, C]. Compiled code paints the colours, too."""
        if encoding != "colour":
            return super().pictures(grays, pairs, silhouettes, encoding, size)
        pictures = np.empty((len(pairs), size, size, ENCODINGS[encoding].channels), np.uint8)
        for i, flow in enumerate(self.flows(grays, pairs)):
            crop = find_crop(silhouettes[i], size)
            pictures[i] = encode_colour(
                flow, crop, largest=colour_fast.largest_magnitude, paint=colour_fast.colour_flow
            )
        return pictures


class _Solver:
    """The compiled code's handle for frames of one size: its tables and scratch memory."""

    def __init__(self, shape: tuple[int, ...], parameters: FarnebackParameters) -> None:
        if len(shape) != 2:
            raise ParameterError(f"frames is uint8 {list(shape)}, but must be uint8 [H, W]")
        if min(shape) < LEAST_SIDE_PX:
            raise ParameterError(
                f"frames is {shape[1]} x {shape[0]} pixels, but must be at least {LEAST_SIDE_PX} x {LEAST_SIDE_PX}"
            )
        self._shape = shape
        self._library = _library()
        self._handle = self._library.farneback_new(
            *shape,
            parameters.pyr_scale,
            min(parameters.levels, 2**31 - 1),
            parameters.winsize,
            parameters.iterations,
            parameters.poly_n,
            parameters.poly_sigma,
            parameters.window == "gaussian",
        )
        if not self._handle:
            raise AttenGaitError(f"there is not enough memory for the flow of frames of {shape[1]} x {shape[0]} pixels")

    def close(self) -> None:
        self._library.farneback_free(self._handle)

    def room(self) -> NDArray[np.float32]:
        """Memory for one frame's expansion."""
        return np.zeros(self._library.farneback_expansion_size(self._handle), np.float32)

    def expand(self, gray: Gray, expansion: NDArray[np.float32]) -> NDArray[np.float32]:
        if gray.dtype != np.uint8 or gray.shape != self._shape:
            raise ParameterError(
                f"frames is {gray.dtype} {list(gray.shape)}, but must be uint8 {list(self._shape)} like the first"
            )
        if gray.strides[1] != 1:
            gray = np.ascontiguousarray(gray)
        self._library.farneback_expand(self._handle, gray.ctypes.data, gray.strides[0], expansion.ctypes.data)
        return expansion

    def flow(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> Flow:
        flow = np.empty((*self._shape, 2), np.float32)
        self._library.farneback_flow(self._handle, first.ctypes.data, second.ctypes.data, flow.ctypes.data)
        return flow


@functools.cache
def _library() -> ctypes.CDLL:
    """The compiled code. Raises AttenGaitError if it cannot be compiled or loaded."""
    library = load(build(SOURCE, flags=FLAGS, depends=HEADERS))
    address, number, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_double
    library.farneback_new.argtypes = [number, number, real, *[number] * 4, real, number]
    library.farneback_new.restype = address
    library.farneback_free.argtypes = [address]
    library.farneback_free.restype = None
    library.farneback_expansion_size.argtypes = [address]
    library.farneback_expansion_size.restype = ctypes.c_size_t
    library.farneback_expand.argtypes = [address, address, ctypes.c_ssize_t, address]
    library.farneback_expand.restype = None
    library.farneback_flow.argtypes = [address] * 4
    library.farneback_flow.restype = None
    return library
