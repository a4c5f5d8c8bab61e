"""Grey frames from colour ones, and clips out of frames kept on the device, by our CUDA kernels (frames.cu).

One launch each. Shapes: N clips, T frames, F frames in all, H x W pixels, C channels.
"""

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError
from attengait.kernels.launch import THREADS, Array, Device

ClipType = Literal["float32", "float16", "bfloat16"]

_MAX_BLOCKS = 1024
_MAX_GRID_SIDE = 65_535


def gray_from_bgr(device: Device, bgr: Array) -> Array:
    """Return `cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)` of uint8 [..., H, W, 3] on the device, uint8 [..., H, W].

    (What `cv2.imread` makes of the same colours as a grey picture can differ from that by one level.)
    """
    gray = device.xp.empty(bgr.shape[:-1], device.xp.uint8)
    num_blocks = min(_MAX_BLOCKS, math.ceil(gray.size / THREADS))
    if num_blocks:
        device.launch("frames.cu", "gray_from_bgr", (num_blocks, 1, 1), (bgr, gray, np.int64(gray.size)), {})
    return gray


def gather_clips(
    device: Device,
    frames: Array,
    starts: NDArray[np.int64],
    num_frames: int,
    *,
    dtype: ClipType = "float32",
    mirrored: NDArray[np.bool_] | None = None,
    negate_u: bool = False,
) -> Array:
    """Return clips of T = `num_frames` frames in [-1, 1], `dtype` [N, T, H, W, C], on the device.

    `frames` are uint8 [F, H, W, C] on the device, `starts` [N] the first frame of each clip. A value becomes
    value / 127.5 - 1, rounded to `dtype`; bfloat16 comes as its bits, uint16, as numpy has no such type. `mirrored` [N]
    says which clips have left and right swapped; `negate_u`, for uv and uvm, turns u into 256 - u in those.

    Raises ParameterError for an unknown `dtype` and for clips that are not within the frames.
    """
    xp = device.xp
    _, height, width, channels = frames.shape
    starts = np.ascontiguousarray(starts, np.int64)
    if len(starts) and not (num_frames >= 1 and starts.min() >= 0 and starts.max() + num_frames <= len(frames)):
        raise ParameterError(f"clips of {num_frames} frames must lie within the {len(frames)} frames, got {starts}")
    if max(len(starts), num_frames) > _MAX_GRID_SIDE:
        raise ParameterError(f"clips and their frames must be at most {_MAX_GRID_SIDE}, got {len(starts), num_frames}")
    table = value_table(dtype, channels, negate_u)
    clips = xp.empty((len(starts), num_frames, height, width, channels), table.dtype)
    if clips.size:
        flags = np.zeros(len(starts), np.uint8) if mirrored is None else np.asarray(mirrored, np.uint8)
        grid = (min(_MAX_BLOCKS, math.ceil(height * width * channels / THREADS)), num_frames, len(starts))
        sizes = np.int32(height), np.int32(width), np.int32(channels)
        arrays = [device.upload(array) for array in (starts, flags, table)]
        device.launch("frames.cu", f"gather_{table.itemsize}_bytes", grid, (frames, *arrays, clips, *sizes), {})
    return clips


def value_table(dtype: ClipType, channels: int, negate_u: bool) -> NDArray[np.generic]:
    """What each byte becomes, [2, C, 256] of `dtype` (bfloat16: its bits): for clips as they are, for mirrored ones."""
    if dtype not in get_args(ClipType):
        raise ParameterError(f"dtype must be one of {', '.join(get_args(ClipType))}, got {dtype!r}")
    values = np.broadcast_to(np.arange(256), (2, channels, 256)).copy()
    if negate_u:
        # 0 is no value of u; it stays within the byte.
        values[1, 0] = np.minimum(256 - values[1, 0], 255)
    scaled = values / 127.5 - 1
    if dtype == "float16":
        return scaled.astype(np.float16)
    single = scaled.astype(np.float32)
    if dtype == "float32":
        return single
    # The upper half of a float32, to the nearest, ties to even; none of the values overflows.
    bits = single.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
