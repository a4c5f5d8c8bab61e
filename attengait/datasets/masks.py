"""What a silhouette is: checked here, once, for every source.

A silhouette (a mask) is a picture of two values, a background and a person. The higher value is the person. It is
brought to 0 and 255, whatever the two values were. A picture with further values is a silhouette, too, where these lie
along the person's edge (noise of JPEG, soft edges): what is above half between the two values is the person.

All else is refused: grey pictures, label maps, pictures without a background, inverted ones, and a shape that is in the
alpha channel only. The limits are wide, so that noise, a person at the border, or a tight crop never fail:

    share of white     at most 80 %; walkers fill 3 to 15 % of a frame, and up to 60 % of a tight crop
    white at the border  at most half of its pixels; an inverted silhouette has nearly all of them
    levels between     at most 20 % of the picture, and no more than the person has
    flat grey areas    at most 5 % of the person; edges and noise are not flat
    the two values     at least half of the pixels have them
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.datasets.pictures import PictureError, decode, is_jpeg, may_have_alpha, read_whole
from attengait.datasets.reading import format_size
from attengait.datasets.source import Fault, Gray
from attengait.errors import require
from attengait.store.skipped import Reason

LEVEL = 0.5
"""Where between background (0) and person (1) a level begins to be the person."""
WHITE = 255

_MOST_WHITE, _MOST_WHITE_OF_BORDER = 0.8, 0.5
_MOST_BETWEEN, _MOST_FLAT_GREY, _LEAST_EXACT = 0.2, 0.05, 0.5
_LEAST_RANGE = 64
"""Between the two values, where there are further ones."""
_FEW_VALUES = 16
"""With so few values, each is meant as it is: there is no noise."""
_EMPTY, _FEW = 0.001, 0.01
"""A picture is empty where smaller shares are brighter than noise, and differ from the background at all."""
_FEW_PIXELS = 39
"""The same in pixels, whatever the size of a picture: so many of white have a sum below 10,000. The noise of JPEG may
have more."""


class MaskError(Exception):
    """A picture that is no silhouette."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """A silhouette that was checked."""

    pixels: Gray
    """uint8 [H, W], 0 and 255; all 0 where nobody is seen."""
    note: Reason | None = None
    """What was done to the picture, where its values were not 0 and 255."""
    detail: str = ""
    """The same in words."""


def check_level(level: float) -> None:
    """Raise ParameterError for a level that is not between background and person."""
    is_number = isinstance(level, (int, float)) and not isinstance(level, bool)
    require(is_number and 0 < level < 1, "silhouette_level", level, "a number between 0 and 1")


def read_silhouette(
    path: str, number: int, faults: list[Fault], *, level: float = LEVEL, frame_shape: tuple[int, ...] | None = None
) -> Gray | None:
    """The silhouette of frame `number`, uint8 [H, W] of 0 and 255; None where it cannot be used.

    What is wrong with it, or what was done to it, is noted in `faults`. `frame_shape` is the shape [H, W] that it must
    have. Raises InputError when the file cannot be read.
    """
    try:
        mask = read_mask(path, level=level, frame_shape=frame_shape)
    except MaskError as error:
        faults.append(Fault(error.reason, number, path, error.detail))
        return None
    if mask.note is not None:
        faults.append(Fault(mask.note, number, detail=mask.detail))
    return mask.pixels


def check_silhouettes(frames: NDArray[np.uint8], faults: list[Fault]) -> tuple[NDArray[np.uint8], list[int]]:
    """The silhouettes of an array [T, H, W], and the numbers, counted from 1, of those that can be used.

    The two values of all of them, or of one that has no others, become 0 and 255. Grey edges, which resized silhouettes
    have, are kept. What is wrong with a silhouette, or what was done to it, is noted in `faults`.
    """
    values, _ = _histogram(frames.reshape(len(frames), -1))
    outlines, details = frames.copy(), dict[int, str]()
    masks: dict[int, Gray] = {}
    for number, outline in enumerate(outlines, 1):
        # A frame of the background alone has the two values of all others.
        of_frame = values if len(values) == 2 else _histogram(np.ascontiguousarray(outline))[0]
        if len(of_frame) == 2 and of_frame.tolist() != [0, WHITE]:
            details[number] = _read_as(*of_frame)
            outline[:] = np.where(outline == of_frame[-1], np.uint8(WHITE), np.uint8(0))
        try:
            mask = _of_two_values(np.ascontiguousarray(outline), LEVEL, False)
        except MaskError as error:
            faults.append(Fault(error.reason, number, detail=error.detail))
            continue
        if mask.pixels.any():
            masks[number] = mask.pixels
        else:
            faults.append(Fault(Reason.SILHOUETTE_EMPTY, number))
    try:
        _check_white(list(masks.values()))
    except MaskError as error:
        faults += [Fault(error.reason, number, detail=error.detail) for number in masks]
        return outlines, []
    noted = ((number, detail) for number, detail in details.items() if number in masks)
    faults += [Fault(Reason.SILHOUETTE_VALUES, number, detail=detail) for number, detail in noted]
    return outlines, list(masks)


def read_mask(path: str, *, level: float = LEVEL, frame_shape: tuple[int, ...] | None = None) -> Mask:
    """The silhouette in a picture file, of the shape [H, W] of its frame where that is given.

    Raises MaskError where there is none, InputError when the file cannot be read.
    """
    try:
        data = read_whole(path)
        picture = decode(data, cv2.IMREAD_ANYDEPTH)
        alpha = _alpha(decode(data, cv2.IMREAD_UNCHANGED)) if may_have_alpha(data) else None
    except PictureError as error:
        raise MaskError(Reason.UNREADABLE_PICTURE, str(error)) from None
    if frame_shape is not None and picture.shape != frame_shape:
        sizes = f"the silhouette has {format_size(picture.shape)} pixels, the frame {format_size(frame_shape)}"
        raise MaskError(Reason.WRONG_SIZE, sizes)
    if alpha is None:
        return to_mask(picture, level=level, is_lossy=is_jpeg(data))
    try:
        mask = to_mask(picture, level=level)
    except MaskError:
        mask = None
    if mask is None or not np.array_equal(mask.pixels, to_mask(alpha, level=level).pixels):
        raise MaskError(
            Reason.SILHOUETTE_ALPHA,
            "its alpha channel shows another shape than its colours: write the shape in black and white",
        )
    return mask


def to_mask(picture: NDArray[Any], *, level: float = LEVEL, is_lossy: bool = False) -> Mask:
    """The silhouette in a grey picture [H, W] of whole numbers. Raises MaskError where there is none.

    `is_lossy`: JPEG changed the values, so two values near each other are noise.
    """
    mask = _of_two_values(picture, level, is_lossy)
    _check_white([mask.pixels])
    return mask


def _of_two_values(picture: NDArray[Any], level: float, is_lossy: bool) -> Mask:
    if picture.dtype == np.uint8:
        # Nearly all masks are of 0 and 255, and a histogram takes long.
        num_white = cv2.countNonZero(cv2.inRange(picture, WHITE, WHITE))
        if 0 < num_white == cv2.countNonZero(picture) < picture.size:
            return Mask(pixels=picture)
    values, _ = _histogram(picture)
    if len(values) == 1:
        if values[0]:
            raise MaskError(Reason.SILHOUETTE_FULL, f"all of it has the value {values[0]}")
        return Mask(pixels=np.zeros(picture.shape, np.uint8))
    if len(values) == 2 and not (is_lossy and values[1] - values[0] < _LEAST_RANGE):
        low, high = values.tolist()
        pixels = np.where(picture == high, np.uint8(WHITE), np.uint8(0))
        return Mask(pixels=pixels, note=Reason.SILHOUETTE_VALUES, detail=_read_as(low, high))
    return _cut(_to_bytes(picture), level, is_lossy)


def _read_as(low: int, high: int) -> str:
    return f"its values {low} and {high} were read as 0 and {WHITE}"


def _cut(picture: Gray, level: float, is_lossy: bool) -> Mask:
    """The silhouette in a picture uint8 [H, W] of more than two values."""
    values, counts = _histogram(picture)
    lowest, highest = int(values[0]), int(values[-1])
    band = (highest - lowest) / 8
    dark, bright = values <= lowest + band, values >= highest - band
    low, high = int(values[dark][counts[dark].argmax()]), int(values[bright][counts[bright].argmax()])
    is_dark = values <= lowest + max(band, _LEAST_RANGE)
    most_bright = min(_EMPTY * picture.size, _FEW_PIXELS)
    most_other = _FEW * picture.size if is_lossy else min(_FEW * picture.size, _FEW_PIXELS)
    if counts[~is_dark].sum() <= most_bright and counts[values != low].sum() <= most_other:
        return Mask(pixels=np.zeros_like(picture))
    if highest - lowest < _LEAST_RANGE:
        raise MaskError(Reason.SILHOUETTE_GREY, f"it has {len(values)} values from {lowest} to {highest}")
    num_between, num_bright = int(counts[~dark & ~bright].sum()), int(counts[bright].sum())
    exact = (abs(values.astype(int) - low) <= 2) | (abs(values.astype(int) - high) <= 2)
    share_exact = counts[exact].sum() / picture.size
    flat = _num_flat(picture, low, high, 0 if len(values) <= _FEW_VALUES else band)
    if (
        num_between > min(_MOST_BETWEEN * picture.size, num_bright)
        or share_exact < _LEAST_EXACT
        or flat > _MOST_FLAT_GREY * (num_between + num_bright)
    ):
        raise MaskError(
            Reason.SILHOUETTE_GREY,
            f"it has {len(values)} grey levels, {_percent(num_between / picture.size)} of it between dark and bright",
        )
    threshold = low + level * (high - low)
    pixels = np.where(picture > threshold, np.uint8(WHITE), np.uint8(0))
    detail = f"it has {len(values)} grey levels, and those above {threshold:g} are the person"
    return Mask(pixels=pixels, note=Reason.SILHOUETTE_CUT, detail=detail)


def _check_white(masks: Sequence[Gray]) -> None:
    """Raise MaskError for silhouettes, all those of a sequence or a single one, that have too much white."""
    if not masks:
        return
    white = median(cv2.countNonZero(mask) / mask.size for mask in masks)
    white_border = median(_white_of_border(mask) for mask in masks)
    if white > _MOST_WHITE or white_border > _MOST_WHITE_OF_BORDER:
        raise MaskError(
            Reason.SILHOUETTE_INVERTED,
            f"{_percent(white)} of it is white, and {_percent(white_border)} of its border: it seems to be inverted",
        )


def _white_of_border(mask: Gray) -> float:
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return np.count_nonzero(border) / border.size


def _num_flat(picture: Gray, low: int, high: int, tolerance: float) -> int:
    """How many pixels equal all their neighbours, and neither of the two values within the tolerance."""
    square = np.ones((3, 3), np.uint8)
    is_flat = cv2.erode(picture, square) == cv2.dilate(picture, square)
    is_other = (abs(picture.astype(np.int16) - low) > tolerance) & (abs(picture.astype(np.int16) - high) > tolerance)
    return int(np.count_nonzero(is_flat & is_other))


def _histogram(picture: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The values that occur, ascending, and how often."""
    if picture.dtype != np.uint8:
        return np.unique(picture, return_counts=True)
    counts = cv2.calcHist([picture], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    values = np.flatnonzero(counts)
    return values, counts[values]


def _to_bytes(picture: NDArray[Any]) -> Gray:
    """Levels of more than 8 bits in 256 steps from the lowest to the highest."""
    if picture.dtype == np.uint8:
        return picture
    low, high = float(picture.min()), float(picture.max())
    return np.rint((picture - low) * (WHITE / (high - low))).astype(np.uint8)


def _alpha(picture: NDArray[Any]) -> NDArray[Any] | None:
    """The alpha channel of a decoded picture; None without one, or where it says nothing."""
    if picture.ndim < 3 or picture.shape[2] not in (2, 4):
        return None
    alpha = picture[..., -1]
    return alpha if alpha.min() != alpha.max() else None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
