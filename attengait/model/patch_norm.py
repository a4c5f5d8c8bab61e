"""Swish, patch attention and LayerNorm over features in one differentiable step that keeps only its input.

    x = swish(z);   y = LayerNorm(a x) = gain * a q + bias,   q = (x - mean) * s,   s = 1 / sqrt(a^2 var + eps)

Mean and variance are those of x over its C features. Written out by hand because these maps are most of the network's
memory traffic: autograd would keep seven float32 maps and pass over all of them from main memory, this keeps z (in
the precision of the network) and works on a few frames at a time, in float32, within the processor's cache.

Backward, for the gradient d of y, with G = gain * a * d (per pixel, means over features):

    dx = s * (G - mean(G) - a^2 q mean(G q))        da = eps * sum(gain * d q s^2)
    dgain = sum(a d q)                              dbias = sum(d)

All are finite at a = 0, which attention dropout makes, and hold for a < 0.

M frames, m frames of a chunk, S = H x W pixels, C features.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

EPS = 1e-6
CPU_CHUNK_ELEMENTS = 2**18
"""Elements worked on at once: 1 MiB in float32, so that the passes over a chunk stay in the L2 and L3 caches."""
GPU_CHUNK_ELEMENTS = 2**27
NARROW = 16
"""Below this many features a CPU's reduction over them, and its broadcast back, is scalar code."""


def patch_norm(x: Tensor, a: Tensor, gain: Tensor, bias: Tensor, *, swish: bool) -> Tensor:
    """LayerNorm(a * x), or LayerNorm(a * swish(x)), over the features of maps.

    Args:
        x: [M, H, W, C], any floating type; the result has the same.
        a: float32 scalar per pixel [H, W].
        gain, bias: float32 [C].
        swish: whether x is still to pass swish.
    """
    apply: Callable[..., Tensor] = _PatchNorm.apply
    return apply(x, a.contiguous(), gain, bias, swish)


class _PatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, gain: Tensor, bias: Tensor, swish: bool) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, a, gain)
        ctx.swish = swish
        a_square = _like_statistics(a * a, x)
        a_gain = a.view(-1, 1) * gain  # [S, C]
        biases = bias.expand_as(a_gain).contiguous()  # [S, C]
        y = torch.empty_like(x)
        with torch.autocast(x.device.type, enabled=False):
            for z, out in zip(_chunks(x), _chunks(y), strict=True):
                q, _ = _normalised(z, a_square, swish)
                torch.addcmul(biases, q, a_gain, out=out)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x, a, gain = ctx.saved_tensors
        a_square = _like_statistics(a * a, x)
        a_gain = a.view(-1, 1) * gain  # [S, C]
        sum_d, sum_dq, sum_dqss = (torch.zeros_like(a_gain) for _ in range(3))  # sums over frames [S, C]
        dx = torch.empty_like(x)
        with torch.autocast(x.device.type, enabled=False):
            for z, out, d in zip(_chunks(x), _chunks(dx), _chunks(dy.contiguous()), strict=True):
                q, s = _normalised(z, a_square, ctx.swish)
                d = d.float()
                sum_d += d.sum(0)
                dq = d * q
                sum_dq += dq.sum(0)
                sum_dqss += (s * s).mul(dq).sum(0)
                mean_gq = _mean(dq.mul_(a_gain))
                g = _centred(d * a_gain).addcmul_(q.mul_(mean_gq), a_square, value=-1).mul_(s)
                if ctx.swish:
                    torch.ops.aten.silu_backward.grad_input(g.to(z.dtype), z, grad_input=out)
                else:
                    out.copy_(g)
        da = EPS * (sum_dqss * gain).sum(1).view_as(a)
        dgain = (sum_dq * a.view(-1, 1)).sum(0)
        return dx, da, dgain, sum_d.sum(0), None


def _normalised(z: Tensor, a_square: Tensor, swish: bool) -> tuple[Tensor, Tensor]:
    """q and s of a chunk [m, S, C] in float32; s is [m, S, 1], or [m, S, C] where features are few."""
    x = functional.silu(z.float()) if swish else z.float()
    x = _centred(x)
    s = _mean(x * x).mul_(a_square).add_(EPS).rsqrt_()
    return x.mul_(s), s


def _is_narrow(x: Tensor) -> bool:
    """Whether statistics are kept C times over: on a CPU, full-size passes then beat broadcasts of short rows."""
    return x.device.type == "cpu" and x.shape[-1] < NARROW and NARROW % x.shape[-1] == 0 and x[0].numel() % NARROW == 0


def _mean(x: Tensor) -> Tensor:
    """Mean over features of a chunk [m, S, C]: [m, S, 1], or [m, S, C] where features are few."""
    if not _is_narrow(x):
        return x.mean(-1, keepdim=True)
    return torch.mm(x.view(-1, NARROW), _averaging(x.shape[-1])).view_as(x)


def _centred(x: Tensor) -> Tensor:
    """A chunk [m, S, C] less its mean over features."""
    if not _is_narrow(x):
        return x - x.mean(-1, keepdim=True)
    return torch.mm(x.view(-1, NARROW), torch.eye(NARROW) - _averaging(x.shape[-1])).view_as(x)


def _averaging(features: int) -> Tensor:
    """The matrix that replaces features by their mean, for several pixels side by side: [NARROW, NARROW]."""
    return torch.kron(torch.eye(NARROW // features), torch.full((features, features), 1 / features))


def _like_statistics(pixels: Tensor, x: Tensor) -> Tensor:
    """[H, W] as [S, 1], or as [S, C] where statistics are kept so."""
    column = pixels.reshape(-1, 1)
    return column.expand(-1, x.shape[-1]).contiguous() if _is_narrow(x) else column


def _chunks(maps: Tensor) -> Iterator[Tensor]:
    """[M, H, W, C] as views [m, S, C] of a few frames each."""
    elements = CPU_CHUNK_ELEMENTS if maps.device.type == "cpu" else GPU_CHUNK_ELEMENTS
    frames = max(1, elements // maps[0].numel())
    yield from torch.split(maps.flatten(1, 2), frames)
