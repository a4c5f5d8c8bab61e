"""The published recipe for CASIA-B: from the frames and silhouettes of one sequence to its flow images.

Flow is computed over the whole frame and normalised by the frame's largest motion; only then is the walker cut out. The
order is a property of the recipe (other published recipes crop first). A flow image is uint8 [64, 64, 3] in the order
R, G, B and belongs to the second frame of its pair.
"""

from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.pictures import read_gray
from attengait.datasets.source import SourceSequence
from attengait.errors import ParameterError
from attengait.images import EMPTY, NO_MATCH, UNREADABLE, WRONG_SIZE, Fault, SequenceResult, gather
from attengait.kernels.encode import ENCODINGS, check_encoding, encode
from attengait.kernels.flow import FarnebackParameters, check_backend, make_backend
from attengait.kernels.silhouette import has_walker

Gap = Literal["skip", "bridge"]

BLOCK_FRAMES = 32
"""Frames decoded at a time: bounds the memory of a long sequence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How flow images are made. Everything here changes the result and is recorded in the store."""

    name: str = "attengait-casia-b"
    version: int = 1
    flow: str = "opencv"
    """Flow backend, one of `attengait.kernels.flow.BACKENDS`."""
    farneback: FarnebackParameters = field(default_factory=FarnebackParameters)
    crop_size: int = 64
    """Height and width of a flow image, in pixels."""
    silhouette_threshold: int = 10_000
    """A frame whose silhouette's values sum to this or less is left out."""
    gap: Gap = "skip"
    """Across missing frame numbers: no flow ("skip") or the flow between the neighbours ("bridge", as published)."""
    min_frames: int = 5
    """A sequence with fewer flow images is left out."""
    encoding: str = "colour"
    """How flow is stored, one of `attengait.kernels.encode.ENCODINGS`."""

    def __post_init__(self) -> None:
        check_backend(self.flow)
        for name, least in (("crop_size", 2), ("silhouette_threshold", 0), ("min_frames", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ParameterError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.crop_size % 2:
            raise ParameterError(f"crop_size must be even, got {self.crop_size}")
        if self.gap not in get_args(Gap):
            raise ParameterError(f"gap must be skip or bridge, got {self.gap!r}")
        check_encoding(self.encoding)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a flow image."""
        return self.crop_size, self.crop_size, ENCODINGS[self.encoding].channels

    def to_dict(self) -> dict[str, Any]:
        """Return every parameter as plain values, as they are recorded in a store."""
        return asdict(self)


def flow_images(sequence: SourceSequence, recipe: Recipe) -> SequenceResult:
    """Return the flow images of one sequence and what was left out of it; bad input never raises.

    A frame that cannot be read, or whose size is not that of the first readable one, is dropped like a missing number.
    A silhouette of that kind costs the flow image of its own frame only. A sequence with too few flow images gives
    none.
    """
    faults: list[Fault] = []
    return gather(_numbered_images(sequence, recipe, faults), faults, recipe.frame_shape, recipe.min_frames)


def _numbered_images(
    sequence: SourceSequence, recipe: Recipe, faults: list[Fault]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    frames, silhouettes = sequence.frames.by_number, sequence.silhouettes.by_number
    numbers = sorted(frames.keys() & silhouettes.keys())
    faults += [(NO_MATCH, number, None) for number in _missing_numbers(frames.keys(), silhouettes.keys(), recipe.gap)]
    last: tuple[int, NDArray[np.uint8]] | None = None
    for start in range(0, len(numbers), BLOCK_FRAMES):
        # The last good frame of one block is the first of the next.
        good = [last] if last is not None else []
        for number in numbers[start : start + BLOCK_FRAMES]:
            shape = good[0][1].shape if good else None
            gray = _read(frames[number], shape, number, faults)
            if gray is not None:
                good.append((number, gray))
        if good:
            last = good[-1]
            yield from _block_images(good, silhouettes, recipe, faults)


def _block_images(
    good: list[tuple[int, NDArray[np.uint8]]], silhouettes: dict[int, str], recipe: Recipe, faults: list[Fault]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the flow images of neighbours among numbered frames; only flow that gives an image is computed."""
    pairs, wanted = [], []
    for i in range(1, len(good)):
        number, gray = good[i]
        if recipe.gap == "skip" and good[i - 1][0] != number - 1:
            continue
        silhouette = _read(silhouettes[number], gray.shape, number, faults)
        if silhouette is None:
            continue
        if not has_walker(silhouette, recipe.silhouette_threshold):
            faults.append((EMPTY, number, None))
            continue
        pairs.append((i - 1, i))
        wanted.append((number, silhouette))
    flows = make_backend(recipe.flow, recipe.farneback).flows([gray for _, gray in good], pairs)
    for (number, silhouette), flow in zip(wanted, flows, strict=True):
        yield number, encode(flow, silhouette, recipe.encoding, recipe.crop_size)


def _missing_numbers(frames: Set[int], silhouettes: Set[int], gap: Gap) -> list[int]:
    """Return the numbers on one side only and, where a gap costs an image, those before a frame that are on neither."""
    missing = frames ^ silhouettes
    if gap == "skip":
        both = sorted(frames & silhouettes)
        missing |= {number - 1 for number in both[1:]} - (frames | silhouettes)
    return sorted(missing)


def _read(path: str, shape: tuple[int, ...] | None, number: int, faults: list[Fault]) -> NDArray[np.uint8] | None:
    """Read a picture of the given shape [H, W] (any if None), or note what is wrong with it and return None."""
    picture = read_gray(path)
    if picture is None:
        faults.append((UNREADABLE, number, path))
    elif shape is not None and picture.shape != shape:
        faults.append((WRONG_SIZE, number, path))
        return None
    return picture
