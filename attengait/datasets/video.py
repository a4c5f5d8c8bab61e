"""The video of a sequence, and pictures from it: every coded frame, once, in order, by the FFmpeg within OpenCV.

FFmpeg hides damage: it invents what it cannot decode, or leaves whole frames out, so that all later ones would get
wrong numbers. FFmpeg reports damage only on standard error. So standard error is read here (through a file in memory,
which no full disk can stop), and not shown to the user. A video is used up to the first such message. Codecs without
checks (Huffyuv, VP9) give no message.
"""

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import ClassVar, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.datasets.inputs import require_readable
from attengait.datasets.pictures import silent_opencv
from attengait.datasets.source import Fault, Frame, OneFile, ReadGrays
from attengait.store.skipped import Reason
from attengait.system.files import check_regular

Result = TypeVar("Result")

_STDERR = 2
_COMPLAINT = re.compile(rb"\[[^\[\]]+ @ 0x[0-9a-f]+\][^\n]*")
_REPEATED = re.compile(rb" +Last message repeated \d+ times")
_one_at_a_time = threading.Lock()


class BrokenVideoError(Exception):
    """A video cannot be opened, or its next frame cannot be decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Video(OneFile):
    """A video of one sequence (a FramePart). Its frames are numbered from 1, as they are coded.

    How many there are shows only when it is decoded: what its container says can be wrong, and opening thousands of
    videos takes long.
    """

    kind: ClassVar[str] = "video"

    def matching(self, numbers: Iterable[int]) -> set[int]:
        """Those of `numbers` that may have a frame."""
        return {number for number in numbers if number >= 1}

    def read(self, wanted: Set[int], faults: list[Fault], read_grays: ReadGrays) -> Iterator[Frame]:
        """See FramePart; from the frame on at which the video breaks, all that are wanted are at fault, or that one."""
        number = 0
        try:
            for number, gray, seconds in read_video(self.path, wanted):
                yield Frame(number, gray, self.path, seconds)
            if number < max(wanted, default=0):
                require_readable(self.path)  # to FFmpeg an error of the disk is the end of the file
        except BrokenVideoError as error:
            require_readable(self.path)
            if number >= max(wanted, default=0):
                faults.append(Fault(Reason.BROKEN_VIDEO, number + 1, self.path, str(error)))
            for lost in range(number + 1, max(wanted, default=0) + 1):
                if lost in wanted:
                    faults.append(Fault(Reason.BROKEN_VIDEO, lost, self.path, str(error)))
                yield Frame(lost, None, self.path)


def read_video(
    path: str, wanted: Set[int], *, colour: bool = False
) -> Iterator[tuple[int, NDArray[np.uint8] | None, float]]:
    """Yield number, picture and time of each frame from 1 to the end; what follows the last wanted one is only counted.

    Pictures are grey, uint8 [H, W], or, with `colour`, red, green and blue, uint8 [H, W, 3].

    The picture of a frame that is not wanted is None. The time is in seconds from the video's beginning, as the
    container has it. Grey is `cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)`; `cv2.imread` of the same
    colours can differ from it by one level. Neither frame rate nor time stamps drop or double frames; rotation that the
    container asks for is done. Raises BrokenVideoError.
    """
    wanted_as = _rgb if colour else _gray
    with open(os.memfd_create("ffmpeg"), "r+b", buffering=0) as said:
        video, complaint = _overhear(partial(_open, path), said.fileno())
        if video is None or not video.isOpened():
            raise BrokenVideoError(complaint or "no video that FFmpeg knows")
        try:
            for number in count(1):
                decode = wanted_as if number in wanted else _pass_over
                (is_there, pixels), complaint = _overhear(partial(decode, video), said.fileno())
                if complaint:
                    raise BrokenVideoError(complaint)
                if not is_there:
                    return
                yield number, pixels, video.get(cv2.CAP_PROP_POS_MSEC) / 1000
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
        check_regular(absolute)
    except (UnicodeEncodeError, OSError):
        return None
    # One thread and no hardware decoder: the bytes must not depend on the machine.
    parameters = [cv2.CAP_PROP_N_THREADS, 1, cv2.CAP_PROP_HW_ACCELERATION, cv2.VIDEO_ACCELERATION_NONE]
    with _default_log_level():
        return cv2.VideoCapture(absolute, cv2.CAP_FFMPEG, parameters)


@contextmanager
def _default_log_level() -> Iterator[None]:
    """Let FFmpeg start without the user's log level: another one hides what damage is known by."""
    names = ("OPENCV_FFMPEG_LOGLEVEL", "OPENCV_FFMPEG_DEBUG")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _gray(video: cv2.VideoCapture) -> tuple[bool, NDArray[np.uint8] | None]:
    is_there, frame = video.read()
    return is_there, cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if is_there else None


def _rgb(video: cv2.VideoCapture) -> tuple[bool, NDArray[np.uint8] | None]:
    is_there, frame = video.read()
    return is_there, np.ascontiguousarray(frame[..., ::-1]) if is_there else None


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
