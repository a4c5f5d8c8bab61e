"""The published recipe for CASIA-B: from the frames and silhouettes of one sequence to its flow images.

Flow is computed over the whole frame and, for colours, normalised by the frame's largest motion; only then is the
walker cut out. The order is a property of the recipe (other published recipes crop first). A flow image is uint8
[64, 64, C], colours (R, G, B) as published or another encoding (`attengait.kernels.pictures.encode`). It belongs to the
second frame of its pair.
"""

from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.pictures import read_gray
from attengait.datasets.reading import Gray, ReadGrays, read_frames, read_one_by_one
from attengait.datasets.source import SourceSequence
from attengait.errors import ParameterError
from attengait.kernels.flow.backends import (
    FarnebackParameters,
    check_backend,
    check_farneback,
    make_backend,
    recorded_parameters,
)
from attengait.kernels.pictures.crop import has_walker
from attengait.kernels.pictures.encode import ENCODINGS, check_encoding
from attengait.preprocessing.images import (
    EMPTY,
    NO_MATCH,
    UNREADABLE,
    WRONG_SIZE,
    Fault,
    SequenceResult,
    check_limits,
    gather,
)

Gap = Literal["skip", "bridge"]

BLOCK_FRAMES = 32
"""Flow images of a block: bounds the memory of a long sequence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Some frames of a sequence and those pairs of them that give a flow image: what a flow backend takes."""

    grays: list[Gray]
    """uint8 [H, W] each, of one size."""
    pairs: list[tuple[int, int]]
    """Indices into `grays`."""
    silhouettes: list[Gray]
    """For each pair that of its second frame, of the same size and not empty."""
    numbers: list[int]
    """For each pair the number of its second frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How flow images are made. Everything here changes the result and is recorded in the store."""

    modality: ClassVar[str] = "flow"

    name: str = "attengait-casia-b"
    version: int = 1
    flow: str = "opencv"
    """Flow backend, one of `attengait.kernels.flow.backends.BACKENDS`."""
    farneback: FarnebackParameters = field(default_factory=FarnebackParameters)
    """For the backends that compute Farneback's flow, which are all but nvof."""
    crop_size: int = 64
    """Height and width of a flow image, in pixels."""
    silhouette_threshold: int = 10_000
    """A frame whose silhouette's values sum to this or less is left out."""
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
        if self.gap not in get_args(Gap):
            raise ParameterError(f"gap must be skip or bridge, got {self.gap!r}")
        check_encoding(self.encoding)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a flow image."""
        return self.crop_size, self.crop_size, ENCODINGS[self.encoding].channels

    @property
    def attributes(self) -> dict[str, Any]:
        """What a store records: modality, encoding with what decodes it, and the parameters."""
        return {
            "modality": self.modality,
            "encoding": self.encoding,
            **ENCODINGS[self.encoding].attributes,
            "recipe": self.to_dict(),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return every parameter as plain values, as they are recorded in a store.

        Raises AttenGaitError where the flow backend's own ones depend on a device that cannot be used.
        """
        plain = asdict(self)
        del plain["farneback"]
        return plain | recorded_parameters(self.flow, self.farneback)

    def max_images(self, sequence: SourceSequence) -> int:
        """Return how many flow images can result from a sequence at most."""
        return sequence.max_images

    def images(self, sequence: SourceSequence) -> SequenceResult:
        """Return the flow images of one sequence: see `flow_images`."""
        return flow_images(sequence, self)


def flow_images(sequence: SourceSequence, recipe: Recipe) -> SequenceResult:
    """Return the flow images of one sequence and what was left out of it; bad input never raises.

    A frame that cannot be read, or whose size is not that of the first readable one, is dropped like a missing number.
    A silhouette of that kind costs the flow image of its own frame only. A sequence with too few flow images gives
    none.
    """
    faults: list[Fault] = []
    backend = make_backend(recipe.flow, recipe.farneback)

    def numbered_images() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for block in read_blocks(sequence, recipe, faults):
            images = backend.pictures(block.grays, block.pairs, block.silhouettes, recipe.encoding, recipe.crop_size)
            yield from zip(block.numbers, images, strict=True)

    return gather(numbered_images(), faults, recipe.frame_shape, recipe.min_frames)


def read_blocks(
    sequence: SourceSequence, recipe: Recipe, faults: list[Fault], *, read_grays: ReadGrays = read_one_by_one
) -> Iterator[Block]:
    """Yield all of a sequence from which flow images can be made, noting in `faults` what is left out and why.

    A block holds the frames of at most BLOCK_FRAMES images. `read_grays` reads the frames that are pictures.
    """
    silhouettes = sequence.silhouettes.by_number
    present: set[int] = set()
    good: list[tuple[int, Gray]] = []
    for number, gray in read_frames(sequence.frames, silhouettes.keys(), faults, read_grays=read_grays):
        present.add(number)
        if gray is not None:
            good.append((number, gray))
        if len(good) > BLOCK_FRAMES:
            yield from _block(good, silhouettes, recipe, faults)
            del good[:-1]  # the last frame of one block is the first of the next
    yield from _block(good, silhouettes, recipe, faults)
    faults += [Fault(NO_MATCH, number) for number in _missing_numbers(present, silhouettes.keys(), recipe.gap)]


def _block(
    good: list[tuple[int, Gray]], silhouettes: dict[int, str], recipe: Recipe, faults: list[Fault]
) -> Iterator[Block]:
    """Yield the block of some numbered frames, unless no neighbours among them give a flow image."""
    pairs, outlines, numbers = [], [], []
    for i in range(1, len(good)):
        number, gray = good[i]
        if recipe.gap == "skip" and good[i - 1][0] != number - 1:
            continue
        silhouette = _read(silhouettes[number], gray.shape, number, faults)
        if silhouette is None:
            continue
        if not has_walker(silhouette, recipe.silhouette_threshold):
            faults.append(Fault(EMPTY, number))
            continue
        pairs.append((i - 1, i))
        outlines.append(silhouette)
        numbers.append(number)
    if pairs:
        yield Block(grays=[gray for _, gray in good], pairs=pairs, silhouettes=outlines, numbers=numbers)


def _missing_numbers(frames: Set[int], silhouettes: Set[int], gap: Gap) -> list[int]:
    """Return the numbers on one side only and, where a gap costs an image, those before a frame that are on neither."""
    missing = frames ^ silhouettes
    if gap == "skip":
        both = sorted(frames & silhouettes)
        missing |= {number - 1 for number in both[1:]} - (frames | silhouettes)
    return sorted(missing)


def _read(path: str, shape: tuple[int, ...], number: int, faults: list[Fault]) -> NDArray[np.uint8] | None:
    """Read a silhouette of the given shape [H, W], or note what is wrong with it and return None."""
    picture = read_gray(path)
    if picture is None:
        faults.append(Fault(UNREADABLE, number, path))
    elif picture.shape != shape:
        faults.append(Fault(WRONG_SIZE, number, path))
        return None
    return picture
