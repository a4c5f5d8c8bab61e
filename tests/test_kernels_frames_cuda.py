"""The kernels for grey frames and for clips give what OpenCV and plain numpy give, bit for bit."""

import cv2
import numpy as np
import pytest

from attengait.errors import ParameterError
from attengait.kernels.frames_cuda import gather_clips, gray_from_bgr, value_table
from attengait.kernels.launch import CudaDevice, HostDevice, host_missing


@pytest.fixture(params=["host", "host, backwards", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "gpu":
        return CudaDevice()
    if host_missing():
        pytest.skip(host_missing())
    return HostDevice(backwards="backwards" in request.param)


@pytest.mark.parametrize("shape", [(2, 37, 53, 3), (1, 1, 3), (300, 301, 3)])
def test_gray_is_opencv_s(device, shape):
    bgr = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    gray = device.download(gray_from_bgr(device, device.upload(bgr)))
    expected = cv2.cvtColor(bgr.reshape(-1, 1, 3), cv2.COLOR_BGR2GRAY).reshape(shape[:-1])
    np.testing.assert_array_equal(gray, expected)


def test_gray_of_every_colour_of_a_fine_grid_is_opencv_s(device):
    levels = np.array([*range(0, 256, 5), 1, 2, 253, 254], np.uint8)
    bgr = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    gray = device.download(gray_from_bgr(device, device.upload(bgr)))
    np.testing.assert_array_equal(gray, cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY))


def test_gray_of_no_frames_is_none(device):
    assert gray_from_bgr(device, device.upload(np.zeros((0, 4, 5, 3), np.uint8))).shape == (0, 4, 5)


def plain_clips(frames, starts, num_frames, mirrored, negate_u):
    """The clips in float64, one after the other."""
    clips = []
    for start, mirror in zip(starts, mirrored, strict=True):
        clip = frames[start : start + num_frames].astype(np.float64)
        if mirror:
            clip = clip[:, :, ::-1].copy()
            if negate_u:
                clip[..., 0] = 256 - clip[..., 0]
        clips.append(clip / 127.5 - 1)
    return np.stack(clips)


def as_bfloat16_bits(values):
    """By torch, which rounds float32 to the nearest."""
    import torch

    return torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("negate_u", [False, True])
def test_clips_are_those_of_plain_numpy(device, dtype, channels, negate_u):
    random = np.random.default_rng(channels)
    frames = random.integers(1, 256, (23, 12, 17, channels), np.uint8)
    starts, mirrored = np.array([0, 16, 5, 5]), np.array([False, True, True, False])
    clips = gather_clips(device, device.upload(frames), starts, 7, dtype=dtype, mirrored=mirrored, negate_u=negate_u)
    expected = plain_clips(frames, starts, 7, mirrored, negate_u)
    expected = as_bfloat16_bits(expected) if dtype == "bfloat16" else expected.astype(dtype)
    np.testing.assert_array_equal(device.download(clips), expected)


def test_clips_are_not_mirrored_unless_told(device):
    frames = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)
    clips = device.download(gather_clips(device, device.upload(frames), np.array([2]), 5, dtype="float32"))
    np.testing.assert_array_equal(clips[0], (frames[2:7] / 127.5 - 1).astype(np.float32))


def test_mirroring_twice_gives_the_clip_back():
    u = np.arange(1, 256)
    plain, mirrored = value_table("float32", 2, negate_u=True)
    np.testing.assert_array_equal(plain[0, 256 - u], mirrored[0, u])
    np.testing.assert_array_equal(plain[1], mirrored[1])
    assert np.isfinite(mirrored).all()
    assert np.abs(mirrored).max() == 1


def test_no_clips_are_no_launch(device):
    frames = device.upload(np.zeros((3, 4, 4, 2), np.uint8))
    assert gather_clips(device, frames, np.array([], np.int64), 2).shape == (0, 2, 4, 4, 2)


@pytest.mark.parametrize(("starts", "num_frames"), [([-1], 2), ([2], 2), ([0], 0)])
def test_clips_outside_the_frames_are_refused(device, starts, num_frames):
    frames = device.upload(np.zeros((3, 4, 4, 2), np.uint8))
    with pytest.raises(ParameterError, match="must lie within the 3 frames"):
        gather_clips(device, frames, np.array(starts), num_frames)


def test_an_unknown_type_is_refused(device):
    frames = device.upload(np.zeros((3, 4, 4, 2), np.uint8))
    with pytest.raises(ParameterError, match=r"^dtype must be one of float32, float16, bfloat16, got 'int8'$"):
        gather_clips(device, frames, np.array([0]), 2, dtype="int8")
