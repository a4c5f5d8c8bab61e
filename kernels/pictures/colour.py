"""Optical flow as colours on the Middlebury wheel: direction is the hue, magnitude the saturation.

Flow is float32 [h, w, 2] in pixels per frame. It is divided by the largest magnitude of the whole frame. So a part of a
frame can be coloured alone, if that magnitude is known. As in the published recipe, every step is in float32: one step
in float64 would turn some values of 255 into 254.

Source: S. Baker et al., A Database and Evaluation Methodology for Optical Flow (colour wheel);
`drawOpticalFlow` of OpenCV's optical flow samples (arithmetic).
"""

import numpy as np
from numpy.typing import NDArray

LARGEST_COMPONENT_PX = 1e6
"""Flow with a larger component counts as unknown, like NaN, and is painted black."""

# Runs of the wheel: number of colours, the colour they start from, and the channel that rises (+1) or falls (-1).
_RUNS = (
    (15, (1, 0, 0), 1, +1),
    (6, (1, 1, 0), 0, -1),
    (4, (0, 1, 0), 2, +1),
    (11, (0, 1, 1), 1, -1),
    (13, (0, 0, 1), 0, +1),
    (6, (1, 0, 1), 2, -1),
)


def colour_wheel() -> NDArray[np.float32]:
    """Return the 55 colours of the wheel, float32 [55, 3] from 0 to 1 in the order R, G, B."""
    colours = []
    for length, start, channel, direction in _RUNS:
        for i in range(length):
            colour = [float(value) for value in start]
            colour[channel] += direction * i / length
            colours.append(colour)
    return np.array(colours, np.float32)


_WHEEL = colour_wheel()
_NEXT = np.roll(_WHEEL, -1, axis=0)


def largest_magnitude(flow: NDArray[np.float32]) -> np.float32:
    """Return the largest magnitude in a flow [H, W, 2], in pixels per frame; unknown flow does not count."""
    with np.errstate(over="ignore", invalid="ignore"):
        largest_square = _squares(flow).max(initial=np.float32(0))
        # The square of a known flow is at most 2e12. If the largest square is far below, every flow is known.
        if not largest_square < LARGEST_COMPONENT_PX**2 / 10:
            largest_square = _squares(known_flow(flow)).max()
    return np.float32(np.sqrt(largest_square))


def colour_flow(flow: NDArray[np.float32], largest: np.float32) -> NDArray[np.uint8]:
    """Return the colours of a flow, or of any part of one, uint8 [h, w, 3] in the order R, G, B.

    `flow` is float32 [h, w, 2] and `largest` the largest magnitude in the whole frame, both in pixels per frame. No
    motion is white; NaN or a component above 1e6 is black.
    """
    unknown = _is_unknown(flow)
    if unknown.any():
        flow = np.where(unknown[..., None], np.float32(0), flow)
    dx, dy = flow[..., 0], flow[..., 1]
    if largest > 0:
        dx, dy = dx / largest, dy / largest
    radius = np.sqrt(dx * dx + dy * dy)[..., None]
    angle = np.arctan2(-dy, -dx) / np.float32(np.pi)
    position = (angle + np.float32(1)) / np.float32(2) * np.float32(len(_WHEEL) - 1)
    index = position.astype(np.intp)  # the floor: a position is never negative
    share = (position - index.astype(np.float32))[..., None]
    colour = (1 - share) * _WHEEL[index] + share * _NEXT[index]
    colour = np.where(radius <= 1, 1 - radius * (1 - colour), np.float32(0.75) * colour)
    colour[unknown] = 0
    return (np.float32(255) * colour).astype(np.uint8)


def known_flow(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a flow [..., 2] in which unknown flow (NaN or a component above 1e6) is replaced by 0."""
    unknown = _is_unknown(flow)
    return np.where(unknown[..., None], np.float32(0), flow) if unknown.any() else flow


def _squares(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    dx, dy = flow[..., 0], flow[..., 1]
    squares: NDArray[np.float32] = dx * dx + dy * dy
    return squares


def _is_unknown(flow: NDArray[np.float32]) -> NDArray[np.bool_]:
    # Written so that NaN, which compares false with everything, counts as unknown.
    known: NDArray[np.bool_] = np.all(np.abs(flow) <= np.float32(LARGEST_COMPONENT_PX), axis=-1)
    return ~known
