"""The weighted sums of the temporal pyramid's windows in one pass on an NVIDIA GPU, by our own kernels (windows.cu).

Arrays are given by their addresses on the device, contiguous; the caller allocates them and keeps them. Kernels are
started on CuPy's current stream. They are compiled at first use, for each number of features and format. On a host
device, which is for tests, addresses are those of the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attengait.kernels.runtime.launch import THREADS, Device
from attengait.kernels.runtime.pieces import FORMATS, PIECE
from attengait.kernels.windows.clips import SIDE, Clips

SOURCE = "windows/windows.cu"


def fits(clips: Clips) -> bool:
    """Whether the kernels can work on such clips."""
    return clips.format in FORMATS and clips.features > 0 and clips.features % PIECE == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuWindows:
    """Both passes over clips that fit, on one device."""

    clips: Clips
    device: Device

    def forward(self, x: int, kernels: int, rows: int) -> None:
        """Begin to write what each row of a frame adds to the window of each bin that it lies in, float32 [N, T, SIDE,
        bins, C]."""
        num_rows = self.clips.clips * self.clips.frames * SIDE
        shape: tuple[np.generic, ...] = np.int64(num_rows), np.int32(self.clips.frames)
        self._launch("windows_forward", num_rows, [x, kernels, rows], shape)

    def backward(self, dsums: int, x: int, kernels: int, dx: int, dkernels: int) -> None:
        """Begin to write dx, and dkernels [bins, 16, SIDE, SIDE, C]: what each frame and row of a window of 16 adds,
        still to be added up over those that belong to one row of a bin's kernel."""
        clips = self.clips
        shape = [np.int32(clips.clips), np.int32(clips.frames), np.int32(clips.windows)]
        self._launch("windows_backward", SIDE * SIDE * SIDE, [dsums, x, kernels, dx, dkernels], shape)

    def _launch(self, kernel: str, items: int, addresses: list[int], shape: Sequence[np.generic]) -> None:
        defines = {"FEATURES": self.clips.features, "FORMAT": FORMATS.index(self.clips.format)}
        blocks = -(-items * self.clips.features // (PIECE * THREADS))
        self.device.launch(SOURCE, kernel, (blocks, 1, 1), [*map(np.uintp, addresses), *shape], defines)
