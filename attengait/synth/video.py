"""Videos without loss: decoded, they give the very bytes that were written."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.datasets.pictures import silent_opencv
from attengait.datasets.video import BrokenVideoError, read_video
from attengait.errors import AttenGaitError

FRAMES_PER_SECOND = 25


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]]) -> None:
    """Write frames, uint8 [H, W, 3] (BGR) of one size, as FFV1: each is decoded to the same bytes again.

    At least one frame is needed. Height and width must be even, because OpenCV would cut an odd row or column. The same
    frames give the same file. Raises AttenGaitError when it cannot be written.
    """
    try:
        path.write_bytes(b"")  # OpenCV does not say why it cannot write
        str(path).encode()
    except (OSError, UnicodeEncodeError) as error:
        raise AttenGaitError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None
    writer: cv2.VideoWriter | None = None
    num_frames = 0
    with silent_opencv():
        for frame in frames:
            if writer is None:
                assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0, "odd sizes would be cut"
                codec = cv2.VideoWriter.fourcc(*"FFV1")
                size = frame.shape[1], frame.shape[0]
                writer = cv2.VideoWriter(str(path.absolute()), cv2.CAP_FFMPEG, codec, FRAMES_PER_SECOND, size)
            writer.write(frame)
            num_frames += 1
        assert writer is not None, "a video needs a frame"
        writer.release()
    # OpenCV does not say either that it could not write, for example on a full disk.
    try:
        complete = sum(1 for _ in read_video(str(path), {num_frames})) == num_frames
    except BrokenVideoError:
        complete = False
    if not complete:
        raise AttenGaitError(f"cannot write {path}: the disk may be full")
