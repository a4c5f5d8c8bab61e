"""From the flow of one frame to the picture that is stored: an encoding, cropped around the walker.

Flow is float32 [H, W, 2] in pixels per frame; the silhouette, uint8 [H, W], of the same frame says where the
walker is. A stored picture is uint8 [size, size, C], where C depends on the encoding:

colour  C = 3, R, G, B on the Middlebury wheel, relative to the largest motion of the whole frame (as published)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError
from attengait.kernels.colour import colour_flow, largest_magnitude
from attengait.kernels.silhouette import Crop, cut, find_crop, source_columns

Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """One way to store flow."""

    channels: int
    """C, channels of a stored picture."""
    encode: Callable[[NDArray[np.float32], Crop], Picture]
    """From the flow of a whole frame and the crop to the picture, uint8 [size, size, C]."""


def encode(flow: NDArray[np.float32], silhouette: Picture, encoding: str, size: int) -> Picture:
    """Return the stored picture of one frame, uint8 [size, size, C], cropped around the walker.

    `flow` is float32 [H, W, 2] in pixels per frame, `silhouette` uint8 [H, W] and not empty, `encoding` a key of
    `ENCODINGS`. Raises ParameterError for an unknown encoding.
    """
    check_encoding(encoding)
    return ENCODINGS[encoding].encode(flow, find_crop(silhouette, size))


def check_encoding(name: str) -> None:
    """Raise ParameterError unless `name` is an encoding's."""
    if name not in ENCODINGS:
        raise ParameterError(f"encoding must be one of {', '.join(ENCODINGS)}, got {name!r}")


def _colour(flow: NDArray[np.float32], crop: Crop) -> Picture:
    # Only the part of the frame that the crop looks at is coloured.
    first, last = source_columns(crop, flow.shape[1])
    rows = np.zeros((crop.bottom - crop.top, flow.shape[1], 3), np.uint8)
    rows[:, first:last] = colour_flow(flow[crop.top : crop.bottom, first:last], largest_magnitude(flow))
    return cut(rows, crop)


ENCODINGS: dict[str, Encoding] = {"colour": Encoding(channels=3, encode=_colour)}
"""How flow is stored, by the encoding's name."""
