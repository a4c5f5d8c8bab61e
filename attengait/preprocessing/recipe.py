"""What every recipe is: from the parts of one sequence to the pictures that a store keeps of it.

A picture is uint8 [size, size, C] and belongs to one frame number. What goes wrong with one frame never stops a
sequence: it is noted as a fault, and the faults of a sequence are gathered by their reasons.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.masks import LEVEL
from attengait.datasets.source import Fault, Scan, SourceSequence
from attengait.errors import ParameterError
from attengait.store.shards import MadeSequence
from attengait.store.skipped import Reason, Skipped

MISSING = {
    "frames": Reason.NO_FRAMES,
    "silhouettes": Reason.NO_SILHOUETTES,
    "flow": Reason.NO_FLOW,
    "array": Reason.NO_ARRAY,
}
"""Why a sequence without a part is left out."""


class Recipe(Protocol):
    """How pictures are made. Everything in a recipe changes the result and is recorded in the store."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The parts of a sequence that it reads."""
        ...

    @property
    def modality(self) -> str:
        """What the pictures show: flow, silhouette, silhouette+flow, rgb or other."""
        ...

    @property
    def flow(self) -> str | None:
        """The flow back end; None where no flow is computed."""
        ...

    @property
    def packages(self) -> tuple[str, ...]:
        """Beginnings of the names of packages whose versions may change the pictures, beside those always recorded."""
        ...

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        ...

    @property
    def attributes(self) -> dict[str, Any]:
        """What a store records: modality, encoding with what decodes it, and every parameter under `recipe`."""
        ...

    def check(self) -> None:
        """Raise AttenGaitError or ParameterError, in one sentence, where its pictures cannot be made here."""
        ...

    def fit(self, scan: Scan) -> tuple[Self, Scan]:
        """The recipe, settled for what a source holds, and those sequences that it can use.

        Raises ParameterError where the recipe does not suit the source.
        """
        ...

    def max_pictures(self, sequence: SourceSequence) -> int:
        """How many pictures can come out of a sequence at most."""
        ...

    def make(self, sequence: SourceSequence) -> MadeSequence:
        """The pictures of one sequence and what was left out of it; bad input never raises."""
        ...


def with_parts(scan: Scan, needs: Sequence[str]) -> Scan:
    """The sequences that have all of the parts `needs`; the others are skipped."""
    lacking = {s.name: [part for part in needs if part not in s.parts] for s in scan.sequences}
    missing = [Skipped(reason=MISSING[parts[0]], where=name) for name, parts in lacking.items() if parts]
    return Scan(
        sequences=tuple(sequence for sequence in scan.sequences if not lacking[sequence.name]),
        skipped=(*scan.skipped, *missing),
        description=scan.description,
        recorded=scan.recorded,
    )


class Picture(NamedTuple):
    """One picture that a recipe made."""

    number: int
    """Of its frame."""
    pixels: NDArray[np.uint8]
    """[H, W, C]."""
    time_seconds: float | None = None
    """From the beginning of the video; None without one."""


def gather(
    pictures: Iterable[Picture],
    faults: list[Fault],
    sequence: SourceSequence,
    frame_shape: tuple[int, int, int],
    min_frames: int,
) -> MadeSequence:
    """Collect a sequence's pictures, none if they are fewer than `min_frames`, and one Skipped for each reason.

    `faults` may still grow while the pictures are drawn; reasons come in the order in which they came up.
    """
    made = list(pictures)
    by_reason: dict[Reason, list[Fault]] = {}
    for fault in faults:
        by_reason.setdefault(fault.reason, []).append(fault)
    skipped = [
        Skipped(
            reason=reason,
            where=sequence.name,
            frames=tuple(fault.number for fault in found),
            files=tuple(dict.fromkeys(fault.file for fault in found if fault.file is not None)),
            detail=next((fault.detail for fault in found if fault.detail), ""),
        )
        for reason, found in by_reason.items()
    ]
    if len(made) < min_frames:
        detail = f"{len(made)} pictures came out, but {min_frames} or more are needed"
        skipped.append(Skipped(reason=Reason.TOO_FEW, where=sequence.name, detail=detail))
        made = []
    times = [picture.time_seconds for picture in made]
    return MadeSequence(
        pictures=np.stack([picture.pixels for picture in made]) if made else np.empty((0, *frame_shape), np.uint8),
        frame_numbers=np.array([picture.number for picture in made], np.int64),
        times_seconds=None if None in times or not made else np.array(times, np.float64),
        skipped=tuple(skipped),
    )


def without_defaults(recorded: dict[str, Any]) -> dict[str, Any]:
    """A recipe's parameters without those that version 0.1.0 did not know, where they have the values it meant.

    So its stores, and those of this version, have the same attributes.
    """
    meant = {"silhouette_level": LEVEL, "silhouette_offset": None}
    return {name: value for name, value in recorded.items() if name not in meant or value != meant[name]}


def check_limits(crop_size: int, silhouette_threshold: int, min_frames: int) -> None:
    """Raise ParameterError, naming the parameter, for limits that no recipe can have."""
    named = (
        ("crop_size", crop_size, 2),
        ("silhouette_threshold", silhouette_threshold, 0),
        ("min_frames", min_frames, 1),
    )
    for name, value, least in named:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ParameterError(f"{name} is {value!r}, but must be a whole number of at least {least}")
    if crop_size % 2:
        raise ParameterError(f"crop_size is {crop_size}, but must be even")
