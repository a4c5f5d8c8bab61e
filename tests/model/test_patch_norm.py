"""Patch attention with its LayerNorm: the fast step equals the definition, in value and in gradient."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from attengait.kernels.runtime.compile import find_compiler
from attengait.model import chunked_norm
from attengait.model import patch_norm as module
from attengait.model.attention import PartAttention, PatchAttention
from attengait.model.config import ModelConfig
from attengait.model.net import AttenGait
from attengait.model.patch_norm import EPS, patch_norm, plain_patch_norm


def slow_twin(z: Tensor, a: Tensor, gain: Tensor, bias: Tensor, *, pool: bool) -> Tensor:
    """The definition: LayerNorm(a * pooled(swish(z)))."""
    x = functional.silu(z)
    if pool:
        x = functional.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return functional.layer_norm(a[..., None] * x, gain.shape, gain, bias, EPS)


def inputs(features: int, dtype: torch.dtype, *, pool: bool) -> list[Tensor]:
    """z (a part of it flat), a (published size, zero, negative and large), gain, bias and the gradient of y."""
    frames, size_px = 5, 8
    generator = torch.Generator().manual_seed(7)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    a = torch.full((size_px, size_px), 1 / 484)
    a[0], a[1], a[2] = 0.0, -1 / 484, -1.5
    z = randn(frames, size_px * (1 + pool), size_px * (1 + pool), features)
    z[:, :, :2] = z[0, 0, 0]  # as a still background is: every pixel of a pooling window is its maximum
    dy = randn(frames, size_px, size_px, features)
    return [z.to(dtype), a, 1 + randn(features) / 4, randn(features) / 4, dy.to(dtype)]


def value_and_gradients(function, z, a, gain, bias, dy, *, pool: bool) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in (z, a, gain, bias)]
    y = function(*leaves, pool=pool)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def assert_close(ours: list[Tensor], theirs: list[Tensor], of_maps: float) -> None:
    """y and dz within a share `of_maps` of their length, sums over many values within 1e-5."""
    tolerances = (of_maps, of_maps, 1e-5, 1e-5, 1e-5)
    for name, our, their, tolerance in zip(("y", "dz", "da", "dgain", "dbias"), ours, theirs, tolerances, strict=True):
        assert torch.linalg.vector_norm(our - their) <= tolerance * torch.linalg.vector_norm(their), name


@pytest.fixture(params=["compiled", "chunks"])
def code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What computes: our compiled code, or torch's operations where there is no compiler."""
    if request.param == "chunks":
        monkeypatch.setattr(module, "_kernels", lambda z, pool: None)
    elif find_compiler() is None:
        pytest.skip("there is no C++ compiler")
    return request.param


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("features", [3, 4, 8, 16, 32, 64])
def test_fast_step_equals_its_slow_twin(code: str, features: int, pool: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        chunked_norm, "CPU_CHUNK_ELEMENTS", 2 * 64 * (1 + 3 * pool) * features
    )  # two frames a chunk, the last has one
    tensors = inputs(features, torch.float32, pool=pool)
    fast = value_and_gradients(patch_norm, *tensors, pool=pool)
    slow = value_and_gradients(slow_twin, *[tensor.double() for tensor in tensors], pool=pool)
    assert [ours.dtype for ours in fast] == [torch.float32] * 5
    assert_close(fast, slow, of_maps=1e-5)
    assert fast[2][0].count_nonzero() > 0  # attention of 0 still has a gradient, and (above) the right one


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("features", [8, 32])
def test_bfloat16_maps_differ_by_their_own_rounding_only(code: str, features: int, pool: bool) -> None:
    tensors = inputs(features, torch.bfloat16, pool=pool)
    tensors[1:4] = [tensor.float() for tensor in tensors[1:4]]
    with torch.autocast("cpu", torch.bfloat16):  # and the backward pass in it too, as careless callers do
        fast = value_and_gradients(patch_norm, *tensors, pool=pool)
    slow = value_and_gradients(slow_twin, *[tensor.double() for tensor in tensors], pool=pool)
    assert [tensor.dtype for tensor in fast] == [torch.bfloat16] * 2 + [torch.float32] * 3
    assert_close(fast, slow, of_maps=4e-3)


