"""The two pyramids that cut the last map into horizontal parts: one looks at space, one at space and time.

Bins b = 1, 2, 4, 8, 16. A kernel covers b rows and the full width (in the temporal pyramid b frames too), one kernel
per feature, so each convolution is a weighted sum over reshaped windows: the windows tile the map, nothing slides.
Written as product and sum, features stay the innermost axis; einsum would transpose the map for every bin.

N clips, T frames, H = W = 16 pixels, C features; R = 16 / b window rows, S = T // b window times.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from attengait.kernels.windows.clips import BINS, SIDE
from attengait.model.config import ModelConfig
from attengait.model.initialisation import initialise_window
from attengait.model.temporal_windows import exported_windows, temporal_windows

MAP_PX = SIDE
PARTS_PER_PYRAMID = sum(MAP_PX // b for b in BINS)  # 31
MIN_FRAMES = max(BINS)
CPU_CHUNK_ELEMENTS = 2**19
"""Elements of the clips that a CPU works on at once, so that the passes of every bin stay in its caches."""


class SpatialPyramid(nn.Module):
    """Time is reduced first, then 31 parts are cut: [N, T, 16, 16, C] -> float32 [N, 31, C]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.reduction = config.spatial_reduction
        self.kernels = nn.ParameterList(torch.empty(b, MAP_PX, config.widths[2]) for b in BINS)  # [b, W, C]
        for kernel in self.kernels:
            initialise_window(kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Mean (+ max) over frames, then every bin's windows."""
        return torch.cat([self._parts(clips.float()) for clips in _chunks(x)])

    def _parts(self, x: Tensor) -> Tensor:
        reduced = x.mean(1)
        if self.reduction == "both":
            reduced = reduced + x.amax(1)
        parts = []
        for b, kernel in zip(BINS, self.kernels, strict=True):
            windows = reduced.view(-1, MAP_PX // b, b, *reduced.shape[2:])  # [N, R, b, W, C]
            parts.append(functional.silu((windows * kernel).sum((2, 3))))  # [N, R, C]
        return torch.cat(parts, 1)


class TemporalPyramid(nn.Module):
    """31 parts are cut in space and time, then time is reduced: [N, T, 16, 16, C] -> float32 [N, 31, C], T >= 16."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kernels = nn.ParameterList(torch.empty(b, b, MAP_PX, config.widths[2]) for b in BINS)  # [b, b, W, C]
        for kernel in self.kernels:
            initialise_window(kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Every bin's windows (a tail of T mod b frames is dropped), then mean + max over their times."""
        kernels = torch.cat([kernel.flatten(0, 1) for kernel in self.kernels])
        parts = []
        for sums in exported_windows(x, kernels) if torch.compiler.is_exporting() else _by_bin(x, kernels):
            y = functional.silu(sums)  # [N, S, R, C]
            parts.append(y.mean(1) + y.amax(1))  # [N, R, C]
        return torch.cat(parts, 1)


def _by_bin(x: Tensor, kernels: Tensor) -> list[Tensor]:
    """The windows' sums of each bin [N, S, R, C]."""
    times = [x.shape[1] // b for b in BINS]
    sums = torch.split(temporal_windows(x, kernels), [s * (MAP_PX // b) for s, b in zip(times, BINS, strict=True)], 1)
    return [of_bin.reshape(len(x), s, -1, x.shape[-1]) for of_bin, s in zip(sums, times, strict=True)]


def _chunks(x: Tensor) -> Sequence[Tensor]:
    """Clips [N, T, 16, 16, C] a few at a time on a CPU, all at once elsewhere."""
    if x.device.type != "cpu" or torch.compiler.is_exporting():
        return (x,)
    return torch.split(x, max(1, CPU_CHUNK_ELEMENTS // x[0].numel()))
