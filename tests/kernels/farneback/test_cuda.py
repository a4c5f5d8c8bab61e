"""The CUDA kernels agree with OpenCV, on the host in every test run and on a GPU where there is one.

The tolerances are those of shared/specs/farneback.md: single pixels that nothing constrains may differ by more, so the
flow is held to its mean (1e-4 px) and its 99.9th percentile (1e-2 px).
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from attengait.kernels.farneback.cuda import CudaFlow, DeviceFarneback, pair_bytes
from attengait.kernels.flow.backends import FarnebackParameters, make_backend
from attengait.kernels.pictures.crop import find_crop
from attengait.kernels.pictures.encode import ENCODINGS, encode
from attengait.kernels.runtime.launch import CudaDevice, Device
from attengait.synth.motion import MOTIONS, motion_pair

cases = import_module("flow_cases")
PUBLISHED, host, moving_frames, silhouettes_of = cases.PUBLISHED, cases.host, cases.moving_frames, cases.silhouettes_of
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
