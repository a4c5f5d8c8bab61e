"""The weighted sums of the temporal pyramid's windows, all bins in one differentiable step.

A bin b = 1, 2, 4, 8, 16 tiles a clip's map [T, 16, 16, C] by windows of b frames, b rows and all columns. A tail of
T mod b frames is left out. A kernel [b, b, 16, C] weighs a window: one sum for each feature. Bin by bin, torch's
operations would pass over the map five times, and over five products of the map. So the step is an operator of its
own, `attengait::temporal_windows`. Compiled code reads the map once: `attengait.kernels.windows`, for CPUs and for
NVIDIA GPUs. Where it does not fit, or where there is no compiler, torch's own operations do the same.

N clips, T frames, C features, windows w: bin after bin, each [T // b, 16 / b]. Kernels are one float32 tensor
[341, 16, C]: bin after bin, each [b frames, b rows].
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attengait.kernels.windows import cpu, cuda
from attengait.kernels.windows.clips import BINS, SIDE, Clips, num_windows
from attengait.model.compiled import addresses, format_of, gpu_of, on_stream_of
from attengait.model.operators import define, differentiate, new_library

CPU_CHUNK_ELEMENTS = 2**19
"""Elements of the clips that torch's operations work on at once on a CPU, so that the passes of every bin stay in its
caches."""


def temporal_windows(x: Tensor, kernels: Tensor) -> Tensor:
    """The windows' sums, float32 [N, w, C], of maps [N, T, 16, 16, C] of any floating type, for kernels [341, 16, C].

    A program that torch exports has `exported_windows` instead, and needs nothing but torch.
    """
    sums: Tensor = torch.ops.attengait.temporal_windows(x, kernels)
    return sums


def plain_windows(x: Tensor, kernels: Tensor) -> Tensor:
    """The same as `temporal_windows`, as torch's operations that autograd knows."""
    x, sums = x.float(), []
    for b, kernel in by_bin(kernels):
        weighed = _windows(x, b) * kernel[:, None]
        sums.append(weighed.sum((4, 5)).sum(2).flatten(1, 2))  # [N, windows of b, C]
    return torch.cat(sums, 1)


