"""Swish, 2 x 2 max pooling where a stage begins, patch attention and LayerNorm in one differentiable step.

    x = swish(z), perhaps pooled;   y = LayerNorm(a x) = gain * a q + bias,   q = (x - mean) * s,
    s = 1 / sqrt(a^2 var + eps)

Mean and variance are those of x over its C features. These maps are most of the network's memory traffic: autograd
would keep some eight float32 maps and pass over all of them from main memory. So the step is an operator of its own,
`attengait::patch_norm`, which keeps only z, in the precision of the network, and computes in float32. Compiled code
reads each map once and writes each once: `attengait.kernels.patch_norm`, for CPUs and for NVIDIA GPUs. Where it does
not fit, or where there is no compiler, torch's own operations do the same (`attengait.model.chunked_norm`).

Backward, for the gradient d of y, with G = gain * a * d (per pixel, means over features):

    dx = s * (G - mean(G) - a^2 q mean(G q))        da = eps * sum(gain * d q s^2)
    dgain = sum(a d q)                              dbias = sum(d)

All are finite at a = 0, which attention dropout makes, and hold for a < 0.

M frames, H x W pixels of y, C features; z is [M, H, W, C], or [M, 2H, 2W, C] if it is pooled.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attengait.kernels.patch_norm import cpu, cuda
from attengait.kernels.patch_norm.maps import Maps
from attengait.model import chunked_norm
from attengait.model.chunked_norm import EPS as EPS
from attengait.model.compiled import addresses, format_of, gpu_of, on_stream_of
from attengait.model.operators import define, differentiate, new_library


def patch_norm(z: Tensor, a: Tensor, gain: Tensor, bias: Tensor, *, pool: bool) -> Tensor:
    """LayerNorm(a * swish(z)) over the features of maps, the swish halved by max pooling if `pool`.

    While torch exports a program, this is `plain_patch_norm`, so that the program needs nothing but torch.

    Args:
        z: a convolution's output [M, H, W, C], or [M, 2H, 2W, C] to be pooled; any floating type, and y has the same.
        a: float32 scalar per pixel of y [H, W].
        gain, bias: float32 [C].
        pool: whether 2 x 2 max pooling follows the swish.
    """
    if torch.compiler.is_exporting():
        return plain_patch_norm(z, a, gain, bias, pool=pool)
    y: Tensor = torch.ops.attengait.patch_norm(z, a, gain, bias, pool)
    return y


def plain_patch_norm(z: Tensor, a: Tensor, gain: Tensor, bias: Tensor, *, pool: bool) -> Tensor:
    """The same as `patch_norm`, as torch's operations that autograd and exporters know."""
    x = functional.silu(z.float())
    if pool:
        x = functional.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
    a = a[..., None]
    y = (x - mean) * (a * torch.rsqrt(a * a * variance + EPS)) * gain + bias
    return y.to(z.dtype)


def _forward(z: Tensor, a: Tensor, gain: Tensor, bias: Tensor, pool: bool) -> Tensor:
    z, a, gain, bias = z.contiguous(), a.contiguous(), gain.contiguous(), bias.contiguous()
    kernels = _kernels(z, pool)
    if kernels is None:
        return chunked_norm.forward(z, a, gain, bias, pool=pool)
    y = _empty_y(z, pool)
    with on_stream_of(z):
        kernels.forward(*addresses(z, a, gain, bias, y))
    return y


def _backward(dy: Tensor, z: Tensor, a: Tensor, gain: Tensor, pool: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dy, z, a, gain = dy.contiguous(), z.contiguous(), a.contiguous(), gain.contiguous()
    kernels = _kernels(z, pool)
    if kernels is None:
        return chunked_norm.backward(dy, z, a, gain, pool=pool)
    dz = torch.empty_like(z)
    da = a.new_zeros(kernels.slices, *a.shape)
    dgain, dbias = (gain.new_zeros(kernels.partial_sums, len(gain)) for _ in range(2))
    with on_stream_of(z):
        kernels.backward(*addresses(dy, z, a, gain, dz, da, dgain, dbias))
    return dz, da.sum(0), dgain.sum(0), dbias.sum(0)


def _forward_shapes(z: Tensor, a: Tensor, gain: Tensor, bias: Tensor, pool: bool) -> Tensor:
    return _empty_y(z, pool)


def _backward_shapes(
    dy: Tensor, z: Tensor, a: Tensor, gain: Tensor, pool: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dz = torch.empty_like(z, memory_format=torch.contiguous_format)
    return dz, a.new_empty(a.shape), torch.empty_like(gain), torch.empty_like(gain)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
    z, a, gain, _, ctx.pool = inputs
    ctx.save_for_backward(z, a, gain)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
    return *torch.ops.attengait.patch_norm_backward(dy, *ctx.saved_tensors, ctx.pool), None


_library = new_library()
define(_library, "patch_norm", _forward, _forward_shapes)
define(_library, "patch_norm_backward", _backward, _backward_shapes)
differentiate(_library, "patch_norm", _keep, _gradients)


def _empty_y(z: Tensor, pool: bool) -> Tensor:
    frames, height, width, features = z.shape
    return z.new_empty(frames, height // (1 + pool), width // (1 + pool), features)


def _kernels(z: Tensor, pool: bool) -> cpu.CpuKernels | cuda.GpuKernels | None:
    """The compiled code for maps z [M, H, W, C]; None where there is none."""
    frames, height, width, features = z.shape
    maps = Maps(
        frames=frames,
        height=height // (1 + pool),
        width=width // (1 + pool),
        features=features,
        format=format_of(z),
        pool=pool,
    )
    if z.device.type == "cpu" and cpu.fits(maps):
        return cpu.CpuKernels(maps=maps, num_threads=torch.get_num_threads())
    device = gpu_of(z) if cuda.fits(maps) else None
    return None if device is None else cuda.GpuKernels(maps=maps, device=device)
