"""A host device that counts the sectors of global memory that the warps of each kernel ask for (sector_counter.cpp).

`python tests/support/sectors.py [WIDTH HEIGHT]` prints them for one pair of frames, its new frame and its picture.
"""

import ctypes
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from recorded import instrumented

from attengait.kernels.farneback.cuda import DeviceFarneback
from attengait.kernels.flow.backends import FarnebackParameters
from attengait.kernels.runtime import launch
from attengait.kernels.runtime.launch import HostDevice
from attengait.synth.motion import motion_pair

COUNTER = Path(__file__).with_name("sector_counter.cpp")
SECTOR_BYTES = 32


@dataclass(slots=True)
class Sectors:
    """Sectors that a kernel read or wrote."""

    of_requests: int = 0
    """Summed over the requests of warps."""
    of_blocks: int = 0
    """Different ones of each block, summed."""
    of_launches: int = 0
    """Different ones of each launch, summed."""


class CountingDevice(HostDevice):
    """Slow: each access is a call."""

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[str, Sectors] = defaultdict(Sectors)
        self.written: dict[str, Sectors] = defaultdict(Sectors)

    @property
    def xp(self) -> Any:
        """What makes arrays, which begin where a GPU's do: at a multiple of 256 bytes."""
        types = {name: getattr(np, name) for name in ("float32", "int32", "uint32", "uint8")}
        return SimpleNamespace(empty=_aligned_zeros, zeros=_aligned_zeros, **types)

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        """See Device."""
        uploaded = _aligned_zeros(array.shape, array.dtype)
        uploaded[...] = array
        return uploaded

    def launch(
        self, source: str, kernel: str, grid: Sequence[int], arguments: Sequence[Any], defines: Mapping[str, int]
    ) -> None:
        """See Device."""
        flags = instrumented(source)
        library = launch._host_library(str(COUNTER), frozenset(defines.items()), flags)
        self._flags = flags  # the same library is launched
        library.counter_begin()
        super().launch(str(COUNTER), kernel, grid, arguments, defines)
        counts = (ctypes.c_longlong * 6)()
        library.counter_end(counts)
        for found, numbers in ((self.read[kernel], counts[:3]), (self.written[kernel], counts[3:])):
            found.of_requests += numbers[0]
            found.of_blocks += numbers[1]
            found.of_launches += numbers[2]


def _aligned_zeros(shape: Sequence[int] | int, dtype: DTypeLike) -> NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size + 256, np.uint8)
    begin = -room.ctypes.data % 256
    return room[begin : begin + size].view(dtype).reshape(shape)


def count_pair(width: int, height: int) -> CountingDevice:
    """The sectors of everything that is done for one pair: its two frames, its flow and its coloured picture."""
    device = CountingDevice()
    kernels = DeviceFarneback(device, FarnebackParameters())
    frames = np.stack(motion_pair("rotation", height, width))
    flows, squares = kernels.flow(device.upload(frames), device.upload(np.array([(0, 1)], np.int32)))
    silhouettes = np.zeros((1, height, width), np.uint8)
    silhouettes[0, height // 4 : 3 * height // 4, width * 3 // 8 : width * 5 // 8] = 255
    kernels.pictures(flows, squares, device.upload(silhouettes), "colour", 64)
    return device


if __name__ == "__main__":
    size = [int(word) for word in sys.argv[1:]] or [320, 240]
    counted = count_pair(*size)
    for kernel in counted.read:
        for what, sectors in (("reads", counted.read[kernel]), ("writes", counted.written[kernel])):
            numbers = (sectors.of_requests, sectors.of_blocks, sectors.of_launches)
            words = "  ".join(f"{SECTOR_BYTES * number / 1e6:8.3f}" for number in numbers)
            print(f"{kernel:13} {what:6} {words} MB (requests, blocks, memory)")
