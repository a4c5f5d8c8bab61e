"""The published recipe for CASIA-B: from the frames and silhouettes of one sequence to its flow images.

Flow is computed over the whole frame and, for colours, normalised by the largest motion of the frame. Only then the
walker is cut out. This order belongs to the recipe; other published recipes crop first. A flow image is uint8
[64, 64, C]: colours (R, G, B) as published, or another encoding (`attengait.kernels.pictures.encode`). It belongs to
the second frame of its pair.

`SilhouetteFlowRecipe` puts the crop of the silhouette before the channels of the flow: [64, 64, 1 + C].
"""

from collections.abc import Callable, Iterator, Set
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.masks import LEVEL, check_level, read_silhouette
from attengait.datasets.numbering import check_offset, shifted
from attengait.datasets.pictures import read_one_by_one
from attengait.datasets.reading import FrameSizes, read_frames, read_with_the_size_of_most
from attengait.datasets.source import FRAMES, SILHOUETTES, Fault, Frame, Gray, ReadGrays, Scan, SourceSequence
from attengait.errors import ParameterError
from attengait.kernels.flow.backends import (
    BACKENDS,
    FarnebackParameters,
    FlowBackend,
    check_backend,
    check_farneback,
    make_backend,
    recorded_parameters,
)
from attengait.kernels.pictures.crop import has_walker
from attengait.kernels.pictures.encode import ENCODINGS, check_encoding, encode_silhouette
from attengait.preprocessing.recipe import Picture, check_limits, gather, with_parts, without_defaults
from attengait.store.description import flow_channels
from attengait.store.shards import MadeSequence
from attengait.store.skipped import Reason

Gap = Literal["skip", "bridge"]

