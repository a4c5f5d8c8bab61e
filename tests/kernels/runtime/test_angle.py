"""Angles are those of the library in float64, rounded to float32, to the bit, and hardly any is computed in float64."""

from pathlib import Path

import numpy as np
import pytest

from attengait.kernels.runtime.compile import NATIVE, find_compiler
from attengait.kernels.runtime.launch import INCLUDES, CudaDevice, Device, HostDevice

SOURCE = """
#include "device.h"
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#include "angle.h"
#else
static int num_wide;
static double counted(double y, double x) { return ++num_wide, std::atan2(y, x); }
#define atan2 counted
#include "angle.h"
#undef atan2
#endif

// Of N vectors (y, x): the angle, the rounded one of the library, and whether the library was asked; the arc tangent of
// the smaller component by the larger one, as a sum.
extern "C" __global__ void angles(const float2* vectors, float* ours, float* theirs, unsigned char* wide, float2* sums,
                                  int N) {
    PHASE {
        for (int i = threadIdx.x; i < N; i += THREADS) {
            const float2 vector = vectors[i];
#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
            num_wide = 0;
#endif
            ours[i] = angle_of(vector.x, vector.y);
#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
            wide[i] = num_wide != 0;
#endif
            theirs[i] = float(atan2(double(vector.x), double(vector.y)));
            const float width = fabsf(vector.x), height = fabsf(vector.y);
            const bool is_plain = fminf(width, height) > 1e-18f && fmaxf(width, height) < 1e9f;
            const Sum sum = is_plain ? arc_tangent(fminf(width, height), fmaxf(width, height)) : Sum{0.0f, 0.0f};
            const float2 both = make_float2(sum.high, sum.low);
            sums[i] = both;
        }
    }
}
LAUNCH(angles)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("angles") / "angles.cu"
    path.write_text(SOURCE)
    return path


def host(*, fused: bool = False) -> HostDevice:
    """The host; with `fused`, products and sums are rounded once, as a GPU's compiler may have it."""
    if find_compiler() is None:
        pytest.skip("no C++ compiler to compile the kernels with")
    return HostDevice(flags=(NATIVE, "-ffp-contract=fast") if fused else ())


def compute(device: Device, source: Path, vectors: np.ndarray) -> tuple[np.ndarray, ...]:
    """Ours, theirs, whether the library was asked, and the sums, of vectors float32 [N, 2] of (y, x)."""
    number = len(vectors)
    made = [
        np.zeros(number, np.float32),
        np.zeros(number, np.float32),
        np.zeros(number, np.uint8),
        np.zeros((number, 2), np.float32),
    ]
    arrays = [device.upload(array) for array in (np.ascontiguousarray(vectors, np.float32), *made)]
    device.launch(str(source), "angles", (1, 1, 1), (*arrays, np.int32(number)), {})
    return tuple(device.download(array) for array in arrays[1:])


def vectors_of(kind: str, number: int) -> np.ndarray:
    random = np.random.default_rng(3)
    vectors = random.uniform(-1, 1, (number, 2))
    if kind == "of all sizes":
        vectors *= 2.0 ** random.uniform(-60, 30, (number, 2))
    elif kind == "near the diagonals":
        vectors[:, 0] = vectors[:, 1] * (1 + 1e-3 * vectors[:, 0])
    elif kind == "between two slopes of the table":
        steps = random.integers(0, 64, number) + 0.5 + random.uniform(-1e-2, 1e-2, number)
        vectors[:, 0] = vectors[:, 1] * steps / 64
    elif kind == "on a grid":
        vectors = np.round(vectors * 16) / 16
    elif kind == "any":
        vectors = random.integers(0, 2**32, (number, 2), dtype=np.uint32).view(np.float32)
    return vectors.astype(np.float32)


KINDS = ("evenly spread", "of all sizes", "near the diagonals", "between two slopes of the table", "on a grid", "any")


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_angles_are_rounded_once(source: Path, kind: str, fused: bool) -> None:
    ours, theirs, *_ = compute(host(fused=fused), source, vectors_of(kind, 1_000_000))
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


def test_zeros_axes_and_what_is_no_number_have_the_librarys_angles(source: Path) -> None:
    values = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, -1e-18, 1e-18, 1e9, 3e38, np.inf, -np.inf, np.nan, 1 + 2**-23, 0.5]
    vectors = np.stack(np.meshgrid(values, values), -1).reshape(-1, 2)
    ours, theirs, *_ = compute(host(), source, vectors)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours)[~np.isnan(ours)], np.signbit(theirs)[~np.isnan(ours)])


def test_less_than_one_vector_of_a_thousand_is_computed_in_64_bits(source: Path) -> None:
    *_, wide, _ = compute(host(), source, vectors_of("evenly spread", 1_000_000))
    assert 0.0003 < wide.mean() < 0.001
    *_, wide, _ = compute(host(), source, vectors_of("on a grid", 1000))
    assert not wide.any()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", ["evenly spread", "between two slopes of the table"])
def test_the_error_of_the_sums_is_below_half_of_what_is_assumed(source: Path, kind: str, fused: bool) -> None:
    text = (INCLUDES / "angle.h").read_text()
    assumed = float(text.partition("#define ANGLE_ERROR ")[2].partition("f")[0])
    assert assumed == pytest.approx(2.0**-35, rel=1e-5)
    vectors = vectors_of(kind, 1_000_000)
    *_, sums = compute(host(fused=fused), source, vectors)
    shorter, longer = (np.sort(np.abs(vectors.astype(np.float64)), axis=1)).T
    exact = np.arctan2(shorter, longer)
    assert (np.abs(sums.astype(np.float64).sum(1) - exact) < assumed / 2 * exact).all()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS[:-1])
def test_on_a_gpu_angles_are_rounded_once(source: Path, kind: str) -> None:
    ours, theirs, *_ = compute(CudaDevice(), source, vectors_of(kind, 100_000))
    # The libraries of GPUs may err in the last bits of float64, which rarely changes the float32.
    assert np.count_nonzero(ours != theirs) <= 1
