"""Batches fit the memory, the grid and the kernels' limits, and constants are there before they are read."""

import re
from collections.abc import Sequence
from importlib import import_module

import numpy as np
import pytest

from attengait.errors import ParameterError
from attengait.kernels.farneback.cuda import (
    MAX_GRID_DEPTH,
    CudaFlow,
    DeviceFarneback,
    pair_bytes,
    runs,
)
from attengait.kernels.farneback.taps import bilinear_taps
from attengait.kernels.farneback.weights import pyramid
from attengait.kernels.flow.backends import FarnebackParameters
from attengait.kernels.runtime.compile import find_compiler
from attengait.kernels.runtime.launch import CudaDevice, HostDevice

cases = import_module("flow_cases")
PUBLISHED, host, moving_frames, silhouettes_of = cases.PUBLISHED, cases.host, cases.moving_frames, cases.silhouettes_of


@pytest.mark.parametrize(("free_gib", "taken_gib"), [(100, 2), (3, 1.5)])
def test_a_batch_takes_little_of_a_large_memory_and_half_of_a_small_one(free_gib: int, taken_gib: float) -> None:
    class Memory(HostDevice):
        def free_memory_bytes(self) -> int:
            return free_gib << 30

    assert CudaFlow(PUBLISHED, device=Memory()).memory_bytes == taken_gib * 2**30


def test_no_grid_is_deeper_than_a_gpu_allows_however_small_the_frames() -> None:
    deepest = 0

    class Counting(HostDevice):
        def launch(self, source: str, kernel: str, grid: Sequence[int], *rest: object) -> None:
            nonlocal deepest
            deepest = max(deepest, grid[2])

    gray = np.zeros((10, 10), np.uint8)
    pairs = [(2 * i, 2 * i + 1) for i in range(50_000)]  # two new frames each
    flow = CudaFlow(FarnebackParameters(iterations=1), device=Counting(), memory_bytes=1 << 40)
    assert sum(1 for _ in flow.flows([gray] * 100_000, pairs)) == 50_000
    assert 50_000 < deepest <= MAX_GRID_DEPTH


def test_constants_are_uploaded_once_and_are_there_before_any_stream_reads_them() -> None:
    events: list[str] = []

    class Watched(HostDevice):
        def upload(self, array: np.ndarray) -> np.ndarray:
            is_batch = array.dtype == np.uint8 or array.shape == (2, 2)  # frames, silhouettes; pairs
            events.append("batch" if is_batch else "constant")
            return super().upload(array)

        def wait(self) -> None:
            events.append("wait")

        def launch(self, *arguments: object) -> None:
            events.append("launch")

    flow = CudaFlow(PUBLISHED, device=Watched())
    grays, outlines = moving_frames(3, 64, 80), silhouettes_of(2, 64, 80)
    for _ in range(2):
        flow.pictures(grays, [(0, 1), (1, 2)], outlines, "colour", 64)
    for i, event in enumerate(events):
        assert event != "constant" or events[i + 1] == "wait"
    # Weights of the expansion, the window, the colour wheel, those of the columns and rows of two levels in the frame,
    # and of the finer level in the coarser one.
    assert events.count("constant") == 9
    assert events.count("wait") == 9


