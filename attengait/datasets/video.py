"""Grey pictures from videos: every coded frame, once, in order, decoded by the FFmpeg within OpenCV.

FFmpeg hides damage: it invents what it cannot decode, or leaves whole frames out, so that all later ones would get
wrong numbers. It only complains about it on standard error, which is therefore read (and kept off the user's screen): a
video counts up to the first complaint. Codecs without checks (Huffyuv, VP9) do not complain.
"""

import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Set
from functools import partial
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.datasets.pictures import silent_opencv

Result = TypeVar("Result")

_STDERR = 2
_COMPLAINT = re.compile(rb"\[[^\[\]]+ @ 0x[0-9a-f]+\][^\n]*")
_REPEATED = re.compile(rb" +Last message repeated \d+ times")
_one_at_a_time = threading.Lock()


class BrokenVideoError(Exception):
    """A video cannot be opened, or its next frame cannot be decoded."""


def read_video(path: str, wanted: Set[int]) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
    """Yield the number and the grey picture, uint8 [H, W], of each frame from 1 to the last wanted one, or to the end.

    A frame that is not wanted is None. Grey is `cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)`; `cv2.imread` of the same
    colours can differ from it by one level. Neither frame rate nor time stamps drop or double frames; rotation that the
    container asks for is done. Raises BrokenVideoError.
    """
    with tempfile.TemporaryFile(buffering=0) as said:
        video, complaint = _overhear(partial(_open, path), said.fileno())
        if video is None or not video.isOpened():
            raise BrokenVideoError(complaint or "no video that FFmpeg knows")
        try:
            for number in range(1, max(wanted, default=0) + 1):
                decode = _gray if number in wanted else _pass_over
                (is_there, gray), complaint = _overhear(partial(decode, video), said.fileno())
                if complaint:
                    raise BrokenVideoError(complaint)
                if not is_there:
                    return
                yield number, gray
        finally:
            video.release()


def decoder_version() -> str:
    """The version of the FFmpeg within OpenCV, such as `avcodec 62.28.101, swscale 9.5.101`."""
    build = cv2.getBuildInformation()
    versions = {
        library: re.search(rf"{library}:\s+YES \(([\d.]+)\)", build) for library in ("avcodec", "avformat", "swscale")
    }
    return ", ".join(f"{library} {found.group(1) if found else 'none'}" for library, found in versions.items())


def _open(path: str) -> cv2.VideoCapture | None:
    try:
        # Relative, "a:b/c.avi" would be the protocol "a" to FFmpeg; OpenCV crashes on a name that is not UTF-8.
        absolute = os.path.abspath(path)
        absolute.encode()
    except UnicodeEncodeError:
        return None
    # Other log levels would hide what damage is known by, or send it to standard output.
    for name in ("OPENCV_FFMPEG_LOGLEVEL", "OPENCV_FFMPEG_DEBUG"):
        os.environ.pop(name, None)
    # One thread and no hardware decoder: the bytes must not depend on the machine.
    parameters = [cv2.CAP_PROP_N_THREADS, 1, cv2.CAP_PROP_HW_ACCELERATION, cv2.VIDEO_ACCELERATION_NONE]
    return cv2.VideoCapture(absolute, cv2.CAP_FFMPEG, parameters)


def _gray(video: cv2.VideoCapture) -> tuple[bool, NDArray[np.uint8] | None]:
    is_there, frame = video.read()
    return is_there, cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if is_there else None


def _pass_over(video: cv2.VideoCapture) -> tuple[bool, None]:
    # FFmpeg decodes it, as later ones may build upon it; only the conversion to BGR is saved.
    return video.grab(), None


def _overhear(function: Callable[[], Result], file: int) -> tuple[Result, str]:
    """Call a function and return its result and the first complaint of FFmpeg's, which goes to `file` meanwhile.

    What others write to standard error at the same time is passed on.
    """
    with _one_at_a_time, silent_opencv():
        stderr = os.dup(_STDERR)
        os.dup2(file, _STDERR)
        try:
            result = function()
        finally:
            os.dup2(stderr, _STDERR)
            os.close(stderr)
        said = os.pread(file, os.fstat(file).st_size, 0)
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
    complaint = None
    for line in said.splitlines(keepends=True):
        if match := _COMPLAINT.search(line):
            complaint = complaint or match.group().decode(errors="replace")
        elif not _REPEATED.match(line):
            os.write(_STDERR, line)
    return result, re.sub(r" @ 0x[0-9a-f]+", "", complaint or "")