BLOCK_FRAMES = 32
"""Flow images of a block: bounds the memory of a long sequence."""
_LOWER_RATE = 1.8
"""Frames for each number up to the last silhouette: with so many, silhouettes may be of every second frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Some frames of a sequence and those pairs of them that give a flow image: what a flow back end takes."""

    grays: list[Gray]
    """uint8 [H, W] each, of one size."""
    pairs: list[tuple[int, int]]
    """Indices into `grays`."""
    silhouettes: list[Gray]
    """For each pair that of its second frame, of the same size and not empty."""
    numbers: list[int]
    """For each pair the number of its second frame."""
    times_seconds: list[float | None]
    """For each pair the time of its second frame; None where there is no video."""

    def name(self, pictures: NDArray[np.uint8]) -> Iterator[Picture]:
        """The pictures of the pairs [P, H, W, C] with their numbers and times."""
        for number, pixels, time in zip(self.numbers, pictures, self.times_seconds, strict=True):
            yield Picture(number, pixels, time)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowRecipe:
    """How flow images are made (a Recipe).

    Raises ParameterError for a value out of range.

    >>> attengait.FlowRecipe(encoding="uv").frame_shape
    (64, 64, 2)
    """

    modality: ClassVar[str] = "flow"
    needs: ClassVar[tuple[str, ...]] = (FRAMES, SILHOUETTES)

    name: str = "attengait-casia-b"
    version: int = 1
    flow: str = "opencv"
    """Flow back end, one of `attengait.kernels.flow.backends.BACKENDS`."""
    farneback: FarnebackParameters = field(default_factory=FarnebackParameters)
    """For the back ends that compute Farneback's flow, which are all but nvof."""
    crop_size: int = 64
    """Height and width of a flow image, in pixels."""
    silhouette_threshold: int = 10_000
    """A frame whose silhouette's values sum to this or less is left out."""
    silhouette_level: float = LEVEL
    """Where between background (0) and person (1) grey levels of a silhouette begin to be the person. Silhouettes of
    two values do not depend on it."""
    silhouette_offset: int | None = None
    """Added to the numbers of the silhouettes. None is 0, but refuses silhouettes and frames that begin with different
    ones of the numbers 0 and 1."""
    gap: Gap = "skip"
    """Across missing frame numbers: no flow ("skip") or the flow between the neighbours ("bridge", as published)."""
    min_frames: int = 5
    """A sequence with fewer flow images is left out."""
    encoding: str = "colour"
    """How flow is stored, one of `attengait.kernels.pictures.encode.ENCODINGS`."""

    def __post_init__(self) -> None:
        check_backend(self.flow)
        if self.farneback != FarnebackParameters():
            check_farneback(self.flow)
        check_limits(self.crop_size, self.silhouette_threshold, self.min_frames)
        check_level(self.silhouette_level)
        check_offset(self.silhouette_offset)
        if self.gap not in get_args(Gap):
            raise ParameterError(f"gap is {self.gap!r}, but must be skip or bridge")
        check_encoding(self.encoding)

    @property
    def packages(self) -> tuple[str, ...]:
        """See Recipe."""
        return BACKENDS[self.flow].packages

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """See Recipe."""
        return self.crop_size, self.crop_size, ENCODINGS[self.encoding].channels

    @property
    def attributes(self) -> dict[str, Any]:
        """See Recipe."""
        return {
            "modality": self.modality,
            "encoding": self.encoding,
            **ENCODINGS[self.encoding].attributes,
            "recipe": self.to_dict(),
        }

    def to_dict(self) -> dict[str, Any]:
        """Every parameter as plain values, as they are recorded in a store.

        Raises AttenGaitError where the flow back end's own ones depend on a device that cannot be used.
        """
        plain = asdict(self)
        del plain["farneback"]
        return without_defaults(plain) | recorded_parameters(self.flow, self.farneback)

    def check(self) -> None:
        """See Recipe."""
        make_backend(self.flow, self.farneback)

    def fit(self, scan: Scan) -> tuple[Self, Scan]:
        """See Recipe."""
        return self, shifted(with_parts(scan, self.needs), self.silhouette_offset)

    def max_pictures(self, sequence: SourceSequence) -> int:
        """One for each frame with a silhouette, but the first."""
        return max(0, len(sequence.frames.matching(sequence.silhouettes.by_number)) - 1)

    def make(self, sequence: SourceSequence) -> MadeSequence:
        """See Recipe.

        A frame that cannot be read, or that has another size than most, is dropped like a missing number. If a
        silhouette has such a fault, only the flow image of its own frame is left out. A sequence with too few flow
        images is left out.
        """
        backend = make_backend(self.flow, self.farneback)

        def attempt(sizes: FrameSizes) -> MadeSequence:
            faults: list[Fault] = []
            blocks = self.read_blocks(sequence, faults, sizes)
            pictures = (picture for block in blocks for picture in block.name(self.pictures(block, backend)))
            return gather(pictures, faults, sequence, self.frame_shape, self.min_frames)

        return read_with_the_size_of_most(attempt)

    def pictures(self, block: Block, backend: FlowBackend) -> NDArray[np.uint8]:
        """The stored pictures of a block's pairs, uint8 [P, *frame_shape]."""
        return self.begin(block, backend)()

    def begin(self, block: Block, backend: FlowBackend) -> Callable[[], NDArray[np.uint8]]:
        """Start on what `pictures` returns, and return what waits for it. Until then the block must not change."""
        return backend.begin(block.grays, block.pairs, block.silhouettes, self.encoding, self.crop_size)

    def read_blocks(
        self,
        sequence: SourceSequence,
        faults: list[Fault],
        sizes: FrameSizes,
        *,
        read_grays: ReadGrays = read_one_by_one,
    ) -> Iterator[Block]:
        """Yield all of a sequence from which flow images can be made, noting in `faults` what is left out and why.

        A block holds the frames of at most BLOCK_FRAMES images. `read_grays` reads the frames that are pictures.
        """
        silhouettes = sequence.silhouettes.by_number
        present: set[int] = set()
        good: list[Frame] = []
        for frame in read_frames(sequence.frames, silhouettes.keys(), faults, sizes=sizes, read_grays=read_grays):
            present.add(frame.number)
            if frame.gray is not None:
                good.append(frame)
            if len(good) > BLOCK_FRAMES:
                yield from self._block(good, silhouettes, faults)
                del good[:-1]  # the last frame of one block is the first of the next
        yield from self._block(good, silhouettes, faults)
        faults += _without_match(present, silhouettes.keys(), self.gap)

    def _block(self, good: list[Frame], silhouettes: dict[int, str], faults: list[Fault]) -> Iterator[Block]:
        """Yield the block of some frames, unless no neighbours among them give a flow image."""
        grays = [frame.gray for frame in good if frame.gray is not None]
        block = Block(grays=grays, pairs=[], silhouettes=[], numbers=[], times_seconds=[])
        for i in range(1, len(good)):
            number = good[i].number
            if self.gap == "skip" and good[i - 1].number != number - 1:
                continue
            path, level = silhouettes[number], self.silhouette_level
            silhouette = read_silhouette(path, number, faults, level=level, frame_shape=grays[i].shape)
            if silhouette is None:
                continue
            if not has_walker(silhouette, self.silhouette_threshold):
                faults.append(Fault(Reason.SILHOUETTE_EMPTY, number))
                continue
            block.pairs.append((i - 1, i))
            block.silhouettes.append(silhouette)
            block.numbers.append(number)
            block.times_seconds.append(good[i].time_seconds)
        if block.pairs:
            yield block


