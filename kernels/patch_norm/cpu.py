"""Swish, pooling, patch attention and LayerNorm of maps in one pass on a CPU, by our own code (patch_norm.cpp).

The mathematics is in `attengait.model.patch_norm`. Arrays are given by their addresses, contiguous; the caller
allocates them and keeps them. The code is compiled at first use, once for each number of features. It takes its threads
from OpenMP; in a process that has loaded torch, those are torch's own. No result depends on their number.
"""

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

from attengait.errors import AttenGaitError
from attengait.kernels.patch_norm.maps import Maps
from attengait.kernels.runtime.compile import NATIVE, build, find_compiler, load

FORMATS = ("float32", "bfloat16")
MAX_SLICES = 128
"""The frames are cut into at most so many slices, which threads take one by one. Each slice has its own sums."""
MIN_FEATURES, MAX_FEATURES = 4, 1024
"""Of fewer features, the mean and the variance lose digits in float32."""

_FOLDER = Path(__file__).parent
_RUNTIME = _FOLDER.parent / "runtime"
SOURCE = _FOLDER / "patch_norm.cpp"
# No flag here may change what NaN means.
FLAGS = (NATIVE, "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", f"-I{_RUNTIME}")


def fits(maps: Maps) -> bool:
    """Whether this code can work on such maps here; False where nothing can be compiled."""
    features = maps.features
    if maps.format not in FORMATS or not MIN_FEATURES <= features <= MAX_FEATURES or features & (features - 1):
        return False
    lanes = _lanes(features)
    return lanes is not None and maps.width * features % lanes == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuKernels:
    """Both passes over maps that fit."""

    maps: Maps
    num_threads: int

    @property
    def slices(self) -> int:
        """Parts that the frames are cut into in the backward pass."""
        return min(self.maps.frames, MAX_SLICES)

    @property
    def partial_sums(self) -> int:
        """Of dgain and dbias."""
        return self.slices

    def forward(self, z: int, a: int, gain: int, bias: int, y: int) -> None:
        """Write y; a is [H, W], gain and bias are [C]."""
        library = _library(self.maps.features)
        library.patch_norm_forward(z, a, gain, bias, y, self._is_bfloat16, self.maps.pool, self._shape())

    def backward(self, dy: int, z: int, a: int, gain: int, dz: int, da: int, dgain: int, dbias: int) -> None:
        """Write dz, and add to the sums, which are still to be added up over their first axis: da [slices, H, W],
        dgain and dbias [partial_sums, C]."""
        addresses, library = (dy, z, a, gain, dz, da, dgain, dbias), _library(self.maps.features)
        library.patch_norm_backward(*addresses, self._is_bfloat16, self.maps.pool, self._shape())

    @property
    def _is_bfloat16(self) -> bool:
        return self.maps.format == "bfloat16"

    def _shape(self) -> "ctypes._CArgObject":
        maps = self.maps
        return ctypes.byref(_Shape(maps.frames, maps.height, maps.width, self.slices, self.num_threads))


class _Shape(ctypes.Structure):
    """`Maps` of patch_norm.cpp."""

    _fields_ = (
        *((name, ctypes.c_ssize_t) for name in ("frames", "height", "width", "slices")),
        ("threads", ctypes.c_int),
    )


@functools.cache
def _lanes(features: int) -> int | None:
    """How many elements a row of y must be a multiple of; None where the code cannot be compiled."""
    if find_compiler() is None:
        return None
    try:
        return int(_library(features).patch_norm_lanes())
    except AttenGaitError:  # such as a compiler without OpenMP
        return None


@functools.cache
def _library(features: int) -> ctypes.CDLL:
    flags = (*FLAGS, f"-DFEATURES={features}")
    library = load(build(SOURCE, flags=flags, depends=[_RUNTIME / "vectors.h"]))
    address, number = ctypes.c_void_p, ctypes.c_int
    library.patch_norm_forward.argtypes = [*[address] * 5, number, number, address]
    library.patch_norm_backward.argtypes = [*[address] * 8, number, number, address]
    library.patch_norm_forward.restype = library.patch_norm_backward.restype = None
    return library
