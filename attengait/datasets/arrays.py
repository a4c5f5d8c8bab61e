"""Arrays of other programs as frames of a store, uint8 [T, H, W, C].

They come as [T, H, W], [T, C, H, W] or [T, H, W, C]; the axis of the channels is found by its length. Nothing is
resized. Images that are narrower than high can get columns of zeros on both sides: silhouettes of 64 x 44 were cut
out of 64 x 64, and become 64 x 64 again.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.store.skipped import Reason

MAX_CHANNELS = 16
MAX_COORDINATES = 7
"""Of a joint: x, y, z, how sure it is, and how it moves. No picture is as narrow."""
_NUM_JOINTS = {13, 14, 15, 16, 17, 18, 19, 21, 23, 24, 25, 33, 133}
"""Joints of a body in the usual models of poses."""
_MOST_CHANNELS_OF_JOINTS, _MOST_PEOPLE = 4, 2
"""Of arrays [C, T, V, M], as networks on graphs take them."""


class FileError(AttenGaitError):
    """A file that gives no frames; the others of its folder may."""

    reason: ClassVar[Reason] = Reason.UNREADABLE_FILE
    """What the report counts it under."""


class ArrayError(FileError):
    """An array that cannot be frames."""

    reason = Reason.NOT_FRAMES


class JointsError(ArrayError):
    """An array of joints, the points of a body, such as [T, 17, 3]."""

    reason = Reason.JOINTS


def picture_shape(shape: tuple[int, ...], *, pad: bool) -> tuple[int, int, int]:
    """Height, width and channels of the frames that an array of `shape` gives; raises ArrayError where it gives none.

    JointsError is raised for joints: arrays [T, V, C], or such ones with further axes.

    With `pad` the width is at least the height.
    """
    if (
        len(shape) == 4
        and shape[0] <= _MOST_CHANNELS_OF_JOINTS
        and shape[2] in _NUM_JOINTS
        and shape[3] <= _MOST_PEOPLE
    ):
        raise _joints(shape, shape[0])
    if len(shape) == 3:
        height, width, channels = shape[1], shape[2], 1
    elif len(shape) == 4 and _is_channels(shape[1], of=shape[2:]):
        channels, height, width = shape[1:]
    elif len(shape) == 4 and _is_channels(shape[3], of=shape[1:3]):
        height, width, channels = shape[1:]
    elif len(shape) >= 3 and shape[-1] <= MAX_COORDINATES:
        raise _joints(shape, shape[-1])
    else:
        raise ArrayError(
            f"its shape is {list(shape)}, not [T, H, W], [T, C, H, W] or [T, H, W, C] with at most {MAX_CHANNELS} "
            "channels, fewer than rows and columns"
        )
    if min(height, width) <= MAX_COORDINATES:
        raise _joints(shape, min(height, width))
    return height, max(height, width) if pad else width, channels


def to_frames(array: NDArray[Any], *, pad: bool) -> NDArray[np.uint8]:
    """The frames of an array, uint8 [T, H, W, C]; raises ArrayError where it cannot be frames.

    Numbers from 0 to 1 that are no bytes are times 255, rounded; other numbers from 0 to 255 must be whole.
    """
    height, width, channels = picture_shape(array.shape, pad=pad)
    if array.ndim == 3:
        array = array[..., None]
    elif _is_channels(array.shape[1], of=array.shape[2:]):
        array = np.moveaxis(array, 1, -1)
    pixels = widened(_to_bytes(array), width)
    assert pixels.shape[1:] == (height, width, channels)
    return np.ascontiguousarray(pixels)


def widened(frames: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Frames [T, H, W, C] with columns of zeros on both sides, [T, H, `width`, C]."""
    missing = width - frames.shape[2]
    return np.pad(frames, ((0, 0), (0, 0), (missing // 2, missing - missing // 2), (0, 0))) if missing else frames


def as_two_values(array: NDArray[Any]) -> NDArray[Any]:
    """An array of two numbers, whatever they are, as uint8 of 0 and 1; any other array, and one of bytes, as it is."""
    if array.dtype.kind not in "iuf" or array.dtype == np.uint8 or not array.size:
        return array
    low, high = array.min(), array.max()
    if not low < high or not ((array == low) | (array == high)).all():
        return array
    ones: NDArray[np.uint8] = (array == high).astype(np.uint8)
    return ones


def _joints(shape: tuple[int, ...], num_coordinates: int) -> JointsError:
    return JointsError(
        f"its shape is {list(shape)}: points of {num_coordinates} numbers each seem to be the joints of a body, not "
        "pictures"
    )


def _is_channels(length: int, *, of: tuple[int, ...]) -> bool:
    return length <= MAX_CHANNELS and length < min(of)


def _to_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array.astype(np.uint8, copy=False)
    lowest, highest = array.min(), array.max()
    if not (lowest >= 0 and highest <= 255):  # also where one of them is no number
        raise ArrayError(f"its values go from {lowest} to {highest}, not from 0 to 255")
    pixels: NDArray[np.uint8]
    if highest <= 1:
        pixels = np.rint(array.astype(np.float32) * np.float32(255)).astype(np.uint8)
        return pixels
    pixels = array.astype(np.uint8)
    if not np.array_equal(pixels, array):
        raise ArrayError("its values are neither from 0 to 1 nor whole numbers from 0 to 255")
    return pixels