@dataclass(frozen=True, kw_only=True, slots=True)
class SilhouetteFlowRecipe(FlowRecipe):
    """How pictures of both are made: channel 0 is the crop of the silhouette, the others are the flow image.

    Both are cut at the same place. There is a picture where there is a flow image.

    >>> attengait.SilhouetteFlowRecipe().frame_shape
    (64, 64, 4)
    """

    modality: ClassVar[str] = "silhouette+flow"

    name: str = "attengait-silhouette+flow"

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """See Recipe."""
        return self.crop_size, self.crop_size, 1 + ENCODINGS[self.encoding].channels

    @property
    def attributes(self) -> dict[str, Any]:
        """See Recipe; `channels` names the channels."""
        return {
            **FlowRecipe.attributes.fget(self),  # type: ignore[attr-defined]
            "encoding": f"gray+{self.encoding}",
            "channels": ["silhouette", *flow_channels(self.encoding)],
        }

    def begin(self, block: Block, backend: FlowBackend) -> Callable[[], NDArray[np.uint8]]:
        """See FlowRecipe."""
        wait = FlowRecipe.begin(self, block, backend)
        outlines = np.stack([encode_silhouette(silhouette, self.crop_size) for silhouette in block.silhouettes])
        return lambda: np.concatenate([outlines, wait()], axis=-1)


def _without_match(frames: Set[int], silhouettes: Set[int], gap: Gap) -> list[Fault]:
    """What to say of the numbers that have only a frame or only a silhouette.

    Silhouettes of every second frame that were numbered anew end half way: then this is said of the frames after them.
    """
    first, last, end = min(frames, default=0), max(frames, default=0), max(silhouettes, default=0)
    detail = ""
    if first <= end and last - first + 1 >= _LOWER_RATE * (end - first + 1):
        detail = (
            f"the silhouettes end with number {end}, and the frames with {last}: if silhouettes were made of fewer "
            "frames a second, give each the number of its frame"
        )
    missing = _missing_numbers(frames, silhouettes, gap)
    after = [number for number in missing if detail and number > end]
    return [Fault(Reason.NO_MATCH, number) for number in missing[: len(missing) - len(after)]] + [
        Fault(Reason.SILHOUETTES_END, number, detail=detail) for number in after
    ]


def _missing_numbers(frames: Set[int], silhouettes: Set[int], gap: Gap) -> list[int]:
    """Return the numbers that have only a frame or only a silhouette. If a gap costs an image, also the missing
    number before it."""
    missing = frames ^ silhouettes
    if gap == "skip":
        both = sorted(frames & silhouettes)
        missing |= {number - 1 for number in both[1:]} - (frames | silhouettes)
    return sorted(missing)
