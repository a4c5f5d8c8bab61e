"""The frames of a sequence as grey pictures of one size, in order, whatever they are read from.

Which size counts shows only at the end: it is the one that most frames have. So a reader goes on with the size of the
first frame, and reads the sequence again in the rare case that this was wrong (`read_with_the_size_of_most`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Set
from typing import TypeVar

from attengait.datasets.pictures import read_one_by_one
from attengait.datasets.source import Fault, Frame, FramePart, ReadGrays
from attengait.kernels.flow.backends import LEAST_SIDE_PX
from attengait.store.skipped import Reason

Shape = tuple[int, ...]
Result = TypeVar("Result")


class FrameSizes:
    """The sizes of a sequence's frames, and the one that is used."""

    def __init__(self, used: Shape | None = None) -> None:
        self.used = used
        """Height and width; None until the first frame says it."""
        self._counts: Counter[Shape] = Counter()

    def fits(self, shape: Shape) -> bool:
        """Count a frame's size; whether it is the one that is used."""
        self._counts[shape] += 1
        self.used = self.used or shape
        return shape == self.used

    @property
    def of_most(self) -> Shape | None:
        """The size of most frames; of two that are equally frequent the one that came first."""
        return max(self._counts, key=self._counts.__getitem__, default=None)


def read_with_the_size_of_most(read: Callable[[FrameSizes], Result]) -> Result:
    """Return what `read` makes of a sequence with the size that most of its frames have.

    `read` is called once, and once more where the first frame's size was not that of most.
    """
    sizes = FrameSizes()
    result = read(sizes)
    if sizes.of_most != sizes.used:
        result = read(FrameSizes(sizes.of_most))
    return result


def read_frames(
    frames: FramePart,
    wanted: Set[int],
    faults: list[Fault],
    *,
    sizes: FrameSizes | None = None,
    read_grays: ReadGrays = read_one_by_one,
) -> Iterator[Frame]:
    """Yield each frame that is there, in order, with its grey picture where it is wanted and can be used.

    What cannot be used is noted in `faults`: what cannot be decoded, frames below 10 x 10 pixels, and frames of another
    size than `sizes` uses. `read_grays` reads the pictures.
    """
    sizes = sizes or FrameSizes()
    for frame in frames.read(wanted, faults, read_grays):
        problem = None if frame.gray is None else _problem(frame.gray.shape, sizes)
        if problem is None:
            yield frame
        else:
            faults.append(Fault(Reason.WRONG_SIZE, frame.number, frame.path, problem))
            yield frame._replace(gray=None)


def format_size(shape: Shape) -> str:
    """Width and height of an array [H, W], such as 320 x 240."""
    return f"{shape[1]} x {shape[0]}"


def _problem(shape: Shape, sizes: FrameSizes) -> str | None:
    """What is wrong with a frame of this shape, as a sentence; None where nothing is."""
    # Some flow back ends refuse tiny frames; which sequences a store holds must not depend on the back end.
    if min(shape) < LEAST_SIDE_PX:
        return f"a frame has {format_size(shape)} pixels, but must have {LEAST_SIDE_PX} x {LEAST_SIDE_PX} or more"
    if not sizes.fits(shape):
        assert sizes.used is not None
        return f"a frame has {format_size(shape)} pixels, but most of the sequence have {format_size(sizes.used)}"
    return None
