"""The frames of a sequence as grey pictures, in order, whether they lie in pictures or in a video."""

from collections.abc import Callable, Iterable, Iterator, Set

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.pictures import read_gray
from attengait.datasets.source import Pictures, Video
from attengait.datasets.video import BrokenVideoError, read_video
from attengait.kernels.flow.backends import LEAST_SIDE_PX
from attengait.preprocessing.images import UNREADABLE, WRONG_SIZE, Fault

Gray = NDArray[np.uint8]
ReadGrays = Callable[[Iterable[str]], Iterator[Gray | None]]
"""From the paths of pictures to the grey pictures, in turn, None for one that is not whole; it may read ahead. They may
lie on a device."""

BROKEN_VIDEO = "broken video"


def read_one_by_one(paths: Iterable[str]) -> Iterator[Gray | None]:
    """Read pictures by OpenCV, each when it is asked for."""
    return map(read_gray, paths)


def read_frames(
    frames: Pictures | Video, wanted: Set[int], faults: list[Fault], *, read_grays: ReadGrays = read_one_by_one
) -> Iterator[tuple[int, Gray | None]]:
    """Yield the number of each frame that is there, in order, and its grey picture, uint8 [H, W].

    The picture is None where the frame is not wanted, or cannot be used, which is noted in `faults`: pictures that are
    not whole, frames below 10 x 10 pixels or of another size than the first, all wanted frames from the one on at which
    a video breaks. A video is read up to the last wanted frame, and what follows counts as not there. `read_grays`
    reads the pictures.
    """
    shape: tuple[int, ...] | None = None
    if isinstance(frames, Video):
        read = _read_video(frames, wanted, faults)
    else:
        read = _read_pictures(frames, wanted, faults, read_grays)
    for number, gray, path in read:
        # Some flow backends refuse tiny frames; which sequences a store holds must not depend on the backend.
        if gray is not None and (min(gray.shape) < LEAST_SIDE_PX or gray.shape != (shape := shape or gray.shape)):
            faults.append(Fault(WRONG_SIZE, number, path))
            gray = None
        yield number, gray


def _read_pictures(
    pictures: Pictures, wanted: Set[int], faults: list[Fault], read_grays: ReadGrays
) -> Iterator[tuple[int, Gray | None, str]]:
    paths = pictures.by_number
    grays = read_grays(path for number, path in paths.items() if number in wanted)
    for number, path in paths.items():
        gray = next(grays) if number in wanted else None
        if gray is None and number in wanted:
            faults.append(Fault(UNREADABLE, number, path))
        yield number, gray, path


def _read_video(video: Video, wanted: Set[int], faults: list[Fault]) -> Iterator[tuple[int, Gray | None, str]]:
    number = 0
    try:
        for number, gray in read_video(video.path, wanted):
            yield number, gray, video.path
    except BrokenVideoError as error:
        for lost in range(number + 1, max(wanted, default=0) + 1):
            if lost in wanted:
                faults.append(Fault(BROKEN_VIDEO, lost, video.path, str(error)))
            yield lost, None, video.path
