"""Silhouettes alone: from the silhouettes of one sequence to their crops, uint8 [64, 64, 1], without any flow.

The crop is that of the flow images (`attengait.preprocessing.flow`): a silhouette and the flow image of the same frame
lie over each other. Every frame with a walker gives a picture. No neighbour is needed, so missing numbers do not
matter. Each silhouette is cropped by itself, so their sizes may differ.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from attengait.datasets.masks import LEVEL, check_level, read_silhouette
from attengait.datasets.source import SILHOUETTES, Fault, Scan, SourceSequence
from attengait.kernels.pictures.crop import has_walker
from attengait.kernels.pictures.encode import encode_silhouette
from attengait.preprocessing.recipe import Picture, check_limits, gather, with_parts, without_defaults
from attengait.store.shards import MadeSequence
from attengait.store.skipped import Reason


@dataclass(frozen=True, kw_only=True, slots=True)
class SilhouetteRecipe:
    """How crops of silhouettes are made (a Recipe).

    Raises ParameterError for a value out of range.

    >>> attengait.SilhouetteRecipe(min_frames=15).frame_shape
    (64, 64, 1)
    """

    modality: ClassVar[str] = "silhouette"
    encoding: ClassVar[str] = "gray"
    needs: ClassVar[tuple[str, ...]] = (SILHOUETTES,)
    flow: ClassVar[str | None] = None
    packages: ClassVar[tuple[str, ...]] = ()

    name: str = "attengait-silhouette"
    version: int = 1
    crop_size: int = 64
    """Height and width of a picture, in pixels."""
    silhouette_threshold: int = 10_000
    """A frame whose silhouette's values sum to this or less is left out."""
    silhouette_level: float = LEVEL
    """Where between background (0) and person (1) grey levels of a silhouette begin to be the person. Silhouettes of
    two values do not depend on it."""
    min_frames: int = 5
    """A sequence with fewer pictures is left out."""

    def __post_init__(self) -> None:
        check_level(self.silhouette_level)
        check_limits(self.crop_size, self.silhouette_threshold, self.min_frames)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """See Recipe."""
        return self.crop_size, self.crop_size, 1

    @property
    def attributes(self) -> dict[str, Any]:
        """See Recipe."""
        return {"modality": self.modality, "encoding": self.encoding, "recipe": without_defaults(asdict(self))}

    def check(self) -> None:
        """See Recipe; crops can be made everywhere."""

    def fit(self, scan: Scan) -> tuple[Self, Scan]:
        """See Recipe."""
        return self, with_parts(scan, self.needs)

    def max_pictures(self, sequence: SourceSequence) -> int:
        """One for each silhouette."""
        return len(sequence.silhouettes.names)

    def make(self, sequence: SourceSequence) -> MadeSequence:
        """See Recipe."""
        faults: list[Fault] = []
        return gather(self._pictures(sequence, faults), faults, sequence, self.frame_shape, self.min_frames)

    def _pictures(self, sequence: SourceSequence, faults: list[Fault]) -> Iterator[Picture]:
        for number, path in sequence.silhouettes.by_number.items():
            silhouette = read_silhouette(path, number, faults, level=self.silhouette_level)
            if silhouette is None:
                continue
            if has_walker(silhouette, self.silhouette_threshold):
                yield Picture(number, encode_silhouette(silhouette, self.crop_size))
            else:
                faults.append(Fault(Reason.SILHOUETTE_EMPTY, number))
