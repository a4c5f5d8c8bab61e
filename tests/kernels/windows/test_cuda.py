"""The GPU's kernels of the temporal pyramid's windows, run on the host, equal torch's own operations."""

import pytest
import torch
from torch import Tensor

from attengait.kernels.runtime.launch import HostDevice, host_missing
from attengait.kernels.runtime.pieces import FORMATS
from attengait.kernels.windows.clips import BINS, KERNEL_ROWS, SIDE, Clips
from attengait.kernels.windows.cuda import GpuWindows, fits
from attengait.model.temporal_windows import plain_windows, sum_rows, sum_shares, temporal_windows


def make(frames: int, features: int, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """x, kernels and the gradient of the sums, of three clips."""
    generator = torch.Generator().manual_seed(frames)
    x = torch.randn((3, frames, SIDE, SIDE, features), generator=generator).to(dtype)
    kernels = torch.randn((KERNEL_ROWS, SIDE, features), generator=generator)
    d = torch.randn(plain_windows(x, kernels).shape, generator=generator)
    return x.to(device), kernels.to(device), d.to(device)


def by_torch(x: Tensor, kernels: Tensor, d: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_(), kernels.detach().requires_grad_()]
    sums = plain_windows(*leaves)
    return [sums.detach(), *torch.autograd.grad(sums, leaves, d)]


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for name, our, their in zip(("sums", "dx", "dkernels"), ours, theirs, strict=True):
        # dx has the rounding of its own type where a sum in another order falls to the other side of a half.
        tolerance = 1e-6 if our.dtype == torch.float32 else 1e-4
        assert torch.linalg.vector_norm(our.double() - their.double()) <= tolerance * their.double().norm(), name


@pytest.mark.skipif(host_missing() is not None, reason=str(host_missing()))
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("frames", "features"), [(16, 8), (23, 32), (37, 8)])
def test_kernels_equal_torchs_operations(frames: int, features: int, format: str, backwards: bool) -> None:
    x, kernels, d = make(frames, features, getattr(torch, format))
    clips = Clips(clips=len(x), frames=frames, features=features, format=format)
    windows = GpuWindows(clips=clips, device=HostDevice(backwards=backwards))
    rows = torch.full((*x.shape[:3], len(BINS), features), torch.nan)
    dx, shares = torch.full_like(x, torch.nan), torch.full((len(BINS), SIDE, SIDE, SIDE, features), torch.nan)
    windows.forward(*(tensor.data_ptr() for tensor in (x, kernels, rows)))
    windows.backward(*(tensor.data_ptr() for tensor in (d, x, kernels, dx, shares)))
    assert_close([sum_rows(rows), dx, sum_shares(shares)], by_torch(x, kernels, d))


def test_it_says_which_clips_fit() -> None:
    fitting = [n for n in range(40) if fits(Clips(clips=1, frames=16, features=n, format="float16"))]
    assert fitting == [8, 16, 24, 32]


@pytest.mark.gpu
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("features", [32, 512])
def test_on_a_gpu_the_operator_equals_torchs_operations(features: int, format: str) -> None:
    x, kernels, d = make(30, features, getattr(torch, format), "cuda")
    leaves = [x.detach().requires_grad_(), kernels.detach().requires_grad_()]
    sums = temporal_windows(*leaves)
    ours = [sums.detach(), *torch.autograd.grad(sums, leaves, d)]
    for our, their in zip(ours, by_torch(x, kernels, d), strict=True):
        tolerance = 1e-5 if our.dtype == torch.float32 else 1e-3
        assert torch.linalg.vector_norm(our.double() - their.double()) <= tolerance * their.double().norm()
