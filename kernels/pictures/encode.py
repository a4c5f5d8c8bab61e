"""From the flow of one frame to the flow image that is stored: an encoding, cropped around the walker.

Flow is float32 [H, W, 2] in pixels per frame. The silhouette of the same frame, uint8 [H, W], says where the walker is.
A flow image is uint8 [size, size, C], where C depends on the encoding:

colour  C = 3: R, G, B on the Middlebury wheel, relative to the largest motion of the whole frame (as published)
uv      C = 2: the flow (u, v) itself in steps of 1/8 pixel, plus 128; 128 is no motion, 1 to 255 are -127 to 127 steps
uvm     C = 3: u and v as in uv, and the magnitude in steps of 1/8 pixel, from 0 to 255

uv and uvm keep the speed, in pixels of the original frame: the crop is resized, but its values are not scaled. To
mirror a flow image from left to right, mirror its columns and replace u by 256 - u. Colours cannot be mirrored in this
way, because a hue is a direction.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError
from attengait.kernels.pictures.colour import colour_flow, known_flow, largest_magnitude
from attengait.kernels.pictures.crop import Crop, cut, find_crop, source_columns
from attengait.system.lookup import check_name

Picture = NDArray[np.uint8]
Flow = NDArray[np.float32]

STEPS_PER_PX = 8
"""Steps of uv and uvm in one pixel per frame."""
OFFSET = 128
"""The value of uv and uvm that stands for no motion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """One way to store flow."""

    channels: int
    """C, channels of a stored picture."""
    encode: Callable[[Flow, Crop], Picture]
    """From the flow of a whole frame and the crop to the picture, uint8 [size, size, C]."""
    attributes: dict[str, int] = field(default_factory=dict)
    """What a store records, so that its flow images can be decoded."""


def encode(flow: Flow, silhouette: Picture, encoding: str, size: int) -> Picture:
    """Return the flow image of one frame, uint8 [size, size, C], cropped around the walker.

    `flow` is float32 [H, W, 2] in pixels per frame, `silhouette` uint8 [H, W] and not empty, `encoding` a key of
    `ENCODINGS`. Raises ParameterError for an unknown encoding.
    """
    check_encoding(encoding)
    return ENCODINGS[encoding].encode(flow, find_crop(silhouette, size))


def check_encoding(name: str) -> None:
    """Raise ParameterError unless `name` is the name of an encoding."""
    check_name(ENCODINGS, name, "encoding")


def decode_uv(pictures: Picture, *, steps_per_px: float = STEPS_PER_PX) -> Flow:
    """Return the flow that flow images hold, float32 [..., 2] in pixels of the original frame, per frame.

    `pictures` are uint8 [..., 2] (uv) or [..., 3] (uvm). A store gives its `steps_per_px` in the attribute
    `encoding_steps_per_px`. The error is at most half a step, 1/16 pixel, unless the motion was larger than 15.875
    pixels. Raises ParameterError for other shapes and types.

    >>> attengait.decode_uv(np.array([[128, 128], [136, 120]], np.uint8)).tolist()
    [[0.0, 0.0], [1.0, -1.0]]
    """
    if pictures.dtype != np.uint8 or pictures.ndim == 0 or pictures.shape[-1] not in (2, 3):
        raise ParameterError(
            f"pictures is {pictures.dtype} {list(pictures.shape)}, but must be uint8 [..., 2] or [..., 3]"
        )
    flow: Flow = (pictures[..., :2].astype(np.float32) - np.float32(OFFSET)) / np.float32(steps_per_px)
    return flow


def encode_colour(
    flow: Flow,
    crop: Crop,
    *,
    largest: Callable[[Flow], np.float32] = largest_magnitude,
    paint: Callable[[Flow, np.float32], Picture] = colour_flow,
) -> Picture:
    """Return the colours of a crop of a frame's flow, uint8 [size, size, 3].

    `largest` and `paint` are the functions of colour.py, or faster ones. Only the part of the frame that the crop needs
    is coloured.
    """
    first, last = source_columns(crop, flow.shape[1])
    rows = np.zeros((crop.bottom - crop.top, flow.shape[1], 3), np.uint8)
    rows[:, first:last] = paint(flow[crop.top : crop.bottom, first:last], largest(flow))
    return cut(rows, crop)


def encode_silhouette(silhouette: Picture, size: int) -> Picture:
    """Return the same crop of the silhouette, uint8 [size, size, 1]. The silhouette is uint8 [H, W] and not empty."""
    crop = find_crop(silhouette, size)
    return cut(silhouette[crop.top : crop.bottom, :, None], crop)


def _uv(flow: Flow, crop: Crop) -> Picture:
    return _signed_steps(_cut_flow(flow, crop))


def _uvm(flow: Flow, crop: Crop) -> Picture:
    flow = _cut_flow(flow, crop)
    u, v = flow[..., 0], flow[..., 1]
    magnitude = np.clip(np.rint(np.sqrt(u * u + v * v) * np.float32(STEPS_PER_PX)), 0, 255)
    return np.concatenate([_signed_steps(flow), magnitude[..., None].astype(np.uint8)], axis=-1)


def _cut_flow(flow: Flow, crop: Crop) -> Flow:
    """The crop of a flow, float32 [size, size, 2], still in pixels of the original frame."""
    first, last = source_columns(crop, flow.shape[1])
    rows = np.zeros((crop.bottom - crop.top, *flow.shape[1:]), np.float32)
    rows[:, first:last] = known_flow(flow[crop.top : crop.bottom, first:last])
    return cut(rows, crop)


def _signed_steps(flow: Flow) -> Picture:
    steps: Flow = np.clip(np.rint(flow * np.float32(STEPS_PER_PX)), -127, 127) + np.float32(OFFSET)
    return steps.astype(np.uint8)


_SCALE = {"encoding_steps_per_px": STEPS_PER_PX, "encoding_offset": OFFSET}

ENCODINGS: dict[str, Encoding] = {
    "colour": Encoding(channels=3, encode=encode_colour),
    "uv": Encoding(channels=2, encode=_uv, attributes=_SCALE),
    "uvm": Encoding(channels=3, encode=_uvm, attributes=_SCALE),
}
"""How flow is stored, by the encoding's name."""
