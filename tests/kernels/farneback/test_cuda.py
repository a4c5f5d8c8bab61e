"""The CUDA kernels agree with OpenCV, on the host in every test run and on a GPU where there is one.

The tolerances are those of shared/specs/farneback.md: single pixels that nothing constrains may differ by more, so the
flow is held to its mean (1e-4 px) and its 99.9th percentile (1e-2 px).
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import cv2
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
from attengait.kernels.flow.backends import FarnebackParameters, make_backend
from attengait.kernels.pictures.crop import find_crop
from attengait.kernels.pictures.encode import ENCODINGS, encode
from attengait.kernels.runtime import launch
from attengait.kernels.runtime.compile import find_compiler
from attengait.kernels.runtime.launch import CudaDevice, Device, HostDevice
from attengait.synth.motion import MOTIONS, motion_pair

sanitised = import_module("sanitised")
PUBLISHED = FarnebackParameters()
PARAMETERS = {
    "published": PUBLISHED,
    "gaussian": FarnebackParameters(window="gaussian"),
    "even window": FarnebackParameters(winsize=10, levels=2),
    "uneven levels": FarnebackParameters(pyr_scale=0.7, levels=5, iterations=2),
    "poly_n 7": FarnebackParameters(poly_n=7, poly_sigma=1.5, winsize=21),
    "one level": FarnebackParameters(levels=0, iterations=1, winsize=5, poly_n=3, poly_sigma=0.9),
    "wide window": FarnebackParameters(winsize=61, iterations=1),
    "levels of one size": FarnebackParameters(pyr_scale=0.995, levels=2, iterations=1),
}


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    if request.param == "gpu":
        return CudaDevice()
    return host()


def host(*, backwards: bool = False) -> HostDevice:
    if find_compiler() is None:
        pytest.skip("no C++ compiler to compile the kernels with")
    return HostDevice(backwards=backwards)


def opencv_flows(grays: list[np.ndarray], pairs: list[tuple[int, int]], parameters: FarnebackParameters) -> np.ndarray:
    return np.stack(list(make_backend("opencv", parameters).flows(grays, pairs)))


def largest_squares(flows: np.ndarray) -> np.ndarray:
    """The largest squared magnitude of each flow [P, H, W, 2], float32 [P]; unknown flow does not count."""
    known = (np.abs(flows) <= 1e6).all(axis=-1)
    squares = np.where(known, flows[..., 0] * flows[..., 0] + flows[..., 1] * flows[..., 1], np.float32(0))
    return squares.max(axis=(1, 2))


def assert_flow_agrees(ours: np.ndarray, theirs: np.ndarray) -> None:
    errors = np.abs(ours - theirs)
    assert errors.mean() <= 1e-4
    assert np.percentile(errors, 99.9) <= 1e-2


def assert_pictures_agree(ours: np.ndarray, theirs: np.ndarray) -> None:
    differences = np.abs(ours.astype(int) - theirs)
    assert np.mean(differences == 0) >= 0.995
    assert np.mean(differences <= 2) >= 0.999


def silhouettes_of(num: int, height: int, width: int) -> list[np.ndarray]:
    """Walkers of several sizes and places: some at the picture's border, one over its whole height, one a row high."""
    outlines = []
    for i in range(num):
        outline = np.zeros((height, width), np.uint8)
        centre = (int(width * (i + 0.5) / num), height // 2)
        cv2.ellipse(outline, centre, (width // 14, height // 3 - 3 * i), 5.0 * i, 0, 360, 255, -1)
        outlines.append(outline)
    outlines[0][:, 3:60] = 255
    outlines[1][:] = 0
    outlines[1][height // 2, width // 4 : width // 2] = 255
    return outlines


def moving_frames(num: int, height: int, width: int) -> list[np.ndarray]:
    first, _ = motion_pair("translation", height + 40, width + 40, seed=3)
    return [np.ascontiguousarray(first[2 * i : 2 * i + height, i : i + width]) for i in range(num)]


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("size", [(240, 320), (64, 64), (97, 131)], ids="{0[0]}x{0[1]}".format)
def test_flow_agrees_with_opencv_on_every_motion(device: Device, name: str, size: tuple[int, int]) -> None:
    flow = CudaFlow(PARAMETERS[name], device=device)
    for kind in MOTIONS:
        pair = list(motion_pair(kind, *size))
        (ours,) = flow.flows(pair, [(0, 1)])
        assert_flow_agrees(ours, opencv_flows(pair, [(0, 1)], PARAMETERS[name])[0])


def test_flow_agrees_with_opencv_on_a_large_picture(device: Device) -> None:
    pair = list(motion_pair("rotation", 720, 1280))
    (ours,) = CudaFlow(PUBLISHED, device=device).flows(pair, [(0, 1)])
    assert_flow_agrees(ours, opencv_flows(pair, [(0, 1)], PUBLISHED)[0])


def real_sequences(shared: Path) -> Iterator[tuple[list[np.ndarray], list[np.ndarray], np.ndarray]]:
    """Grey frames, silhouettes of all but the first, and the published pictures."""
    with np.load(shared / "reference/preprocess.npz") as reference:
        for name in sorted(key.removesuffix("_bgr") for key in reference if key.endswith("_bgr")):
            # As imread has it, which is not always what cvtColor gives.
            files = [cv2.imencode(".png", frame)[1] for frame in reference[f"{name}_bgr"]]
            grays = [cv2.imdecode(file, cv2.IMREAD_GRAYSCALE) for file in files]
            yield grays, list(reference[f"{name}_silhouette"][1:]), reference[f"{name}_flow_images"]


def test_flow_and_pictures_agree_on_real_video(device: Device, shared: Path) -> None:
    kernels = DeviceFarneback(device, PUBLISHED)
    for grays, silhouettes, published in real_sequences(shared):
        pairs = [(i, i + 1) for i in range(len(grays) - 1)]
        theirs = opencv_flows(grays, pairs, PUBLISHED)
        frames, indices = device.upload(np.stack(grays)), device.upload(np.array(pairs, np.int32))
        flows, squares = kernels.flow(frames, indices)
        assert_flow_agrees(device.download(flows), theirs)
        for encoding in ENCODINGS:
            ours = device.download(kernels.pictures(flows, squares, device.upload(np.stack(silhouettes)), encoding, 64))
            wanted = np.stack([encode(f, s, encoding, 64) for f, s in zip(theirs, silhouettes, strict=True)])
            assert_pictures_agree(ours, published if encoding == "colour" else wanted)


def test_fed_with_opencvs_flow_the_published_pictures_of_real_video_are_equal(device: Device, shared: Path) -> None:
    kernels = DeviceFarneback(device, PUBLISHED)
    for grays, silhouettes, _ in real_sequences(shared):
        theirs = opencv_flows(grays, [(i, i + 1) for i in range(len(grays) - 1)], PUBLISHED)
        flows, outlines = device.upload(theirs), device.upload(np.stack(silhouettes))
        squares = device.upload(largest_squares(theirs))
        for encoding in ENCODINGS:
            ours = device.download(kernels.pictures(flows, squares, outlines, encoding, 64)).astype(int)
            wanted = np.stack([encode(f, s, encoding, 64) for f, s in zip(theirs, silhouettes, strict=True)])
            # Where cv2.resize's sum is a tie in exact arithmetic, its own rounding decides.
            assert np.count_nonzero(ours != wanted) <= 2
            assert np.abs(ours - wanted).max() <= 1


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [64, 32, 30, 130])  # the last two: rows left over in the last block, one row a block
def test_fed_with_one_flow_pictures_equal_those_of_the_cpu(device: Device, encoding: str, size: int) -> None:
    height, width, num = 150, 210, 6
    outlines = silhouettes_of(num, height, width)
    flows = opencv_flows(moving_frames(num + 1, height, width), [(i, i + 1) for i in range(num)], PUBLISHED)
    flows[2] = 0
    flows[3, 40:60, 90:100] = np.nan
    flows[4, 70, 100] = (2e6, 0)
    flows[5] *= 30  # beyond the range of uv
    kernels = DeviceFarneback(device, PUBLISHED)
    on_device = device.upload(flows)
    ours = device.download(
        kernels.pictures(
            on_device, device.upload(largest_squares(flows)), device.upload(np.stack(outlines)), encoding, size
        )
    )
    wanted = np.stack([encode(flow, outline, encoding, size) for flow, outline in zip(flows, outlines, strict=True)])
    assert np.abs(ours.astype(int) - wanted).max() <= 1
    assert np.mean(ours != wanted) < 1e-4


def test_crops_are_found_where_the_cpu_finds_them(device: Device) -> None:
    height, width = 120, 200
    outlines = silhouettes_of(8, height, width)
    silhouettes = device.upload(np.stack(outlines))
    crops = device.xp.zeros((len(outlines), 4), np.int32)
    for kernel in ("find_rows", "find_middles"):
        arguments = (silhouettes, crops, np.int32(width), np.int32(height))
        device.launch("pictures/crop.cu", kernel, (1, 1, len(outlines)), arguments, {"SIZE": 64, "BAND": 4})
    wanted = [find_crop(outline, 64) for outline in outlines]
    found = device.download(crops).tolist()
    assert found == [[crop.top, crop.bottom, crop.width, crop.left] for crop in wanted]


def test_the_flow_comes_with_its_largest_magnitude(device: Device) -> None:
    frames = moving_frames(3, 64, 80)
    kernels = DeviceFarneback(device, PUBLISHED)
    pairs = np.array([(0, 1), (1, 2)], np.int32)
    flows, squares = kernels.flow(device.upload(np.stack(frames)), device.upload(pairs))
    assert np.array_equal(device.download(squares), largest_squares(device.download(flows)))


def test_pairs_may_skip_frames_and_go_back(device: Device) -> None:
    grays, pairs = moving_frames(4, 64, 80), [(0, 2), (3, 1), (2, 2)]
    ours = np.stack(list(CudaFlow(PUBLISHED, device=device).flows(grays, pairs)))
    assert_flow_agrees(ours, opencv_flows(grays, pairs, PUBLISHED))


def test_little_memory_means_small_batches_and_equal_results(device: Device) -> None:
    grays, pairs = moving_frames(8, 64, 80), [(i, i + 1) for i in range(7)]
    outlines = silhouettes_of(7, 64, 80)
    whole, small = (
        CudaFlow(PUBLISHED, device=device, memory_bytes=pairs_in_memory * 2 * pair_bytes(64, 80))
        for pairs_in_memory in (100, 2)
    )
    assert np.array_equal(list(whole.flows(grays, pairs)), list(small.flows(grays, pairs)))
    for encoding in ENCODINGS:
        pictures = [flow.pictures(grays, pairs, outlines, encoding, 64) for flow in (whole, small)]
        assert np.array_equal(*pictures)


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


def test_no_pairs_give_no_flow_and_no_pictures(device: Device) -> None:
    flow = CudaFlow(PUBLISHED, device=device)
    assert list(flow.flows([], [])) == []
    assert flow.pictures([], [], [], "uv", 64).shape == (0, 64, 64, 2)


def test_the_order_of_threads_and_blocks_does_not_matter() -> None:
    grays, pairs = moving_frames(3, 97, 131), [(0, 1), (1, 2)]
    outlines = silhouettes_of(2, 97, 131)
    forwards, backwards = (CudaFlow(PUBLISHED, device=host(backwards=order)) for order in (False, True))
    assert np.array_equal(list(forwards.flows(grays, pairs)), list(backwards.flows(grays, pairs)))
    for encoding in ENCODINGS:
        pictures = [flow.pictures(grays, pairs, outlines, encoding, 64) for flow in (forwards, backwards)]
        assert np.array_equal(*pictures)


@pytest.mark.gpu
def test_host_and_gpu_agree() -> None:
    grays, pairs = moving_frames(5, 240, 320), [(i, i + 1) for i in range(4)]
    outlines = silhouettes_of(4, 240, 320)
    on_gpu, on_host = CudaFlow(PUBLISHED), CudaFlow(PUBLISHED, device=host())
    assert_flow_agrees(np.stack(list(on_gpu.flows(grays, pairs))), np.stack(list(on_host.flows(grays, pairs))))
    for encoding in ENCODINGS:
        pictures = [flow.pictures(grays, pairs, outlines, encoding, 64) for flow in (on_gpu, on_host)]
        assert_pictures_agree(*pictures)


@pytest.mark.gpu
def test_kernels_run_on_the_callers_stream() -> None:
    device = CudaDevice()
    kernels, grays = DeviceFarneback(device, PUBLISHED), moving_frames(2, 64, 80)
    frames, pairs = device.upload(np.stack(grays)), device.upload(np.array([(0, 1)], np.int32))
    stream = device.xp.cuda.Stream(non_blocking=True)
    device.xp.cuda.Device().synchronize()
    with stream:
        flows, _ = kernels.flow(frames, pairs)
        stream.synchronize()  # of this stream alone: what ran on another would not be there
        ours = flows.get(stream=stream)
    assert_flow_agrees(ours, opencv_flows(grays, [(0, 1)], PUBLISHED))


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


def test_kernels_are_clean_under_sanitizers() -> None:
    """Run in a process of their own, with AddressSanitizer and UndefinedBehaviorSanitizer compiled in."""
    host()
    done = sanitised.run_sanitised("run_kernels_sanitised.py")
    assert done.stdout.split() == ["flow", "pictures", "maps", "overflow"], done.stderr[-3000:]
    # The last step reads past an array on purpose, so that a sanitizer that sees nothing is noticed.
    assert "heap-buffer-overflow" in done.stderr


def test_flow_is_computed_without_64_bit_arithmetic(tmp_path: Path) -> None:
    """It is up to 64 times slower on most GPUs."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc")
    defines = ["-DPOLY_N=5", "-DRADIUS=7", "-DBOX=1", "-DTILE_H=24"]
    command = [compiler, "-arch=sm_90", "-std=c++17", f"-I{launch.INCLUDES}", "-ptx", *defines]
    command += [str(launch.SOURCES / "farneback/farneback.cu"), "-o", str(tmp_path / "kernels.ptx")]
    subprocess.run(command, check=True)
    code = (tmp_path / "kernels.ptx").read_text()
    assert "fma.rn.f32" in code
    assert ".f64" not in code


def test_the_machine_code_does_not_grow_with_the_parameters(tmp_path: Path) -> None:
    """Nor does the time to compile it."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc")
    sizes = {}
    for poly_n, radius, tile_height in ((5, 7, 24), (240, 7, 24), (5, 129, 8)):
        file = tmp_path / f"{poly_n}-{radius}.cubin"
        defines = [f"-DPOLY_N={poly_n}", f"-DRADIUS={radius}", "-DBOX=1", f"-DTILE_H={tile_height}"]
        command = [compiler, "-arch=sm_90", "-std=c++17", f"-I{launch.INCLUDES}", "-cubin", *defines]
        subprocess.run([*command, str(launch.SOURCES / "farneback/farneback.cu"), "-o", str(file)], check=True)
        sizes[poly_n, radius] = file.stat().st_size
    assert max(sizes.values()) <= 1.1 * sizes[5, 7], sizes


ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", ["farneback/farneback.cu", "pictures/crop.cu"])
def test_every_source_compiles_for_real_gpus_without_spilling(source: str, architecture: str, tmp_path: Path) -> None:
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc")
    defines = ["-DPOLY_N=5", "-DRADIUS=7", "-DBOX=1", "-DTILE_H=24", "-DSIZE=64", "-DBAND=4"]
    # What CuPy and launch.py pass to NVRTC.
    flags = ["-ftz=true", *(["-fmad=false"] if source in launch.EXACT_SOURCES else [])]
    command = [
        compiler,
        f"-arch={architecture}",
        "-std=c++17",
        f"-I{launch.INCLUDES}",
        *flags,
        "-cubin",
        "-Xptxas",
        "-v",
        *defines,
    ]
    command += [str(launch.SOURCES / source), "-o", str(tmp_path / "kernels.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = re.findall(r"Compiling entry function '(\w+)'", done.stderr)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    registers = re.findall(r"Used (\d+) registers", done.stderr)
    assert names
    assert len(names) == len(spills) == len(registers)
    for name, (stores, loads), used in zip(names, spills, registers, strict=True):
        print(f"{architecture} {name}: {used} registers, {stores} + {loads} bytes spilled")
    assert all(spill == ("0", "0") for spill in spills)


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
