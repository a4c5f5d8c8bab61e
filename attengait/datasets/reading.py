"""The frames of a sequence as grey pictures, in order, whether they lie in pictures or in a video."""

from collections.abc import Iterator, Set

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.pictures import read_gray
from attengait.datasets.source import Pictures, Video
from attengait.datasets.video import BrokenVideoError, read_video
from attengait.images import UNREADABLE, WRONG_SIZE, Fault

Gray = NDArray[np.uint8]

BROKEN_VIDEO = "broken video"


def read_frames(frames: Pictures | Video, wanted: Set[int], faults: list[Fault]) -> Iterator[tuple[int, Gray | None]]:
    """Yield the number of each frame that is there, in order, and its grey picture, uint8 [H, W].

    The picture is None where the frame is not wanted, or cannot be used, which is noted in `faults`: pictures that are
    not whole, frames of another size than the first, all wanted frames from the one on at which a video breaks. A
    video is read up to the last wanted frame, and what follows counts as not there.
    """
    shape: tuple[int, ...] | None = None
    read = _read_video(frames, wanted, faults) if isinstance(frames, Video) else _read_pictures(frames, wanted, faults)
    for number, gray, path in read:
        if gray is not None and gray.shape != (shape := shape or gray.shape):
            faults.append(Fault(WRONG_SIZE, number, path))
            gray = None
        yield number, gray


def _read_pictures(pictures: Pictures, wanted: Set[int], faults: list[Fault]) -> Iterator[tuple[int, Gray | None, str]]:
    for number, path in pictures.by_number.items():
        gray = read_gray(path) if number in wanted else None
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