@pytest.mark.gpu
def test_a_second_stream_finds_the_constants_that_the_first_one_brought() -> None:
    device = CudaDevice()
    kernels, grays = DeviceFarneback(device, PUBLISHED), moving_frames(2, 64, 80)
    frames, pairs = device.upload(np.stack(grays)), device.upload(np.array([(0, 1)], np.int32))
    device.wait()
    made = []
    for _ in range(2):
        with device.xp.cuda.Stream(non_blocking=True) as stream:
            flows, _ = kernels.flow(frames, pairs)
            made.append(flows.get(stream=stream))
    assert np.array_equal(*made)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (FarnebackParameters(winsize=401), "winsize is 401, but must be at most"),
        (FarnebackParameters(poly_n=241), "poly_n is 241, but must be at most 240"),
    ],
)
def test_parameters_that_no_block_can_hold_are_refused(parameters: FarnebackParameters, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        DeviceFarneback(host(), parameters)


def test_the_largest_window_that_is_allowed_fits() -> None:
    with pytest.raises(ParameterError) as refusal:
        DeviceFarneback(host(), FarnebackParameters(winsize=401))
    largest = int(re.search(r"at most (\d+)", str(refusal.value)).group(1))
    DeviceFarneback(host(), FarnebackParameters(winsize=largest))
    with pytest.raises(ParameterError):
        DeviceFarneback(host(), FarnebackParameters(winsize=largest + 1))


def test_frames_too_small_for_the_border_weights_are_refused() -> None:
    with pytest.raises(ParameterError, match="frames is 9 x 40 pixels, but must be at least 10 x 10"):
        list(CudaFlow(PUBLISHED, device=host()).flows([np.zeros((40, 9), np.uint8)] * 2, [(0, 1)]))


@pytest.mark.parametrize(
    ("size", "source_size"), [(320, 320), (160, 320), (320, 160), (93, 131), (131, 93), (7, 1), (1, 9)]
)
def test_bilinear_taps_are_those_of_the_formula(size: int, source_size: int) -> None:
    taps = bilinear_taps(size, source_size)
    assert (taps.dtype, taps.shape) == (np.int32, (size, 2))
    for i, (index, bits) in enumerate(taps):
        centre = np.float32((i + 0.5) * (source_size / size) - 0.5)
        wanted = (int(np.floor(centre)), centre - np.floor(centre))
        if centre < 0:
            wanted = (0, np.float32(0))
        elif centre >= source_size - 1:
            wanted = (source_size - 1, np.float32(0))
        assert (index, bits.view(np.float32)) == wanted


def test_levels_stop_before_a_side_falls_under_32_pixels() -> None:
    assert [(level.width, level.height) for level in pyramid(320, 240, PUBLISHED)] == [(320, 240), (160, 120), (80, 60)]
    assert [(level.width, level.height) for level in pyramid(64, 64, PUBLISHED)] == [(64, 64), (32, 32)]
    assert len(pyramid(63, 63, PUBLISHED)) == 1


def test_arguments_of_another_size_than_the_kernels_are_refused() -> None:
    device, masks = host(), np.ones((1, 8, 8), np.uint8)
    crops = np.zeros((1, 4), np.int32)
    wrong = (masks, crops, np.int64(8), np.int32(8))
    with pytest.raises(TypeError, match="argument 3 of find_rows"):
        device.launch("pictures/crop.cu", "find_rows", (1, 1, 1), wrong, {"SIZE": 64, "BAND": 4})
    with pytest.raises(TypeError, match="argument 4 of find_rows"):
        device.launch("pictures/crop.cu", "find_rows", (1, 1, 1), (masks, crops, np.int32(8)), {"SIZE": 64, "BAND": 4})


def test_pictures_side_by_side_are_one_run_and_others_are_copied_together():
    one, other = np.arange(60, dtype=np.uint8).reshape(5, 3, 4), np.zeros((2, 3, 4), np.uint8)
    pictures = [one[1], one[2], one[4], other[0], other[1]]
    found = runs(pictures)
    assert [len(run) for run in found] == [2, 1, 2]
    assert [np.shares_memory(run, array) for run, array in zip(found, (one, one, other), strict=True)] == [True] * 3
    np.testing.assert_array_equal(np.concatenate(found), np.stack(pictures))
    apart = [np.full((3, 4), i, np.uint8) for i in range(3)]
    (copied,) = runs(apart)
    np.testing.assert_array_equal(copied, np.stack(apart))
    turned = np.arange(32, dtype=np.uint8).reshape(2, 4, 4).transpose(0, 2, 1)
    np.testing.assert_array_equal(np.concatenate(runs(list(turned))), turned)


def test_a_call_gives_a_device_two_batches_before_it_waits_for_the_first(monkeypatch):
    if find_compiler() is None:
        pytest.skip("no C++ compiler to compile the kernels with")
    late, rng = import_module("host_devices").Late(), np.random.default_rng(0)
    grays = [rng.integers(0, 256, (32, 40), np.uint8) for _ in range(8)]
    silhouettes = [np.full((32, 40), 255, np.uint8)] * 7
    pairs = [(i, i + 1) for i in range(7)]
    backend = CudaFlow(PUBLISHED, device=late, memory_bytes=4 * pair_bytes(32, 40))
    ours = backend.pictures(grays, pairs, silhouettes, "uv", 64)
    assert (late.most_begun, late.num_begun) == (2, 0)
    np.testing.assert_array_equal(
        ours, CudaFlow(PUBLISHED, device=host()).pictures(grays, pairs, silhouettes, "uv", 64)
    )
