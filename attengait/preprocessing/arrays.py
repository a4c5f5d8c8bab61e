"""The recipe for files of other programs: their arrays as they are, one sequence for each file.

A store keeps frames of one size, so the size that most files have is the store's. What the pictures show is taken from
the file that `export` leaves beside its pickles, or told by the caller.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from attengait.datasets.arrays import FileError, as_two_values, picture_shape, to_frames, widened
from attengait.datasets.files import skipped_file
from attengait.datasets.inputs import require_readable
from attengait.datasets.masks import check_silhouettes
from attengait.datasets.source import ARRAY, Fault, Scan, SourceSequence
from attengait.preprocessing.recipe import Picture, gather, with_parts
from attengait.store.description import describe
from attengait.store.shards import MadeSequence
from attengait.store.skipped import NothingMadeError, Reason, Skipped

SILHOUETTE_FIRST = ("silhouette", "silhouette+flow")
"""Modalities whose first channel is the silhouette."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayRecipe:
    """How arrays become frames (a Recipe). `fit` settles what it takes from the files themselves."""

    needs: ClassVar[tuple[str, ...]] = (ARRAY,)
    flow: ClassVar[str | None] = None
    packages: ClassVar[tuple[str, ...]] = ()

    dataset: str | None = None
    """Name that the store gives; by default what was exported, or "imported"."""
    shows: str | None = None
    """The modality, a key of `attengait.store.description.MODALITIES`; by default what was exported, or what the
    channels say."""
    encoding: str | None = None
    """How flow is stored, a key of `ENCODINGS`; by default what was exported, or colour."""
    pad: bool = True
    """Whether frames narrower than high get columns of zeros on both sides."""

    frame_shape: tuple[int, int, int] = (0, 0, 0)
    """Height, width and channels; settled by `fit`."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """See Recipe; settled by `fit`."""

    @property
    def modality(self) -> str:
        """See Recipe."""
        return str(self.attributes.get("modality", self.shows))

    def check(self) -> None:
        """See Recipe; arrays can be read everywhere."""

    def fit(self, scan: Scan) -> tuple[Self, Scan]:
        """See Recipe. Files that hold no frames, or frames of another size than most, are skipped."""
        scan = with_parts(scan, self.needs)
        skipped, shapes = list(scan.skipped), {}
        for sequence in scan.sequences:
            try:
                shapes[sequence.name] = picture_shape(sequence.array.shape, pad=self.pad)
            except FileError as error:
                skipped.append(skipped_file(sequence.name, sequence.array.where, error))
        if not shapes:
            why = f": {skipped[-1].detail}" if skipped else ""
            raise NothingMadeError(f"no file holds frames{why}", skipped)
        (frame_shape, _), *_ = Counter(shapes.values()).most_common(1)
        fitting = []
        for sequence in scan.sequences:
            if shapes.get(sequence.name) == frame_shape:
                fitting.append(sequence)
            elif sequence.name in shapes:
                skipped.append(_wrong_size(sequence, shapes[sequence.name], frame_shape))
        settled = replace(self, frame_shape=frame_shape, attributes=self._attributes(scan, frame_shape[2]))
        turned = [sequence for sequence in fitting if settled._is_turned(sequence)]
        if turned:
            settled.attributes["recipe"]["turned_to_red_green_blue"] = len(turned)
            detail = f"{len(turned)} files have names of GREW or OUMVLP, whose flow the published program keeps so"
            skipped.append(Skipped(reason=Reason.BLUE_FIRST, where=turned[0].name, detail=detail))
        return settled, replace(scan, sequences=tuple(fitting), skipped=tuple(skipped))

    def max_pictures(self, sequence: SourceSequence) -> int:
        """As many as the array holds."""
        return int(sequence.array.shape[0])

    def make(self, sequence: SourceSequence) -> MadeSequence:
        """See Recipe. Pictures are numbered from 1, by their place in the file: files of this kind hold no numbers.

        Where the first channel is the silhouette, it must be one; its grey edges are kept.
        """
        try:
            array = sequence.array.read()
            frames = to_frames(as_two_values(array) if self.modality == "silhouette" else array, pad=False)
            height, width, channels = picture_shape(frames.shape, pad=self.pad)
        except FileError as error:
            require_readable(sequence.array.where)
            return self._nothing(skipped_file(sequence.name, sequence.array.where, error))
        if (height, width, channels) != self.frame_shape:
            return self._nothing(_wrong_size(sequence, (height, width, channels), self.frame_shape))
        if self._is_turned(sequence):
            frames = frames[..., ::-1]
        faults: list[Fault] = []
        numbers = list(range(1, len(frames) + 1))
        if self.modality in SILHOUETTE_FIRST:
            outlines, numbers = check_silhouettes(frames[..., 0], faults)
            frames = np.concatenate([outlines[..., None], frames[..., 1:]], axis=-1)
        frames = widened(frames, width)
        pictures = (Picture(number, frames[number - 1]) for number in numbers)
        return gather(pictures, faults, sequence, self.frame_shape, min_frames=1)

    def _is_turned(self, sequence: SourceSequence) -> bool:
        """Whether its channels become red, green, blue."""
        is_colour = (self.modality, self.attributes["encoding"]) == ("flow", "colour")
        return is_colour and sequence.array.blue_first

    def _attributes(self, scan: Scan, channels: int) -> dict[str, Any]:
        exported = scan.description
        description = describe(
            channels, dataset=self.dataset, modality=self.shows, encoding=self.encoding, exported=exported
        )
        recipe = {**scan.recorded, "pad": "square" if self.pad else "none"}
        if exported is not None and exported.content_sha256 is not None:
            recipe["exported_recipe"] = exported.recipe
        return {**description.attributes, "recipe": recipe}

    def _nothing(self, skipped: Skipped) -> MadeSequence:
        nothing = np.empty((0, *self.frame_shape), np.uint8)
        return MadeSequence(pictures=nothing, frame_numbers=np.empty(0, np.int64), skipped=(skipped,))


def _wrong_size(sequence: SourceSequence, shape: tuple[int, ...], expected: tuple[int, ...]) -> Skipped:
    detail = f"{sequence.array.where} holds frames of {_times(shape)}, most files of {_times(expected)}"
    return Skipped(reason=Reason.WRONG_SIZE, where=sequence.name, detail=detail)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
