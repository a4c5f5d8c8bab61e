"""The numbered pictures of a sequence; grey or colour pictures from PNG, JPEG and BMP files: whole or not at all.

OpenCV returns the readable part of a damaged JPEG as if it were the picture, and libpng and libjpeg write to standard
error by themselves. So a file is checked before it is decoded: a PNG by its checksums, a JPEG by what libjpeg says when
it decodes it at an eighth of its size. A JPEG has no checksum, so libjpeg notices only a part of the damage in its
scan: of single flipped bits about a third.

A frame or a flow image has 8 bits a value. One of more is refused: cameras fill the lower ones of 16 bits, and of these
8 bits would keep next to nothing.

A file that cannot be opened or read is no bad picture. It is an error of the run, as it was there before (InputError).
"""

from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from attengait.datasets.archives import ArchiveError, read_member
from attengait.datasets.inputs import InputError, read_bytes
from attengait.datasets.picture_size import MAX_PIXELS, has_too_many_pixels, num_bits
from attengait.datasets.source import SEPARATOR, Fault, FlowImage, Frame, Gray, ReadGrays, frame_number
from attengait.kernels.pictures import png
from attengait.store.skipped import Reason

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_JPEG_START_OF_SCAN, _JPEG_END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_JPEG_DAMAGE = ("Corrupt JPEG data: ", "Premature end of JPEG file", "Inconsistent progression sequence")
"""How libjpeg's warnings of damage begin; its other ones do no harm."""
_PNG_WITH_ALPHA = (4, 6)
"""Colour types."""
_GRAY = (cv2.IMREAD_GRAYSCALE, cv2.IMREAD_ANYDEPTH)
"""Flags that ask for grey; the second one differs for more than 8 bits only."""


class PictureError(Exception):
    """A file that is no whole picture; it says what is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """The numbered pictures of one sequence, ordered by their numbers (a FramePart and, if in colour, a FlowPart)."""

    kind: ClassVar[str] = "pictures"
    is_lossy: ClassVar[bool] = False

    folder: str
    packed_names: str
    """File names with `/` between them; each ends in a number (after the last `-`) and a suffix."""
    offset: int = 0
    """What is added to the numbers of the names to get those of the frames."""
    packed_numbers: bytes = b""
    """Numbers of the names, int64 [N], where they stand elsewhere in them; empty where they are as above."""

    @classmethod
    def of(cls, folder: str | Path, names: list[str], numbers: list[int] | None = None) -> Self:
        """Pack the `names` of files in `folder`; they are put in the order of their numbers.

        With `numbers`, these are those of the names, and both must be in order.
        """
        if numbers is not None:
            packed = np.array(numbers, np.int64).tobytes()
            return cls(folder=str(folder), packed_names=SEPARATOR.join(names), packed_numbers=packed)
        return cls(folder=str(folder), packed_names=SEPARATOR.join(sorted(names, key=lambda n: (frame_number(n), n))))

    @property
    def names(self) -> list[str]:
        """File names in the order of their numbers."""
        return self.packed_names.split(SEPARATOR) if self.packed_names else []

    @property
    def numbers(self) -> list[int]:
        """Of the names, in order, without the offset."""
        if self.packed_numbers:
            found: list[int] = np.frombuffer(self.packed_numbers, np.int64).tolist()
            return found
        return [frame_number(name) for name in self.names]

    @property
    def first_and_last(self) -> tuple[int, int]:
        """The lowest and the highest of the numbers; there are millions of names, so that only two are read."""
        if self.packed_numbers:
            lowest, highest = np.frombuffer(self.packed_numbers, np.int64)[[0, -1]].tolist()
            return lowest, highest
        names = self.packed_names
        return frame_number(names.partition(SEPARATOR)[0]), frame_number(names.rpartition(SEPARATOR)[2])

    @property
    def by_number(self) -> dict[int, str]:
        """Paths by frame number, in the order of the numbers."""
        numbered = zip(self.numbers, self.names, strict=True)
        return {number + self.offset: f"{self.folder}{SEPARATOR}{name}" for number, name in numbered}

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
        return set(numbers).intersection(number + self.offset for number in self.numbers)

    def read(self, wanted: Set[int], faults: list[Fault], read_grays: ReadGrays) -> Iterator[Frame]:
        """See FramePart."""
        paths = self.by_number
        grays = read_grays(path for number, path in paths.items() if number in wanted)
        for number, path in paths.items():
            gray = next(grays) if number in wanted else None
            if gray is None and number in wanted:
                faults.append(Fault(Reason.UNREADABLE_PICTURE, number, path, why_unreadable(path)))
            yield Frame(number, gray, path)

    @property
    def max_images(self) -> int:
        """See FlowPart."""
        return self.packed_names.count(SEPARATOR) + 1 if self.packed_names else 0

    def read_flow(self, faults: list[Fault]) -> Iterator[FlowImage]:
        """See FlowPart."""
        for number, path in self.by_number.items():
            pixels = read_colour(path)
            if pixels is None:
                faults.append(Fault(Reason.UNREADABLE_PICTURE, number, path, why_unreadable(path)))
            else:
                yield FlowImage(number, pixels)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedPictures(Pictures):
    """Pictures in an archive; their paths are those of `attengait.datasets.archives`."""

    archive: str
    """Its path."""

    @property
    def files(self) -> list[str]:
        """See Part: one file holds them all."""
        return [self.archive]


def read_one_by_one(paths: Iterable[str]) -> Iterator[Gray | None]:
    """Read pictures by OpenCV, each when it is asked for."""
    return map(read_gray, paths)


def read_gray(path: str) -> NDArray[np.uint8] | None:
    """Return a picture as `cv2.imread(path, cv2.IMREAD_GRAYSCALE)` does, uint8 [H, W]; None if it is not whole.

    A picture of more than 8 bits a value is none, too. Raises InputError when the file cannot be read.
    """
    data = read_complete(path)
    return None if data is None else decode_gray(data)


def read_colour(path: str) -> NDArray[np.uint8] | None:
    """Return a picture's colours, uint8 [H, W, 3] in the order red, green, blue; None if it is not whole.

    A picture of more than 8 bits a value is none, too. Raises InputError when the file cannot be read.
    """
    try:
        picture = _decode_8_bits(read_whole(path), cv2.IMREAD_COLOR)
    except PictureError:
        return None
    return np.ascontiguousarray(picture[..., ::-1])


def read_complete(path: str) -> bytes | None:
    """Return a file's bytes; None if it is not complete, or has more than 8 bits a value by its header.

    Raises InputError when the file cannot be read.
    """
    try:
        data = read_whole(path)
        _check_bits(num_bits(data))
    except PictureError:
        return None
    return data


def read_whole(path: str) -> bytes:
    """The bytes of a picture file. Raises PictureError if it is not whole, InputError when it cannot be read."""
    try:
        packed = read_member(path)
    except ArchiveError as error:
        raise PictureError(str(error)) from None
    except OSError as error:
        raise InputError(f"{path} can no longer be read: {error.strerror or error}") from None
    data = read_bytes(path) if packed is None else packed
    if problem := _problem(data):
        raise PictureError(problem)
    return data


def why_unreadable(path: str) -> str:
    """What is wrong with a picture that is not whole, or has more than 8 bits a value."""
    try:
        data = read_whole(path)
        _check_bits(num_bits(data))
        _decode_8_bits(data, cv2.IMREAD_GRAYSCALE)
    except PictureError as error:
        return str(error)
    return ""


def decode_gray(data: bytes) -> NDArray[np.uint8] | None:
    """Return the picture in a file's bytes, uint8 [H, W]; None if OpenCV cannot decode it to 8 bits a value."""
    try:
        return _decode_8_bits(data, cv2.IMREAD_GRAYSCALE)
    except PictureError:
        return None


