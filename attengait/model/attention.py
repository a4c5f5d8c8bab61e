"""AttenGait's attention: one trainable scalar for each patch (or part), then a LayerNorm over features.

Attention a is near 1 / (number of patches), so a * x is tiny and the eps of the LayerNorm matters:

    LayerNorm(a x) = a (x - mean) / sqrt(a^2 var + eps) * gain + bias

with the mean and variance of x itself. In this form the tiny product a * x is never computed. So half precision is
safe (statistics and scalars are float32), and the gradient is finite at a = 0, which attention dropout sets.

M maps (frames), H x W pixels, N clips, P parts, C features.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from attengait.model.config import ModelConfig
from attengait.model.patch_norm import EPS, patch_norm

PATCH_PX = 3


class _Attention(nn.Module):
    """The scalars of one attention and the gain and bias of its LayerNorm."""

    def __init__(self, config: ModelConfig, count: int, features: int, dropout: float) -> None:
        super().__init__()
        self.softmax = config.attention_softmax
        self.dropout = dropout
        self.weight = nn.Parameter(torch.ones(count))  # [count]
        self.gain = nn.Parameter(torch.ones(features))  # [C]
        self.bias = nn.Parameter(torch.zeros(features))  # [C]

    def scalars(self) -> Tensor:
        """The attention of every patch or part, float32 [count]; in training some are dropped to 0."""
        a = self.weight.float()
        if self.softmax:
            a = torch.softmax(a / math.sqrt(a.numel()), dim=0)
        return functional.dropout(a, self.dropout, self.training)


class PartAttention(_Attention):
    """One scalar per part: [N, P, C] -> float32 [N, P, C]."""

    def forward(self, x: Tensor) -> Tensor:
        """Weigh and normalise the parts."""
        return scaled_layer_norm(x, self.scalars()[:, None], self.gain, self.bias)


class PatchAttention(_Attention):
    """One scalar per 3 x 3 patch of a map, after swish and, where a stage begins, max pooling.

    [M, H, W, C] -> the same shape and type; with pooling [M, 2H, 2W, C] -> [M, H, W, C].
    """

    def __init__(self, config: ModelConfig, size_px: int, features: int, *, pool: bool) -> None:
        self.pool = pool
        self.size_px = size_px
        self.patches_per_side = math.ceil(size_px / PATCH_PX)
        super().__init__(config, self.patches_per_side**2, features, config.attention_dropout)

    def pixel_scalars(self) -> Tensor:
        """The attention of every pixel, float32 [H, W]: patches in raster order, those at the border cut."""
        a = self.scalars().view(self.patches_per_side, self.patches_per_side)
        a = a.repeat_interleave(PATCH_PX, 0).repeat_interleave(PATCH_PX, 1)
        return a[: self.size_px, : self.size_px]

    def forward(self, z: Tensor) -> Tensor:
        """Swish, pool, weigh and normalise the maps that a convolution made."""
        return self.normalised(z, self.pixel_scalars())

    def normalised(self, z: Tensor, scalars: Tensor) -> Tensor:
        """The same with the attention of every pixel, [H, W]."""
        return patch_norm(z, scalars, self.gain, self.bias, pool=self.pool)


def scaled_layer_norm(x: Tensor, a: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """LayerNorm(a * x) over the last axis, computed in float32.

    Args:
        x: [..., C], any floating type.
        a: scalars that broadcast against [..., 1].
        gain, bias: [C].
    """
    x = x.float()
    variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
    return (x - mean) * (a * torch.rsqrt(a * a * variance + EPS)) * gain + bias