@pytest.mark.parametrize("pool", [False, True])
def test_plain_operations_are_the_same_function(pool: bool) -> None:
    tensors = inputs(8, torch.float64, pool=pool)
    plain = value_and_gradients(plain_patch_norm, *[tensor.double() for tensor in tensors], pool=pool)
    slow = value_and_gradients(slow_twin, *[tensor.double() for tensor in tensors], pool=pool)
    assert_close(plain, slow, of_maps=1e-5)  # its maps are float32 inside


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_changes_no_bit(dtype: torch.dtype, pool: bool, code: str) -> None:
    tensors = inputs(16, dtype, pool=pool)
    tensors[1:4] = [tensor.float() for tensor in tensors[1:4]]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(value_and_gradients(patch_norm, *tensors, pool=pool))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


def test_what_is_not_finite_stays_so(code: str) -> None:
    z, a, gain, bias, _ = inputs(8, torch.float32, pool=True)
    z[1, 2, 3, 4], z[2, 0, 0, 0] = math.nan, math.inf
    y = patch_norm(z, a, gain, bias, pool=True)
    broken = ~y.isfinite().flatten(-2).all(-1)  # rows of y
    assert broken.nonzero().tolist() == [[1, 1], [2, 0]]


def test_no_frames_give_no_maps_and_gradients_of_zero(code: str) -> None:
    z, a, gain, bias, dy = inputs(8, torch.float32, pool=True)
    y, dz, *sums = value_and_gradients(patch_norm, z[:0], a, gain, bias, dy[:0], pool=True)
    assert (y.shape, dz.shape) == (dy[:0].shape, z[:0].shape)
    assert not any(each.any() for each in sums)


def test_torch_sees_an_operator_with_shapes_and_gradients() -> None:
    z, a, gain, bias, _ = inputs(8, torch.float32, pool=True)
    leaves = [tensor.requires_grad_() for tensor in (z, a, gain, bias)]
    torch.library.opcheck(torch.ops.attengait.patch_norm.default, (*leaves, True))


def test_compiled_by_torch_it_is_the_same_and_breaks_no_graph() -> None:
    tensors = inputs(8, torch.float32, pool=False)
    compiled = torch.compile(patch_norm, fullgraph=True, backend="aot_eager")
    expected = value_and_gradients(patch_norm, *tensors, pool=False)
    assert all(map(torch.equal, value_and_gradients(compiled, *tensors, pool=False), expected))


def test_an_exported_network_needs_nothing_but_torch() -> None:
    model = AttenGait(ModelConfig()).eval()
    frames = torch.randint(0, 256, (2, 16, 64, 64, 3), dtype=torch.uint8)
    program = torch.export.export(model, (frames,))
    assert not [node.target for node in program.graph.nodes if "attengait" in str(node.target)]
    torch.testing.assert_close(program.module()(frames), model(frames), rtol=1e-4, atol=1e-5)


GPU_TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 4e-3, torch.float16: 6e-4}
"""Relative errors of y and dz: a few roundings of float32, or one rounding of the half precision (2^-9, 2^-12)."""


@pytest.mark.gpu
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("features", [3, 8, 32, 128])
@pytest.mark.parametrize("dtype", GPU_TOLERANCES)
def test_a_gpu_computes_what_the_definition_says(features: int, pool: bool, dtype: torch.dtype) -> None:
    tensors = inputs(features, dtype, pool=pool)
    tensors[1:4] = [tensor.float() for tensor in tensors[1:4]]
    ours = value_and_gradients(patch_norm, *[tensor.cuda() for tensor in tensors], pool=pool)
    exact = value_and_gradients(slow_twin, *[tensor.double() for tensor in tensors], pool=pool)
    assert [tensor.dtype for tensor in ours] == [dtype] * 2 + [torch.float32] * 3
    tolerances = (GPU_TOLERANCES[dtype], GPU_TOLERANCES[dtype], 2e-5, 2e-5, 2e-5)
    for name, mine, theirs, tolerance in zip(("y", "dz", "da", "dgain", "dbias"), ours, exact, tolerances, strict=True):
        assert mine.is_cuda
        assert torch.linalg.vector_norm(mine.cpu() - theirs) <= tolerance * torch.linalg.vector_norm(theirs), name