def _decode_8_bits(data: bytes, flags: int) -> NDArray[np.uint8]:
    picture = decode(data, flags | cv2.IMREAD_ANYDEPTH)
    _check_bits(8 * picture.itemsize)
    return picture


def _check_bits(number: int) -> None:
    if number > 8:
        raise PictureError(f"it has {number} bits a value: write it with 8")


def decode(data: bytes, flags: int) -> NDArray[Any]:
    """The picture in the bytes of a whole file, as OpenCV decodes it by the flags IMREAD_...; raises PictureError."""
    if flags in _GRAY and data.startswith(png.SIGNATURE) and (gray := png.decode_gray(data)) is not None:
        return gray
    with silent_opencv():
        try:
            picture: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            picture = None
    if picture is None:
        raise PictureError("it is no picture that OpenCV can decode")
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


def may_have_alpha(data: bytes) -> bool:
    """Whether a picture in a file's bytes may have an alpha channel, by its header."""
    if data.startswith(png.SIGNATURE):
        return data[25] in _PNG_WITH_ALPHA or b"tRNS" in data[: data.find(b"IDAT")]
    return not is_jpeg(data)


def is_jpeg(data: bytes) -> bool:
    """Whether a file's bytes are those of a JPEG."""
    return data.startswith(_JPEG_SIGNATURE)


def _problem(data: bytes) -> str | None:
    """What is wrong with a file that is a PNG, a JPEG, or of another kind; None where nothing is."""
    if not data:
        return "the file is empty"
    if has_too_many_pixels(data):
        return f"it has more than {MAX_PIXELS:,} pixels: a small file may unpack to all memory"
    if data.startswith(png.SIGNATURE):
        return None if png.is_complete(data) else "a checksum of the PNG file is wrong, or its end is missing"
    if is_jpeg(data):
        # An embedded thumbnail has an end of its own, so the end must follow the last scan.
        if not data.rfind(_JPEG_END_OF_IMAGE) > data.rfind(_JPEG_START_OF_SCAN) > 0:
            return "the end of the JPEG file is missing"
        return _jpeg_damage(data)
    return None


def _jpeg_damage(data: bytes) -> str | None:
    """What libjpeg says of damage in a JPEG file, None without any."""
    said = _libjpeg_says(data)
    if said is None:
        return None
    # Some cameras fill up the scan with zeros: libjpeg takes them for data too many.
    end = data.rfind(_JPEG_END_OF_IMAGE)
    filled = data[:end].rstrip(b"\0")
    if len(filled) < end and _libjpeg_says(filled + _JPEG_END_OF_IMAGE) is None:
        return None
    return said


def _libjpeg_says(data: bytes) -> str | None:
    try:
        simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, min_height=1, min_width=1)
    except ValueError as error:
        # What it cannot decode at all, such as four colours, is for OpenCV to decode or refuse.
        return str(error) if str(error).startswith(_JPEG_DAMAGE) else None
    return None
