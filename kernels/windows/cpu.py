"""The weighted sums of the temporal pyramid's windows in one pass on a CPU, by our own code (windows.cpp).

Arrays are given by their addresses, contiguous; the caller allocates them and keeps them. The code is compiled at first
use. It takes its threads from OpenMP; in a process that has loaded torch, those are torch's own. No result depends on
their number.
"""

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

from attengait.errors import AttenGaitError
from attengait.kernels.runtime.compile import NATIVE, build, find_compiler, load
from attengait.kernels.windows.clips import Clips

FORMATS = ("float32", "bfloat16")
MAX_SLICES = 8
"""The clips are cut into at most so many slices in the backward pass. Each has its own sum of the kernels' gradients,
which are large."""

_FOLDER = Path(__file__).parent
_RUNTIME = _FOLDER.parent / "runtime"
SOURCE = _FOLDER / "windows.cpp"
# No flag here may change what NaN means.
FLAGS = (NATIVE, "-O3", "-ffp-contract=fast", "-fopenmp", f"-I{_RUNTIME}")


def fits(clips: Clips) -> bool:
    """Whether this code can work on such clips here; False where nothing can be compiled."""
    lanes = _lanes()
    return clips.format in FORMATS and lanes is not None and clips.features % lanes == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuWindows:
    """Both passes over clips that fit."""

    clips: Clips
    num_threads: int

    @property
    def slices(self) -> int:
        """Parts that the clips are cut into in the backward pass."""
        return min(self.clips.clips, MAX_SLICES)

    def forward(self, x: int, kernels: int, sums: int) -> None:
        """Write the sums."""
        _library().windows_forward(x, kernels, sums, self._is_bfloat16, self._shape())

    def backward(self, dsums: int, x: int, kernels: int, dx: int, dkernels: int) -> None:
        """Write dx, and add to dkernels [slices, KERNEL_ROWS, SIDE, C], still to be added up over the first axis."""
        _library().windows_backward(dsums, x, kernels, dx, dkernels, self._is_bfloat16, self._shape())

    @property
    def _is_bfloat16(self) -> bool:
        return self.clips.format == "bfloat16"

    def _shape(self) -> "ctypes._CArgObject":
        clips = self.clips
        return ctypes.byref(_Shape(clips.clips, clips.frames, clips.features, self.slices, self.num_threads))


class _Shape(ctypes.Structure):
    """`Clips` of windows.cpp."""

    _fields_ = (
        *((name, ctypes.c_ssize_t) for name in ("clips", "frames", "features", "slices")),
        ("threads", ctypes.c_int),
    )


@functools.cache
def _lanes() -> int | None:
    """What the number of features must be a multiple of; None where the code cannot be compiled."""
    if find_compiler() is None:
        return None
    try:
        return int(_library().windows_lanes())
    except AttenGaitError:  # such as a compiler without OpenMP
        return None


@functools.cache
def _library() -> ctypes.CDLL:
    library = load(build(SOURCE, flags=FLAGS, depends=[_RUNTIME / "vectors.h"]))
    address, number = ctypes.c_void_p, ctypes.c_int
    library.windows_forward.argtypes = [*[address] * 3, number, address]
    library.windows_backward.argtypes = [*[address] * 5, number, address]
    library.windows_forward.restype = library.windows_backward.restype = None
    return library
