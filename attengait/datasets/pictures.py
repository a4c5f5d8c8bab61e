"""The numbered pictures of a sequence; grey pictures from PNG, JPEG and BMP files: whole or not at all.

OpenCV returns the readable part of a truncated JPEG as if it were the picture, and libpng and libjpeg write to standard
error by themselves. So a file is checked to be complete before it is decoded.
"""

import zlib
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.datasets.picture_size import has_too_many_pixels
from attengait.datasets.source import SEPARATOR, Fault, Frame, Gray, ReadGrays, frame_number
from attengait.store.skipped import Reason
from attengait.system.files import open_regular

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_JPEG_START_OF_SCAN, _JPEG_END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """The numbered pictures of one sequence, ordered by their numbers (a FramePart)."""

    kind: ClassVar[str] = "pictures"

    folder: str
    packed_names: str
    """File names with `/` between them; each ends in the frame's number (after the last `-`) and a suffix."""

    @classmethod
    def of(cls, folder: str | Path, names: list[str]) -> Self:
        """Pack the `names` of files in `folder`; they are put in the order of their numbers."""
        return cls(folder=str(folder), packed_names=SEPARATOR.join(sorted(names, key=lambda n: (frame_number(n), n))))

    @property
    def names(self) -> list[str]:
        """File names in the order of their numbers."""
        return self.packed_names.split(SEPARATOR) if self.packed_names else []

    @property
    def by_number(self) -> dict[int, str]:
        """Paths by frame number, in the order of the numbers."""
        return {frame_number(name): f"{self.folder}{SEPARATOR}{name}" for name in self.names}

    @property
    def files(self) -> list[str]:
        """See Part."""
        return list(self.by_number.values())

    @property
    def where(self) -> str:
        """Their folder."""
        return self.folder

    def matching(self, numbers: Iterable[int]) -> set[int]:
        """Those of `numbers` that have a picture."""
        return set(numbers).intersection(map(frame_number, self.names))

    def read(self, wanted: Set[int], faults: list[Fault], read_grays: ReadGrays) -> Iterator[Frame]:
        """See FramePart."""
        paths = self.by_number
        grays = read_grays(path for number, path in paths.items() if number in wanted)
        for number, path in paths.items():
            gray = next(grays) if number in wanted else None
            if gray is None and number in wanted:
                faults.append(Fault(Reason.UNREADABLE_PICTURE, number, path))
            yield Frame(number, gray, path)


def read_one_by_one(paths: Iterable[str]) -> Iterator[Gray | None]:
    """Read pictures by OpenCV, each when it is asked for."""
    return map(read_gray, paths)


def read_gray(path: str) -> NDArray[np.uint8] | None:
    """Return a picture as `cv2.imread(path, cv2.IMREAD_GRAYSCALE)` does, uint8 [H, W]; None if it is not whole."""
    data = read_complete(path)
    return None if data is None else decode_gray(data)


def read_colour(path: str) -> NDArray[np.uint8] | None:
    """Return a picture's colours, uint8 [H, W, 3] in the order red, green, blue; None if it is not whole."""
    data = read_complete(path)
    picture = None if data is None else _decode(data, cv2.IMREAD_COLOR)
    return None if picture is None else np.ascontiguousarray(picture[..., ::-1])


def read_complete(path: str) -> bytes | None:
    """Return a file's bytes; None if it cannot be read or is not complete."""
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError:
        return None
    return data if is_complete(data) else None


def decode_gray(data: bytes) -> NDArray[np.uint8] | None:
    """Return the picture in a file's bytes, uint8 [H, W]; None if OpenCV cannot decode it."""
    return _decode(data, cv2.IMREAD_GRAYSCALE)


def _decode(data: bytes, flags: int) -> NDArray[np.uint8] | None:
    with silent_opencv():
        try:
            picture: NDArray[np.uint8] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            return None
    return picture


@contextmanager
def silent_opencv() -> Iterator[None]:
    """Keep OpenCV's own warnings off standard error."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def is_complete(data: bytes) -> bool:
    """Whether a file's bytes are a PNG with every checksum right, a JPEG with its end, or of another kind.

    A picture of more than `picture_size.MAX_PIXELS` is none of these: a small file may unpack to all memory.
    """
    if has_too_many_pixels(data):
        return False
    if data.startswith(_PNG_SIGNATURE):
        return _is_complete_png(data)
    if data.startswith(_JPEG_SIGNATURE):
        # An embedded thumbnail has an end of its own, so the end must follow the last scan.
        return data.rfind(_JPEG_END_OF_IMAGE) > data.rfind(_JPEG_START_OF_SCAN) > 0
    return len(data) > 0


def _is_complete_png(data: bytes) -> bool:
    # A chunk is its length, its type, its content, and a CRC-32 of type and content.
    view = memoryview(data)
    offset = len(_PNG_SIGNATURE)
    while offset + 12 <= len(data):
        end = offset + 8 + int.from_bytes(view[offset : offset + 4], "big")
        if end + 4 > len(data) or zlib.crc32(view[offset + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        if data[offset + 4 : offset + 8] == b"IEND":
            return True
        offset = end + 4
    return False
