"""Silhouettes alone: from the silhouettes of one sequence to their crops, uint8 [64, 64, 1], without any flow.

The crop is that of the flow images (`attengait.preprocessing.flow`): a silhouette and the flow image of the same frame
lie over each other. Every frame with a walker gives a picture. No neighbour is needed, so missing numbers do not
matter. Each silhouette is cropped by itself, so their sizes may differ.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.pictures import read_gray
from attengait.datasets.source import SourceSequence
from attengait.kernels.pictures.crop import has_walker
from attengait.kernels.pictures.encode import encode_silhouette
from attengait.preprocessing.images import EMPTY, UNREADABLE, Fault, SequenceResult, check_limits, gather


@dataclass(frozen=True, kw_only=True, slots=True)
class SilhouetteRecipe:
    """How crops of silhouettes are made. Everything here changes the result and is recorded in the store."""

    modality: ClassVar[str] = "silhouette"
    encoding: ClassVar[str] = "gray"

    name: str = "attengait-silhouette"
    version: int = 1
    crop_size: int = 64
    """Height and width of a picture, in pixels."""
    silhouette_threshold: int = 10_000
    """A frame whose silhouette's values sum to this or less is left out."""
    min_frames: int = 5
    """A sequence with fewer pictures is left out."""

    def __post_init__(self) -> None:
        check_limits(self.crop_size, self.silhouette_threshold, self.min_frames)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        return self.crop_size, self.crop_size, 1

    @property
    def attributes(self) -> dict[str, Any]:
        """What a store records: modality, encoding, and every parameter as plain values."""
        return {"modality": self.modality, "encoding": self.encoding, "recipe": asdict(self)}

    def max_images(self, sequence: SourceSequence) -> int:
        """Return how many pictures can result from a sequence at most: one for each silhouette."""
        return len(sequence.silhouettes.names)

    def images(self, sequence: SourceSequence) -> SequenceResult:
        """Return the pictures of one sequence and what was left out of it; bad input never raises."""
        faults: list[Fault] = []
        return gather(self._numbered_images(sequence, faults), faults, self.frame_shape, self.min_frames)

    def _numbered_images(
        self, sequence: SourceSequence, faults: list[Fault]
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for number, path in sequence.silhouettes.by_number.items():
            silhouette = read_gray(path)
            if silhouette is None:
                faults.append(Fault(UNREADABLE, number, path))
            elif not has_walker(silhouette, self.silhouette_threshold):
                faults.append(Fault(EMPTY, number))
            else:
                yield number, encode_silhouette(silhouette, self.crop_size)