def exported_windows(x: Tensor, kernels: Tensor) -> list[Tensor]:
    """The windows' sums of each bin, float32 [N, T // b, 16 / b, C], by operations that exporters know for any number
    of clips and frames."""
    sums = []
    for b, kernel in by_bin(kernels):
        # [N, T // b, 16 / b, b rows, 16, C, b frames]
        windows = x.float().unfold(1, b, b).unflatten(2, (SIDE // b, b))  # type: ignore[no-untyped-call]
        sums.append((windows * kernel.permute(1, 2, 3, 0)).sum((3, 4, 6)))
    return sums


def by_bin(kernels: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each bin b with its kernel [b, b, 16, C]."""
    parts = torch.split(kernels, [b * b for b in BINS])
    return ((b, part.view(b, b, *part.shape[1:])) for b, part in zip(BINS, parts, strict=True))


def _forward(x: Tensor, kernels: Tensor) -> Tensor:
    x, kernels = x.contiguous(), kernels.contiguous()
    code = _code(x)
    if code is None:
        return torch.cat([plain_windows(chunk, kernels) for chunk in _chunks(x)])
    if isinstance(code, cpu.CpuWindows):
        sums = _empty_sums(x)
        code.forward(*addresses(x, kernels, sums))
        return sums
    rows = x.new_empty((*x.shape[:3], len(BINS), x.shape[-1]), dtype=torch.float32)
    with on_stream_of(x):
        code.forward(*addresses(x, kernels, rows))
    return sum_rows(rows)


def _backward(dsums: Tensor, x: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    dsums, x, kernels = dsums.contiguous(), x.contiguous(), kernels.contiguous()
    code, dx = _code(x), torch.empty_like(x)
    if code is None:
        return _plain_backward(dsums, x, kernels)
    if isinstance(code, cpu.CpuWindows):
        dkernels = kernels.new_zeros(code.slices, *kernels.shape)
        code.backward(*addresses(dsums, x, kernels, dx, dkernels))
        return dx, dkernels.sum(0)
    shares = kernels.new_empty(len(BINS), SIDE, SIDE, SIDE, kernels.shape[-1])
    with on_stream_of(x):
        code.backward(*addresses(dsums, x, kernels, dx, shares))
    return dx, sum_shares(shares)


def _forward_shapes(x: Tensor, kernels: Tensor) -> Tensor:
    return _empty_sums(x)


def _backward_shapes(dsums: Tensor, x: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(kernels)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, dsums: Tensor) -> tuple[Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor] = torch.ops.attengait.temporal_windows_backward(dsums, *ctx.saved_tensors)
    return gradients


_library = new_library()
define(_library, "temporal_windows", _forward, _forward_shapes)
define(_library, "temporal_windows_backward", _backward, _backward_shapes)
differentiate(_library, "temporal_windows", _keep, _gradients)


def _empty_sums(x: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], num_windows(x.shape[1]), x.shape[-1]), dtype=torch.float32)


def _code(x: Tensor) -> cpu.CpuWindows | cuda.GpuWindows | None:
    """The compiled code for maps x [N, T, 16, 16, C]; None where there is none."""
    clips = Clips(clips=x.shape[0], frames=x.shape[1], features=x.shape[-1], format=format_of(x))
    if x.device.type == "cpu" and cpu.fits(clips):
        return cpu.CpuWindows(clips=clips, num_threads=torch.get_num_threads())
    device = gpu_of(x) if cuda.fits(clips) else None
    return None if device is None else cuda.GpuWindows(clips=clips, device=device)


def sum_rows(rows: Tensor) -> Tensor:
    """The windows' sums [N, w, C] from what each row adds to its window of each bin, [N, T, 16, bins, C]."""
    clips, frames, _, _, features = rows.shape
    sums = []
    for i, b in enumerate(BINS):
        times = frames // b
        of_bin = rows[:, : times * b, :, i].reshape(clips, times, b, SIDE // b, b, features)
        sums.append(of_bin.sum((2, 4)).view(clips, -1, features))
    return torch.cat(sums, 1)


def sum_shares(shares: Tensor) -> Tensor:
    """The kernels' gradients [341, 16, C] from the shares [bins, 16, 16, 16, C] of the frames and rows of a window."""
    sums = []
    for share, b in zip(shares, BINS, strict=True):
        of_kernel = share.view(SIDE // b, b, SIDE // b, b, *share.shape[2:]).sum((0, 2))
        sums.append(of_kernel.flatten(0, 1))
    return torch.cat(sums)


def _plain_backward(dsums: Tensor, x: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    """By torch's operations, a few clips at a time."""
    dkernels, gradients = torch.zeros_like(kernels), []
    chunks = _chunks(x)
    for chunk, of_chunk in zip(chunks, torch.split(dsums, [len(chunk) for chunk in chunks]), strict=True):
        dx = torch.zeros(chunk.shape, device=x.device)
        of_bins = torch.split(of_chunk, [x.shape[1] // b * (SIDE // b) for b in BINS], 1)
        parts = zip(by_bin(kernels), by_bin(dkernels), of_bins, strict=True)
        for (b, kernel), (_, dkernel), of_bin in parts:
            d = of_bin.reshape(len(chunk), -1, 1, SIDE // b, 1, 1, x.shape[-1])
            dkernel += (d * _windows(chunk.float(), b)).sum((0, 1, 3))
            _windows(dx, b).add_(d * kernel[:, None])
        gradients.append(dx.to(x.dtype))
    return torch.cat(gradients), dkernels


def _windows(x: Tensor, b: int) -> Tensor:
    """The windows of bin b as a view [N, T // b, b, 16 / b, b, 16, C]."""
    times = x.shape[1] // b
    return x[:, : times * b].view(len(x), times, b, SIDE // b, b, SIDE, x.shape[-1])


def _chunks(x: Tensor) -> tuple[Tensor, ...]:
    """Clips a few at a time on a CPU, all at once elsewhere."""
    if x.device.type != "cpu" or not len(x):
        return (x,)
    return torch.split(x, max(1, CPU_CHUNK_ELEMENTS // x[0].numel()))
