"""The temporal pyramid's sums: compiled code equals torch's operations, and those the definition."""

import pytest
import torch
from torch import Tensor

from attengait.kernels.runtime.compile import find_compiler
from attengait.kernels.windows.clips import BINS, KERNEL_ROWS
from attengait.model import temporal_windows as module
from attengait.model.temporal_windows import by_bin, plain_windows, temporal_windows


def inputs(frames: int, features: int = 16, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """x of three clips, kernels, and the gradient of the sums."""
    generator = torch.Generator().manual_seed(frames)
    x = torch.randn((3, frames, 16, 16, features), generator=generator).to(dtype)
    kernels = torch.randn((KERNEL_ROWS, 16, features), generator=generator)
    return x, kernels, torch.randn(plain_windows(x, kernels).shape, generator=generator)


def value_and_gradients(function, x: Tensor, kernels: Tensor, d: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_(), kernels.clone().requires_grad_()]
    sums = function(*leaves)
    return [sums.detach(), *torch.autograd.grad(sums, leaves, d)]


def assert_close(ours: list[Tensor], theirs: list[Tensor], dx_tolerance: float = 1e-6) -> None:
    for name, our, their in zip(("sums", "dx", "dkernels"), ours, theirs, strict=True):
        tolerance = dx_tolerance if name == "dx" else 1e-6
        assert torch.linalg.vector_norm(our.double() - their.double()) <= tolerance * their.double().norm(), name


@pytest.fixture(params=["compiled", "torch"])
def code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What computes: our compiled code, or torch's operations where there is no compiler."""
    if request.param == "torch":
        monkeypatch.setattr(module, "_code", lambda x: None)
    elif find_compiler() is None:
        pytest.skip("there is no C++ compiler")
    return request.param


def test_a_window_is_b_frames_by_b_rows_by_all_columns() -> None:
    x, kernels, _ = inputs(19)
    sums = plain_windows(x.double(), kernels.double())
    first = 0
    for b, kernel in by_bin(kernels.double()):
        for time in range(19 // b):
            for row in range(16 // b):
                window = x[:, time * b : (time + 1) * b, row * b : (row + 1) * b].double()
                expected = (window * kernel).sum((1, 2, 3))
                torch.testing.assert_close(sums[:, first + time * (16 // b) + row], expected, rtol=1e-4, atol=1e-4)
        first += 19 // b * (16 // b)
    assert first == sums.shape[1]
    assert BINS == (1, 2, 4, 8, 16)


@pytest.mark.parametrize("frames", [16, 30, 37])
def test_the_operator_equals_the_plain_function(code: str, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_CHUNK_ELEMENTS", 2 * frames * 256 * 16)  # two clips at once, then one
    tensors = inputs(frames)
    assert_close(value_and_gradients(temporal_windows, *tensors), value_and_gradients(plain_windows, *tensors))


def test_bfloat16_maps_differ_by_their_own_rounding_only(code: str) -> None:
    x, kernels, d = inputs(20, dtype=torch.bfloat16)
    ours = value_and_gradients(temporal_windows, x, kernels, d)
    assert [tensor.dtype for tensor in ours] == [torch.float32, torch.bfloat16, torch.float32]
    assert_close(ours, value_and_gradients(plain_windows, x.double(), kernels, d), dx_tolerance=4e-3)


def test_features_that_fill_no_vector_are_computed_too() -> None:
    tensors = inputs(17, features=5)
    assert_close(value_and_gradients(temporal_windows, *tensors), value_and_gradients(plain_windows, *tensors))


def test_the_number_of_threads_changes_no_bit(code: str) -> None:
    tensors, before = inputs(18), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(value_and_gradients(temporal_windows, *tensors))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


def test_torch_sees_an_operator_with_shapes_and_gradients() -> None:
    x, kernels, _ = inputs(16)
    arguments = (x.requires_grad_(), kernels.requires_grad_())
    torch.library.opcheck(torch.ops.attengait.temporal_windows.default, arguments)