@pytest.mark.gpu
@pytest.mark.parametrize("pool", [False, True])
def test_on_a_gpu_frames_do_not_depend_on_how_many_there_are(pool: bool) -> None:
    """More frames than the small network's batch brings, as one and in two parts; nothing may be left unwritten."""
    frames, side, features = 600, 64, 32
    generator = torch.Generator("cuda").manual_seed(3)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cuda")

    z = randn(frames, side, side, features).bfloat16()
    dy = randn(frames, side // (1 + pool), side // (1 + pool), features).bfloat16()
    a, gain, bias = randn(*dy.shape[1:3]) / 8, 1 + randn(features) / 4, randn(features) / 4
    whole = value_and_gradients(patch_norm, z, a, gain, bias, dy, pool=pool)
    parts = [
        value_and_gradients(patch_norm, z[part], a, gain, bias, dy[part], pool=pool)
        for part in (slice(0, 250), slice(250, None))
    ]
    assert all(bool(tensor.isfinite().all()) for tensor in whole)
    for i in (0, 1):
        assert torch.equal(whole[i], torch.cat([part[i] for part in parts]))
    for i in (2, 3, 4):
        together = parts[0][i] + parts[1][i]
        assert torch.linalg.vector_norm(whole[i] - together) <= 1e-5 * torch.linalg.vector_norm(together)


def test_maps_need_not_be_contiguous() -> None:
    z, a, gain, bias, _ = inputs(8, torch.float32, pool=False)
    strided = z.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not strided.is_contiguous()
    torch.testing.assert_close(patch_norm(strided, a, gain, bias, pool=False), patch_norm(z, a, gain, bias, pool=False))


def test_patches_are_three_pixels_wide_in_raster_order_and_cut_at_the_border() -> None:
    attention = PatchAttention(ModelConfig(attention_softmax=False), 16, 8, pool=False).eval()
    attention.weight.data = torch.arange(36.0)
    pixels = attention.pixel_scalars()
    assert pixels.shape == (16, 16)
    rows, columns = torch.meshgrid(torch.arange(16) // 3, torch.arange(16) // 3, indexing="ij")
    assert torch.equal(pixels, (6 * rows + columns).float())


@pytest.mark.parametrize("size_px", [64, 32, 16])
def test_attention_starts_uniform_and_sums_to_one(size_px: int) -> None:
    scalars = PatchAttention(ModelConfig(), size_px, 8, pool=False).eval().scalars()
    assert scalars.numel() == {64: 484, 32: 121, 16: 36}[size_px]
    torch.testing.assert_close(scalars, torch.full_like(scalars, 1 / scalars.numel()))


def test_dropout_is_inverted_per_patch_and_in_training_only() -> None:
    attention = PatchAttention(ModelConfig(attention_dropout=0.5), 64, 8, pool=False)
    torch.manual_seed(0)
    dropped = attention.train().scalars()
    kept = dropped[dropped > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 2 / 484))
    assert 150 < len(kept) < 334
    assert (attention.eval().scalars() > 0).all()


def test_part_attention_is_the_layer_norm_of_weighed_parts() -> None:
    attention = PartAttention(ModelConfig(), 31, 16, 0.1).eval()
    torch.nn.init.normal_(attention.weight)
    torch.nn.init.normal_(attention.gain)
    x = torch.randn(4, 31, 16)
    expected = functional.layer_norm(x * attention.scalars()[:, None], (16,), attention.gain, attention.bias, EPS)
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)
