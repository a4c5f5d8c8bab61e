"""The GPU's kernels of patch_norm, run on the host: they equal the definition, whatever the order of blocks."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from attengait.kernels.patch_norm.cuda import GpuKernels, fits
from attengait.kernels.patch_norm.maps import Maps
from attengait.kernels.runtime.launch import HostDevice, host_missing
from attengait.kernels.runtime.pieces import FORMATS
from attengait.model.chunked_norm import EPS
from attengait.model.patch_norm import patch_norm

HEIGHT, WIDTH = 6, 10
TOLERANCES = {"float32": 1e-6, "bfloat16": 4e-3, "float16": 5e-4}


def maps_of(frames: int, height: int, width: int, features: int, format: str, *, pool: bool) -> Maps:
    return Maps(frames=frames, height=height, width=width, features=features, format=format, pool=pool)


def definition(z: Tensor, a: Tensor, gain: Tensor, bias: Tensor, *, pool: bool) -> Tensor:
    x = functional.silu(z)
    if pool:
        x = functional.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return functional.layer_norm(a[..., None] * x, gain.shape, gain, bias, EPS)


def make(frames: int, features: int, dtype: torch.dtype, *, pool: bool, device: str = "cpu") -> list[Tensor]:
    """z, a, gain, bias and dy; a part of z is flat, and a part of a is zero and negative."""
    generator = torch.Generator().manual_seed(3)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    z, a = randn(frames, HEIGHT * (1 + pool), WIDTH * (1 + pool), features), torch.full((HEIGHT, WIDTH), 1 / 121)
    z[:, :, :2] = z[0, 0, 0]
    a[0], a[1], a[2] = 0.0, -1 / 121, 2.0
    tensors = [z.to(dtype), a, 1 + randn(features) / 4, randn(features) / 4]
    return [tensor.to(device) for tensor in (*tensors, randn(frames, HEIGHT, WIDTH, features).to(dtype))]


def expected(tensors: list[Tensor], *, pool: bool) -> list[Tensor]:
    leaves = [tensor.double().requires_grad_() for tensor in tensors[:4]]
    y = definition(*leaves, pool=pool)
    return [y.detach(), *torch.autograd.grad(y, leaves, tensors[4].double())]


def on_host(tensors: list[Tensor], device: HostDevice, *, pool: bool) -> list[Tensor]:
    """y, dz, da, dgain and dbias by the kernels; what they leave unwritten is NaN."""
    z, a, gain, bias, dy = tensors
    maps = maps_of(len(z), HEIGHT, WIDTH, len(gain), str(z.dtype).removeprefix("torch."), pool=pool)
    kernels = GpuKernels(maps=maps, device=device)
    y, dz = torch.full_like(dy, torch.nan), torch.full_like(z, torch.nan)
    da = torch.full((kernels.slices, HEIGHT, WIDTH), torch.nan)
    dgain, dbias = (torch.full((kernels.partial_sums, len(gain)), torch.nan) for _ in range(2))
    kernels.forward(*(tensor.data_ptr() for tensor in (z, a, gain, bias, y)))
    kernels.backward(*(tensor.data_ptr() for tensor in (dy, z, a, gain, dz, da, dgain, dbias)))
    return [y, dz, da.sum(0), dgain.sum(0), dbias.sum(0)]


def assert_close(ours: list[Tensor], theirs: list[Tensor], of_maps: float) -> None:
    tolerances = (of_maps, of_maps, 1e-5, 1e-5, 1e-5)
    for name, our, their, tolerance in zip(("y", "dz", "da", "dgain", "dbias"), ours, theirs, tolerances, strict=True):
        difference = torch.linalg.vector_norm(our.double() - their)
        assert difference <= tolerance * torch.linalg.vector_norm(their), name


@pytest.mark.skipif(host_missing() is not None, reason=str(host_missing()))
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("features", [8, 64])
def test_kernels_equal_the_definition_whatever_the_order_of_blocks(features: int, format: str, pool: bool) -> None:
    tensors = make(5, features, getattr(torch, format), pool=pool)
    results = [on_host(tensors, HostDevice(backwards=backwards), pool=pool) for backwards in (False, True)]
    assert_close(results[0], expected(tensors, pool=pool), TOLERANCES[format])
    assert all(map(torch.equal, *results))


@pytest.mark.skipif(host_missing() is not None, reason=str(host_missing()))
def test_float16_is_read_and_written_as_torch_does() -> None:
    features = 2048
    halves = torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.int16)).view(torch.float16)
    floats = torch.from_numpy(np.random.default_rng(0).integers(0, 2**32, 2**16, dtype=np.uint32).view(np.float32))
    floats[::2] = halves[::2].float() * (1 + 2.0**-11)  # half-way between two neighbours
    kernels = GpuKernels(maps=maps_of(1, 1, 1, features, "float16", pool=False), device=HostDevice())
    zeros, one = torch.zeros(features), torch.ones(1)
    for half, number in zip(halves.split(features), floats.split(features), strict=True):
        z, y, dz, dbias = torch.zeros_like(half), torch.empty_like(half), torch.empty_like(half), torch.empty(features)
        kernels.forward(*(tensor.data_ptr() for tensor in (z, one, zeros, number, y)))  # y is the bias
        torch.testing.assert_close(y, number.half(), rtol=0, atol=0, equal_nan=True)
        dgain, da = torch.empty(features), torch.empty(1)
        kernels.backward(*(tensor.data_ptr() for tensor in (half, z, one, zeros, dz, da, dgain, dbias)))
        torch.testing.assert_close(dbias, half.float(), rtol=0, atol=0, equal_nan=True)


def test_it_says_which_features_fit() -> None:
    assert [features for features in range(1, 3000) if fits(maps_of(1, 8, 8, features, "bfloat16", pool=False))] == [
        2**i for i in range(3, 12)
    ]


@pytest.mark.gpu
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("features", [8, 32, 512])
def test_on_a_gpu_the_operator_equals_the_definition(features: int, format: str, pool: bool) -> None:
    tensors = make(70, features, getattr(torch, format), pool=pool, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors[:4]]
        y = patch_norm(*leaves, pool=pool)
        ours = [y.detach(), *torch.autograd.grad(y, leaves, tensors[4])]
    torch.cuda.synchronize()
    assert_close(ours, expected(tensors, pool=pool), TOLERANCES[format])
