"""Swish, pooling, patch attention and LayerNorm by torch's own operations: where no compiled code fits.

The mathematics is in `attengait.model.patch_norm`. The maps are worked on in float32 a few frames at a time, so that
they stay in the processor's cache, and nothing but z is kept for the backward pass.

M frames, m frames of a chunk, H x W pixels of y, C features; z is [M, H, W, C], or [M, 2H, 2W, C] if it is pooled.
"""

import torch
from torch import Tensor
from torch.nn import functional

EPS = 1e-6
CPU_CHUNK_ELEMENTS = 2**19
"""Elements of z worked on at once: 2 MiB in float32, so that the passes over a chunk stay in the caches."""
GPU_CHUNK_ELEMENTS = 2**25
"""The same on a GPU: enough to fill it, few enough to bound the memory of a step."""
NARROW = 16
"""Below this many features a CPU's reduction over them, and its broadcast back, is scalar code."""


def forward(z: Tensor, a: Tensor, gain: Tensor, bias: Tensor, *, pool: bool) -> Tensor:
    """y [M, H, W, C], like z; a is float32 [H, W], gain and bias are float32 [C]."""
    a = a[..., None]
    a_square = _like_statistics(a * a, gain)
    a_gain = a * gain  # [H, W, C]
    biases = bias.expand_as(a_gain).contiguous()  # [H, W, C]
    y = z.new_empty(len(z), *a_gain.shape)
    frames = _chunk_frames(z)
    with torch.autocast(z.device.type, enabled=False):
        for z_chunk, out in zip(torch.split(z, frames), torch.split(y, frames), strict=True):
            x = functional.silu(z_chunk.float())
            q, _ = _normalised(_pooled(x)[0] if pool else x, a_square)
            torch.addcmul(biases, q, a_gain, out=out)
    return y


def backward(dy: Tensor, z: Tensor, a: Tensor, gain: Tensor, *, pool: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dz like z, da [H, W], dgain [C] and dbias [C], for dy [M, H, W, C]."""
    a = a[..., None]
    a_square = _like_statistics(a * a, gain)
    a_gain = a * gain  # [H, W, C]
    sum_d, sum_dq, sum_dqss = (torch.zeros_like(a_gain) for _ in range(3))  # sums over frames [H, W, C]
    dz = torch.empty_like(z)
    frames = _chunk_frames(z)
    with torch.autocast(z.device.type, enabled=False):
        for z_chunk, d, out in zip(*(torch.split(maps, frames) for maps in (z, dy, dz)), strict=True):
            x = whole = functional.silu(z_chunk.float())
            if pool:
                x, winners = _pooled(whole)
            q, s = _normalised(x, a_square)
            d = d.float()
            sum_d += d.sum(0)
            dq = d * q
            sum_dq += dq.sum(0)
            sum_dqss += (s * s).mul(dq).sum(0)
            mean_gq = _mean(dq.mul_(a_gain))
            dx = _centred(d * a_gain).addcmul_(q.mul_(mean_gq), a_square, value=-1).mul_(s)
            if pool:
                dx = _unpooled(dx, whole, winners)
            torch.ops.aten.silu_backward.grad_input(dx.to(z.dtype), z_chunk, grad_input=out)
    da = EPS * (sum_dqss * gain).sum(-1)
    dgain = (sum_dq * a).sum((0, 1))
    return dz, da, dgain, sum_d.sum((0, 1))


def _pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    """2 x 2 max pooling of [m, 2H, 2W, C] -> [m, H, W, C], and where each maximum was (of equals, the first)."""
    pooled, winners = functional.max_pool2d_with_indices(x.permute(0, 3, 1, 2), (2, 2))
    return pooled.permute(0, 2, 3, 1), winners


def _unpooled(gradient: Tensor, x: Tensor, winners: Tensor) -> Tensor:
    """The gradient [m, H, W, C] of the pooled map given to the pixels of x [m, 2H, 2W, C] that won."""
    planes, x_planes = gradient.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2)
    size, none, one = [2, 2], [0, 0], [1, 1]
    given: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
        planes, x_planes, size, size, none, one, False, winners
    )
    return given.permute(0, 2, 3, 1)


def _normalised(x: Tensor, a_square: Tensor) -> tuple[Tensor, Tensor]:
    """q and s of a chunk [m, H, W, C]; s is [m, H, W, 1], or [m, H, W, C] where features are few."""
    x = _centred(x)
    s = _mean(x * x).mul_(a_square).add_(EPS).rsqrt_()
    return x.mul_(s), s


def _mean(x: Tensor) -> Tensor:
    """Mean over features of a chunk [m, H, W, C]: [m, H, W, 1], or [m, H, W, C] where features are few."""
    if not _is_narrow(x):
        return x.mean(-1, keepdim=True)
    return torch.mm(x.view(-1, NARROW), _averaging(x.shape[-1])).view_as(x)


def _centred(x: Tensor) -> Tensor:
    """A chunk [m, H, W, C] less its mean over features."""
    if not _is_narrow(x):
        return x - x.mean(-1, keepdim=True)
    return torch.mm(x.view(-1, NARROW), torch.eye(NARROW) - _averaging(x.shape[-1])).view_as(x)


def _averaging(features: int) -> Tensor:
    """The matrix that replaces features by their mean, for several pixels side by side: [NARROW, NARROW]."""
    return torch.kron(torch.eye(NARROW // features), torch.full((features, features), 1 / features))


def _is_narrow(x: Tensor) -> bool:
    """Whether each mean is stored once for each feature. On a CPU with few features this is faster than broadcasting
    short rows."""
    features = x.shape[-1]
    return x.device.type == "cpu" and features < NARROW and NARROW % features == 0


def _like_statistics(pixels: Tensor, gain: Tensor) -> Tensor:
    """[H, W, 1] as it is, or as [H, W, C] where means are kept so."""
    return pixels.expand(-1, -1, len(gain)).contiguous() if _is_narrow(gain) else pixels


def _chunk_frames(z: Tensor) -> int:
    elements = CPU_CHUNK_ELEMENTS if z.device.type == "cpu" else GPU_CHUNK_ELEMENTS
    return max(1, elements // z.shape[1:].numel())
