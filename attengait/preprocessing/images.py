"""The stored pictures of one sequence and what was left out of it, whatever they show.

A picture is uint8 [size, size, C] and belongs to one frame number. What goes wrong with one frame never stops a
sequence: it is noted as a fault, and the faults of a sequence are gathered by their reasons.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError

NO_MATCH = "no matching frame number"
EMPTY = "silhouette empty"
UNREADABLE = "unreadable picture"
WRONG_SIZE = "wrong size"


class Fault(NamedTuple):
    """Why one frame was left out."""

    reason: str
    number: int
    file: str | None = None
    """The picture or video at fault."""
    detail: str = ""
    """What the decoder says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Skip:
    """Frames of one sequence that were left out for one reason."""

    reason: str
    frames: tuple[int, ...]
    """Frame numbers."""
    files: tuple[str, ...] = ()
    """Pictures or videos at fault, each once, for reasons that lie in them."""
    detail: str = ""
    """What the decoder said first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceResult:
    """The stored pictures of one sequence."""

    images: NDArray[np.uint8]
    """[n, size, size, C]."""
    frame_numbers: NDArray[np.int64]
    """[n], ascending."""
    skipped: tuple[Skip, ...]
    """At most one for each reason."""


def gather(
    numbered_images: Iterable[tuple[int, NDArray[np.uint8]]],
    faults: list[Fault],
    frame_shape: tuple[int, int, int],
    min_frames: int,
) -> SequenceResult:
    """Collect a sequence's pictures, none if they are fewer than `min_frames`, and one Skip for each reason.

    `faults` may still grow while the pictures are drawn; reasons come in the order in which they came up.
    """
    numbers, images = [], []
    for number, image in numbered_images:
        numbers.append(number)
        images.append(image)
    by_reason: dict[str, list[Fault]] = {}
    for fault in faults:
        by_reason.setdefault(fault.reason, []).append(fault)
    skipped = [
        Skip(
            reason=reason,
            frames=tuple(fault.number for fault in found),
            files=tuple(dict.fromkeys(fault.file for fault in found if fault.file is not None)),
            detail=next((fault.detail for fault in found if fault.detail), ""),
        )
        for reason, found in by_reason.items()
    ]
    if len(images) < min_frames:
        skipped.append(Skip(reason=too_few(min_frames), frames=tuple(numbers)))
        numbers, images = [], []
    return SequenceResult(
        images=np.stack(images) if images else np.empty((0, *frame_shape), np.uint8),
        frame_numbers=np.array(numbers, np.int64),
        skipped=tuple(skipped),
    )


def too_few(min_frames: int) -> str:
    """The reason for leaving a whole sequence out, such as `fewer than 5 frames`."""
    return f"fewer than {min_frames} frames"


def check_limits(crop_size: int, silhouette_threshold: int, min_frames: int) -> None:
    """Raise ParameterError, naming the parameter, for limits that no recipe can have."""
    named = (
        ("crop_size", crop_size, 2),
        ("silhouette_threshold", silhouette_threshold, 0),
        ("min_frames", min_frames, 1),
    )
    for name, value, least in named:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ParameterError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if crop_size % 2:
        raise ParameterError(f"crop_size must be even, got {crop_size}")
