"""Silhouettes that a data set distributes cut out and resized, as GREW does: they are kept as they are.

OpenGait does the same with GREW's. Grey edges, which resized silhouettes have, are kept. A silhouette of another size
than 64 x 64 is none of these, and is left out.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from attengait.datasets.masks import check_silhouettes
from attengait.datasets.pictures import read_gray, why_unreadable
from attengait.datasets.source import SILHOUETTES, Fault, Scan, SourceSequence
from attengait.preprocessing.recipe import Picture, check_limits, gather, with_parts
from attengait.store.shards import MadeSequence
from attengait.store.skipped import Reason


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadySilhouetteRecipe:
    """How ready silhouettes are kept (a Recipe)."""

    modality: ClassVar[str] = "silhouette"
    encoding: ClassVar[str] = "gray"
    needs: ClassVar[tuple[str, ...]] = (SILHOUETTES,)
    flow: ClassVar[str | None] = None
    packages: ClassVar[tuple[str, ...]] = ()

    name: str = "ready-silhouette"
    version: int = 1
    size: int = 64
    """Height and width of a silhouette, in pixels."""
    min_frames: int = 5
    """A sequence with fewer pictures is left out."""

    def __post_init__(self) -> None:
        check_limits(self.size, 0, self.min_frames)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """See Recipe."""
        return self.size, self.size, 1

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
        """One for each silhouette."""
        return sequence.silhouettes.max_images

    def make(self, sequence: SourceSequence) -> MadeSequence:
        """See Recipe."""
        faults: list[Fault] = []
        numbers, frames = [], []
        for number, path in sequence.silhouettes.by_number.items():
            frame = read_gray(path)
            if frame is None:
                faults.append(Fault(Reason.UNREADABLE_PICTURE, number, path, why_unreadable(path)))
            elif frame.shape != (self.size, self.size):
                size = f"{frame.shape[1]} x {frame.shape[0]}"
                detail = f"it has {size} pixels, but ready silhouettes must have {self.size} x {self.size}"
                faults.append(Fault(Reason.WRONG_SIZE, number, path, detail))
            else:
                numbers.append(number)
                frames.append(frame)
        pictures = []
        if frames:
            found: list[Fault] = []
            outlines, places = check_silhouettes(np.stack(frames), found)
            faults += [fault._replace(number=numbers[fault.number - 1]) for fault in found]
            pictures = [Picture(numbers[place - 1], outlines[place - 1][..., None]) for place in places]
        return gather(pictures, faults, sequence, self.frame_shape, self.min_frames)
