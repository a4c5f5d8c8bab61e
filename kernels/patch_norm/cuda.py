"""Swish, pooling, patch attention and LayerNorm of maps in one pass on an NVIDIA GPU, by our own kernels.

The mathematics is in `attengait.model.patch_norm`, the kernels are in patch_norm.cu. Arrays are given by their
addresses on the device, contiguous; the caller allocates them and keeps them. Kernels are started on CuPy's current
stream. They are compiled at first use, for each number of features and format. On a host device, which is for tests,
addresses are those of the host.
"""

from dataclasses import dataclass

import numpy as np

from attengait.kernels.patch_norm.maps import Maps
from attengait.kernels.runtime.launch import THREADS, Device
from attengait.kernels.runtime.pieces import FORMATS, PIECE

SOURCE = "patch_norm/patch_norm.cu"
MAX_SLICES = 64
"""The frames are cut into at most so many slices in the backward pass, each with its own sums."""


def fits(maps: Maps) -> bool:
    """Whether the kernels can work on such maps."""
    features = maps.features
    return maps.format in FORMATS and PIECE <= features <= PIECE * THREADS and features & (features - 1) == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuKernels:
    """Both passes over maps that fit, on one device."""

    maps: Maps
    device: Device

    @property
    def slices(self) -> int:
        """Parts that the frames are cut into in the backward pass."""
        return min(self.maps.frames, MAX_SLICES)

    @property
    def partial_sums(self) -> int:
        """Of dgain and dbias."""
        return self.slices * self._tiles

    @property
    def _tiles(self) -> int:
        """Blocks that a frame is cut into."""
        return -(-self.maps.height * self.maps.width * self.maps.features // (PIECE * THREADS))

    def forward(self, z: int, a: int, gain: int, bias: int, y: int) -> None:
        """Begin to write y; a is [H, W], gain and bias are [C]."""
        self._launch("patch_norm_forward", self.maps.frames, [z, a, gain, bias, y])

    def backward(self, dy: int, z: int, a: int, gain: int, dz: int, da: int, dgain: int, dbias: int) -> None:
        """Begin to write dz and sums, which are still to be added up over their first axis: da [slices, H, W], dgain
        and dbias [partial_sums, C]."""
        arrays = [dy, z, a, gain, dz, da, dgain, dbias]
        self._launch("patch_norm_backward", self.slices, arrays, np.int64(self.maps.frames), np.int32(self.slices))

    def _launch(self, kernel: str, parts: int, addresses: list[int], *more: np.generic) -> None:
        maps = self.maps
        if not maps.frames:
            return
        shape = [np.int32(maps.height * maps.width), np.int32(maps.width), np.int32(self._tiles)]
        defines = {"FEATURES": maps.features, "FORMAT": FORMATS.index(maps.format), "POOL": int(maps.pool)}
        arguments = [*map(np.uintp, addresses), *shape, *more]
        self.device.launch(SOURCE, kernel, (parts * self._tiles, 1, 1), arguments, defines)
