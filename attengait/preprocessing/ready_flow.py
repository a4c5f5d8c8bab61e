"""Flow images that a data set distributes ready-made, as GREW and OUMVLP-OF do: they are kept as they are.

A picture of another size is resized to 64 x 64, GREW's by cubic and OUMVLP's by linear interpolation, as published.
Nothing is cut out and no silhouette is needed.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import cv2

from attengait.datasets.pictures import Pictures, read_colour
from attengait.datasets.source import FLOW, Fault, Scan, SourceSequence
from attengait.preprocessing.recipe import Picture, check_limits, gather, with_parts
from attengait.store.shards import MadeSequence
from attengait.store.skipped import Reason
from attengait.system.lookup import look_up

INTERPOLATIONS = {"cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyFlowRecipe:
    """How ready flow images are kept (a Recipe)."""

    modality: ClassVar[str] = "flow"
    encoding: ClassVar[str] = "colour"
    needs: ClassVar[tuple[str, ...]] = (FLOW,)
    flow: ClassVar[str | None] = None
    packages: ClassVar[tuple[str, ...]] = ()

    name: str = "ready-flow"
    version: int = 1
    size: int = 64
    """Height and width of a stored picture, in pixels."""
    resize: str = "cubic"
    """Interpolation of pictures of another size, a key of INTERPOLATIONS."""
    min_frames: int = 5
    """A sequence with fewer pictures is left out."""

    def __post_init__(self) -> None:
        check_limits(self.size, 0, self.min_frames)
        look_up(INTERPOLATIONS, self.resize, "resize")

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """See Recipe."""
        return self.size, self.size, 3

    @property
    def attributes(self) -> dict[str, Any]:
        """See Recipe."""
        return {"modality": self.modality, "encoding": self.encoding, "recipe": asdict(self)}

    def check(self) -> None:
        """See Recipe; pictures can be read everywhere."""

    def fit(self, scan: Scan) -> tuple[Self, Scan]:
        """See Recipe."""
        return self, with_parts(scan, self.needs)

    def max_pictures(self, sequence: SourceSequence) -> int:
        """One for each picture."""
        return len(_flow_of(sequence).names)

    def make(self, sequence: SourceSequence) -> MadeSequence:
        """See Recipe."""
        faults: list[Fault] = []
        return gather(self._pictures(sequence, faults), faults, sequence, self.frame_shape, self.min_frames)

    def _pictures(self, sequence: SourceSequence, faults: list[Fault]) -> Iterator[Picture]:
        for number, path in _flow_of(sequence).by_number.items():
            pixels = read_colour(path)
            if pixels is None:
                faults.append(Fault(Reason.UNREADABLE_PICTURE, number, path))
                continue
            if pixels.shape[:2] != (self.size, self.size):
                pixels = cv2.resize(pixels, (self.size, self.size), interpolation=INTERPOLATIONS[self.resize])
            yield Picture(number, pixels)


def _flow_of(sequence: SourceSequence) -> Pictures:
    found: Pictures = sequence.parts[FLOW]
    return found
