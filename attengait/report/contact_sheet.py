"""A picture to look at before training: one row of images for each sequence, with its name below.

Flow in the encodings uv and uvm is drawn in the colours of the Middlebury wheel, relative to the largest motion in the
row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.pictures.colour import colour_flow, largest_magnitude
from attengait.kernels.pictures.encode import decode_uv
from attengait.store import Store
from attengait.store.description import channel_names
from attengait.system.files import write_atomically

_SCALE = 2
_GAP_PX = 2
_LABEL_PX = 20
_BACKGROUND = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetRow:
    """One row of a contact sheet."""

    sequence: int
    """Index in the store."""
    name: str
    """Such as 001/nm-01/090."""
    frames: list[int]
    """Which frames of the sequence, from 0."""


def contact_sheet(store: Store, out: str | Path, *, num_rows: int = 12, num_frames: int = 10) -> list[SheetRow]:
    """Write a PNG with a row of images for each of some sequences of a store.

    Both the sequences and the images of each are evenly picked. Returns what it shows. Images have 1 channel (gray) or
    3 (red, green, blue), or hold flow (uv or uvm). Raises ParameterError for less than one row or image. Raises
    AttenGaitError when the store cannot be read or drawn, or `out` cannot be written.
    """
    for name, value in (("rows", num_rows), ("frames", num_frames)):
        if value < 1:
            raise ParameterError(f"{name} is {value}, but must be at least 1")
    visible = painter(channel_names(store.attributes, store.frame_shape[2]), store.attributes, str(store.location))
    out = Path(out)
    rows = []
    for i in _spread(len(store.sequences), num_rows):
        frames = _spread(int(store.sequences.length[i]), num_frames)
        rows.append(SheetRow(sequence=i, name=store.sequences.name(i), frames=frames))
    indices = [row.sequence for row in rows]
    row_width = _row_width(num_frames, store.frame_shape[1], [row.name for row in rows])
    with store.reader() as reader:
        clips = reader.read_clips(store.sequences.start[indices], store.sequences.length[indices])
        images = [_draw(visible(clip[row.frames]), row.name, row_width) for clip, row in zip(clips, rows, strict=True)]
    encoded, png = cv2.imencode(".png", np.concatenate(images))
    assert encoded
    write_atomically(out, png.tobytes())
    return rows


def draw_clips(
    clips: NDArray[np.uint8],
    names: Sequence[str],
    *,
    channels: Sequence[str],
    attributes: Mapping[str, Any],
    num_rows: int = 12,
    num_frames: int = 10,
) -> NDArray[np.uint8]:
    """Draw some clips of a batch as `contact_sheet` does: uint8 [height, width, 3] in red, green, blue.

    Args:
        clips: uint8 [N, T, H, W, C].
        names: of their sequences, N.
        channels: names of the channels, C.
        attributes: those of the store, which say how the images are encoded.
        num_rows: most clips that are drawn.
        num_frames: most images that are drawn of each.

    Raises AttenGaitError for images that cannot be shown.
    """
    visible = painter(channels, attributes, "the batch")
    rows, frames = _spread(len(clips), num_rows), _spread(clips.shape[1], num_frames)
    width = _row_width(len(frames), clips.shape[3], names)
    images = [_draw(visible(np.ascontiguousarray(clips[row][frames])), names[row], width) for row in rows]
    return np.ascontiguousarray(np.concatenate(images)[..., ::-1])


def _row_width(num_frames: int, frame_width: int, names: Sequence[str]) -> int:
    """Of rows with so many images, or with these names below."""
    return max([num_frames * (frame_width * _SCALE + _GAP_PX), *(9 * len(name) for name in names)])


def _spread(length: int, count: int) -> list[int]:
    """At most `count` of the indices below `length`, from the first to the last."""
    return [int(i) for i in np.linspace(0, length - 1, min(count, length)).round()]


def painter(
    names: Sequence[str], attributes: Mapping[str, Any], where: str
) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """A function from images [n, H, W, C] with these channels to colours, uint8 [n, H, W, 3] in red, green, blue."""
    if names[0] == "silhouette" and len(names) > 1:
        paint_flow = painter(names[1:], attributes, where)
        # The silhouette above the flow image of the same frame.
        return lambda frames: np.concatenate(
            [np.repeat(frames[..., :1], 3, axis=-1), paint_flow(np.ascontiguousarray(frames[..., 1:]))], axis=1
        )
    channels, steps_per_px = len(names), attributes.get("encoding_steps_per_px")
    if channels in (2, 3) and isinstance(steps_per_px, int | float) and steps_per_px > 0:
        return partial(_paint_flow, steps_per_px=steps_per_px)
    if channels in (1, 3):
        return lambda frames: np.broadcast_to(frames, (*frames.shape[:3], 3))
    encoding = attributes.get("encoding")
    raise AttenGaitError(f"{where} has frames of {channels} channels, encoding {encoding!r}, which cannot be shown")


def _paint_flow(frames: NDArray[np.uint8], *, steps_per_px: float) -> NDArray[np.uint8]:
    flow = decode_uv(frames, steps_per_px=steps_per_px)
    return colour_flow(flow, largest_magnitude(flow))


def _draw(frames: NDArray[np.uint8], name: str, row_width: int) -> NDArray[np.uint8]:
    """A row, uint8 [height, row_width, 3] in OpenCV's order of channels, of frames [n, H, W, 3] in red, green, blue."""
    height, width = frames.shape[1:3]
    cell_height, cell_width = height * _SCALE + _GAP_PX, width * _SCALE + _GAP_PX
    row = np.full((cell_height + _LABEL_PX, row_width, 3), _BACKGROUND, np.uint8)
    for column, frame in enumerate(frames):
        size = (width * _SCALE, height * _SCALE)
        image = cv2.resize(np.ascontiguousarray(frame[..., ::-1]), size, interpolation=cv2.INTER_NEAREST)
        row[: size[1], column * cell_width : column * cell_width + size[0]] = image
    at = (4, cell_height + _LABEL_PX - 7)
    cv2.putText(row, name, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return row
