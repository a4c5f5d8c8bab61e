"""Finds a walker in a silhouette, and cuts the square crop around the middle of the body.

A silhouette is uint8 [H, W], 0 outside the walker. The crop is made in three steps. Take the rows that hold the walker,
over the whole width of the picture. Resize them to the height of the crop, with the same aspect ratio. Cut a square
window around the middle column: the first one at which more than half of the walker's mass is passed. All sizes are in
pixels.
"""

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Value = TypeVar("Value", np.uint8, np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Crop:
    """One crop: rows `top` to `bottom` (excluded) resized to `size` x `width`, then columns `left` to `left + size`."""

    top: int
    bottom: int
    width: int
    """Width of the whole picture once resized."""
    left: int
    """First column of the window. Columns outside the picture (below 0, or from `width` on) are 0."""
    size: int


def has_walker(silhouette: Picture, threshold: int) -> bool:
    """Whether the sum of a silhouette's values is above `threshold`."""
    return bool(cv2.sumElems(silhouette)[0] > threshold)


def find_crop(silhouette: Picture, size: int) -> Crop:
    """Return the crop around the walker of a silhouette that is not empty."""
    _, top, _, height = cv2.boundingRect(silhouette)
    bottom = top + height
    width = max(1, size * silhouette.shape[1] // height)
    resized = cv2.resize(silhouette[top:bottom], (width, size), interpolation=cv2.INTER_CUBIC)
    mass = np.cumsum(cv2.reduce(resized, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S), dtype=np.int64)
    middle = int(np.argmax(2 * mass > mass[-1]))
    return Crop(top=top, bottom=bottom, width=width, left=middle - size // 2, size=size)


def source_columns(crop: Crop, picture_width: int) -> tuple[int, int]:
    """Return the first and last (excluded) column of the full-width picture that `cut` looks at."""
    scale = picture_width / crop.width
    first, last = max(0, crop.left), min(crop.width, crop.left + crop.size)
    # Cubic interpolation weighs two columns on either side of (column + 0.5) * scale - 0.5; one more for safety.
    start = int(np.floor((first + 0.5) * scale - 0.5)) - 2
    stop = int(np.floor((last - 0.5) * scale - 0.5)) + 4
    return max(0, start), min(picture_width, stop)


def cut(rows: NDArray[Value], crop: Crop) -> NDArray[Value]:
    """Return a crop [size, size, C] of the rows `top` to `bottom` of a full-width picture [h, W, C], uint8 or float32.

    The full width is resized, although only a part of it is used: `cv2.resize` (INTER_CUBIC) computes its scale from
    the two widths, and the widths of a part would not have exactly the same ratio. Values outside `source_columns` are
    not used.
    """
    resized = cv2.resize(rows, (crop.width, crop.size), interpolation=cv2.INTER_CUBIC)
    window = np.zeros((crop.size, crop.size, rows.shape[2]), rows.dtype)
    first, last = max(0, crop.left), min(crop.width, crop.left + crop.size)
    window[:, first - crop.left : last - crop.left] = resized[:, first:last].reshape(crop.size, last - first, -1)
    return window
