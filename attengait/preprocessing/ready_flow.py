"""Flow images that a data set distributes ready-made, as GREW and OUMVLP-OF do: they are kept as they are.

An image of another size is resized to 64 x 64, GREW's by cubic and OUMVLP's by linear interpolation, as published.
Nothing is cut out and no silhouette is needed. Channels are red, green and blue. (The published program kept those of
GREW and OUMVLP as OpenCV reads them: blue, green and red.)
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.datasets.source import FLOW, Fault, FlowPart, Scan, SourceSequence
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
    """Interpolation of images of another size, a key of INTERPOLATIONS."""
    min_frames: int = 5
    """A sequence with fewer pictures is left out."""
    lossy: bool = False
    """Whether some of the colours come from a video that changed them; settled by `fit`."""

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
        scan = with_parts(scan, self.needs)
        return replace(self, lossy=any(_flow_of(sequence).is_lossy for sequence in scan.sequences)), scan

    def max_pictures(self, sequence: SourceSequence) -> int:
        """One for each image."""
        return _flow_of(sequence).max_images

    def make(self, sequence: SourceSequence) -> MadeSequence:
        """See Recipe."""
        faults: list[Fault] = []
        return gather(self._pictures(sequence, faults), faults, sequence, self.frame_shape, self.min_frames)

    def _pictures(self, sequence: SourceSequence, faults: list[Fault]) -> Iterator[Picture]:
        part = _flow_of(sequence)
        for number, pixels, seconds in part.read_flow(faults):
            if not part.is_lossy and _is_grey(pixels):
                faults.append(Fault(Reason.FLOW_GREY, number, detail="no pixel of it has a colour"))
                continue
            if pixels.shape[:2] != (self.size, self.size):
                pixels = cv2.resize(pixels, (self.size, self.size), interpolation=INTERPOLATIONS[self.resize])
            yield Picture(number, pixels, seconds)


def _flow_of(sequence: SourceSequence) -> FlowPart:
    found: FlowPart = sequence.parts[FLOW]
    return found


def _is_grey(pixels: NDArray[np.uint8]) -> bool:
    """Whether a picture is one of grey levels, such as a silhouette. A single level is flow: nothing moves."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    return bool(np.array_equal(red, green) and np.array_equal(red, blue) and red.min() < red.max())
