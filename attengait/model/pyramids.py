"""The two pyramids that cut the last map into horizontal parts: one looks at space, one at space and time.

Bins b = 1, 2, 4, 8, 16. A kernel covers b rows and the full width (in the temporal pyramid b frames too), one kernel
per feature, so each convolution is a weighted sum over reshaped windows: the windows tile the map, nothing slides.

N clips, T frames, H = W = 16 pixels, C features; R = 16 / b window rows, S = T // b window times.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from attengait.model.config import ModelConfig
from attengait.model.initialisation import initialise_window

BINS = (1, 2, 4, 8, 16)
MAP_PX = 16
PARTS_PER_PYRAMID = sum(MAP_PX // b for b in BINS)  # 31
MIN_FRAMES = max(BINS)


class SpatialPyramid(nn.Module):
    """Time is reduced first, then 31 parts are cut: [N, T, 16, 16, C] -> [N, 31, C]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.reduction = config.spatial_reduction
        self.kernels = nn.ParameterList(torch.empty(b, MAP_PX, config.widths[2]) for b in BINS)  # [b, W, C]
        for kernel in self.kernels:
            initialise_window(kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Mean (+ max) over frames, then every bin's windows."""
        reduced = x.float().mean(1)
        if self.reduction == "both":
            reduced = reduced + x.amax(1)
        parts = []
        for b, kernel in zip(BINS, self.kernels, strict=True):
            windows = reduced.view(-1, MAP_PX // b, b, *reduced.shape[2:])  # [N, R, b, W, C]
            parts.append(functional.silu(torch.einsum("nriwc,iwc->nrc", windows, kernel)))  # [N, R, C]
        return torch.cat(parts, 1)


class TemporalPyramid(nn.Module):
    """31 parts are cut in space and time, then time is reduced: [N, T, 16, 16, C] -> [N, 31, C], T at least 16."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kernels = nn.ParameterList(torch.empty(b, b, MAP_PX, config.widths[2]) for b in BINS)  # [b, b, W, C]
        for kernel in self.kernels:
            initialise_window(kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Every bin's windows (a tail of T mod b frames is dropped), then mean + max over their times."""
        parts = []
        for b, kernel in zip(BINS, self.kernels, strict=True):
            num_times = x.shape[1] // b
            windows = x[:, : num_times * b].reshape(-1, num_times, b, MAP_PX // b, b, *x.shape[3:])
            y = functional.silu(torch.einsum("nsirjwc,ijwc->nsrc", windows, kernel)).float()  # [N, S, R, C]
            parts.append(y.mean(1) + y.amax(1))  # [N, R, C]
        return torch.cat(parts, 1)
