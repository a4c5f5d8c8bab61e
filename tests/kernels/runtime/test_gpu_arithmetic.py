"""The kernels with the arithmetic of a GPU, on the host: products and sums contracted to one rounding, and denormals 0.

nvcc and NVRTC contract unless they are told not to, and CuPy has them flush denormals (--ftz=true). Both change the
last bits of float32. Held here: the flow changes by far less than the tolerance against OpenCV, and pictures do not
change.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from attengait.kernels.farneback.cuda import CudaFlow, DeviceFarneback
from attengait.kernels.flow.backends import FarnebackParameters, make_backend
from attengait.kernels.pictures.encode import ENCODINGS
from attengait.kernels.runtime.compile import find_compiler
from attengait.kernels.runtime.launch import HostDevice
from attengait.synth.motion import MOTIONS, motion_pair

SIZE = (97, 131)
PARAMETERS = {
    "published": FarnebackParameters(),
    "gaussian": FarnebackParameters(window="gaussian"),
    "poly_n 7": FarnebackParameters(poly_n=7, poly_sigma=1.5, winsize=21),
}
map_kernels = import_module("map_kernels")
MEAN_PX, LARGEST_PX = 1e-5, 1e-3
"""How far contraction and flushing may move the flow: a tenth of the tolerance against OpenCV. Seen: 9e-7 and 4e-5."""


def contracting() -> HostDevice:
    if find_compiler() is None:
        pytest.skip("no C++ compiler to compile the kernels with")
    if platform.machine() == "x86_64":
        if " fma " not in Path("/proc/cpuinfo").read_text():
            pytest.skip("this processor has no fused multiply-add")
        return HostDevice(flags=("-ffp-contract=fast", "-mfma"))
    return HostDevice(flags=("-ffp-contract=fast",))


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """In this thread, results that are denormal become 0, and so do operands."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def test_flushing_and_contracting_happen_here(tmp_path: Path) -> None:
    """Else the tests below would compare equal things."""
    source = tmp_path / "arithmetic.cu"
    source.write_text(
        '#include "device.h"\n'
        'extern "C" __global__ void arithmetic(const float* in, float* out) {\n'
        "    PHASE {\n"
        "        if (threadIdx.x != 0) continue;\n"
        "        out[0] = in[0] * in[0] + in[1];\n"
        "        out[1] = __fadd_rn(__fmul_rn(in[0], in[0]), in[1]);\n"
        "        out[2] = in[2] * in[3];\n"
        "    }\n"
        "}\n"
        "LAUNCH(arithmetic)\n"
    )
    step = np.float32(1 + 2**-12)
    values = np.array([step, -(step * step), 1e-30, 1e-10], np.float32)

    def results(device: HostDevice) -> list[float]:
        out = np.full(3, np.nan, np.float32)
        device.launch(str(source), "arithmetic", (1, 1, 1), (values, out), {})
        return out.tolist()  # type: ignore[no-any-return]

    assert results(HostDevice()) == [0, 0, pytest.approx(1e-40, rel=1e-3)]
    assert results(contracting()) == [2**-24, 0, pytest.approx(1e-40, rel=1e-3)]
    with denormals_flushed():
        assert results(HostDevice()) == [0, 0, 0]


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("kind", MOTIONS)
def test_the_flow_hardly_changes_and_agrees_with_opencv_as_well(name: str, kind: str) -> None:
    pair = list(motion_pair(kind, *SIZE))
    (opencv,) = make_backend("opencv", PARAMETERS[name]).flows(pair, [(0, 1)])
    (rounded,) = CudaFlow(PARAMETERS[name], device=HostDevice()).flows(pair, [(0, 1)])
    with denormals_flushed():
        (contracted,) = CudaFlow(PARAMETERS[name], device=contracting()).flows(pair, [(0, 1)])
    errors = np.abs(contracted - rounded)
    assert errors.any()
    assert errors.mean() <= MEAN_PX
    assert errors.max() <= LARGEST_PX
    errors = np.abs(contracted - opencv)  # as in tests/kernels/farneback/test_cuda.py
    assert errors.mean() <= 1e-4
    assert np.percentile(errors, 99.9) <= 1e-2


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_pictures_are_equal_with_denormals_flushed(encoding: str) -> None:
    """Of flow that is tiny in places and everywhere. The products of crop.cu are rounded on a GPU, too."""
    generator = np.random.default_rng(0)
    flows = generator.standard_normal((2, *SIZE, 2)).astype(np.float32)
    flows[0, 10:40] *= np.float32(1e-39)
    flows[1] *= np.float32(1e-39)
    squares = (flows**2).sum(-1).max((1, 2)).astype(np.float32)
    silhouettes = np.zeros((2, *SIZE), np.uint8)
    silhouettes[:, 5:90, 40:80] = 255
    kernels = DeviceFarneback(HostDevice(), FarnebackParameters())
    exact = kernels.pictures(flows, squares, silhouettes, encoding, 64)
    with denormals_flushed():
        squares = (flows**2).sum(-1).max((1, 2)).astype(np.float32)
        flushed = kernels.pictures(flows, squares, silhouettes, encoding, 64)
    assert np.array_equal(exact, flushed)


MAP_ERROR, SUM_ERROR = {"float32": 2e-6, "bfloat16": 1e-3, "float16": 1e-4}, 1e-5
"""How far the network's maps, and sums over them, may be moved: relative, in length. In half precision some values fall
to the other side of a rounding, each by 2^-8 or 2^-11."""


def check_maps(rounded: list[np.ndarray], changed: list[np.ndarray], tolerances: list[float]) -> None:
    for one, other, tolerance in zip(rounded, changed, tolerances, strict=True):
        assert np.isfinite(other).all()
        assert np.linalg.norm(other - one) <= tolerance * np.linalg.norm(one)
    assert not all(map(np.array_equal, rounded, changed))


@pytest.mark.parametrize("format", MAP_ERROR)
@pytest.mark.parametrize("pool", [False, True])
def test_patch_norm_hardly_changes(format: str, pool: bool) -> None:
    rounded = map_kernels.patch_norm(HostDevice(), features=32, format=format, pool=pool)
    with denormals_flushed():
        changed = map_kernels.patch_norm(contracting(), features=32, format=format, pool=pool)
    check_maps(rounded, changed, [MAP_ERROR[format]] * 2 + [SUM_ERROR] * 3)


@pytest.mark.parametrize("format", MAP_ERROR)
def test_windows_hardly_change(format: str) -> None:
    rounded = map_kernels.windows(HostDevice(), features=16, format=format)
    with denormals_flushed():
        changed = map_kernels.windows(contracting(), features=16, format=format)
    check_maps(rounded, changed, [SUM_ERROR, MAP_ERROR[format], SUM_ERROR])


@pytest.mark.parametrize("scale", [1e-20, 1e-39])
def test_maps_that_are_tiny_stay_tiny_and_finite(scale: float) -> None:
    """Their squares, or they themselves, are denormal; the eps of the LayerNorm is far above either."""
    exact = map_kernels.patch_norm(HostDevice(), features=16, scale=scale)
    with denormals_flushed():
        flushed = map_kernels.patch_norm(HostDevice(), features=16, scale=scale)
    for one, other in zip(exact, flushed, strict=True):
        assert np.isfinite(other).all()
        # The smallest normal number, 1.2e-38, times 1 / sqrt(eps) = 1000 and gains.
        assert np.abs(one - other).max() <= 1e-6 * np.abs(one).max() + 1e-34
