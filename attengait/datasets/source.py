"""What a data set's adapter finds on disk: sequences, what each of them is read from, and what was left out.

A sequence has parts by name. `frames` are what was filmed (pictures or a video), `silhouettes` are pictures, `flow` are
ready flow images, `array` is one file of another program. A recipe says which parts it needs.

CASIA-B has 13,640 sequences of 2.2 million files. So a sequence keeps two folders and its file names packed into one
string each, not a path object for each file.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from attengait.store.description import Description
from attengait.store.skipped import Reason, Skipped

if TYPE_CHECKING:
    from attengait.datasets.pictures import Pictures

Gray = NDArray[np.uint8]
ReadGrays = Callable[[Iterable[str]], Iterator[Gray | None]]
"""From the paths of pictures to the grey pictures, uint8 [H, W], in turn, None for one that is not whole; it may read
ahead. They may lie on a device."""

SEPARATOR = "/"
"""Between packed names: the one character that no file name holds."""

FRAMES, SILHOUETTES, FLOW, ARRAY = "frames", "silhouettes", "flow", "array"
"""Names of parts."""

_NUMBER = re.compile(r"[0-9]{1,18}")


class Part(Protocol):
    """What one side of a sequence is read from."""

    @property
    def kind(self) -> str:
        """What a store records that it was made from, such as pictures or video."""
        ...

    @property
    def files(self) -> list[str]:
        """Paths of all files."""
        ...

    @property
    def where(self) -> str:
        """The path that stands for all of them."""
        ...

    @property
    def packed_names(self) -> str:
        """The files' names with `/` between them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OneFile:
    """What each Part of a single file has alike."""

    path: str

    @property
    def files(self) -> list[str]:
        """See Part."""
        return [self.path]

    @property
    def where(self) -> str:
        """See Part."""
        return self.path

    @property
    def packed_names(self) -> str:
        """See Part."""
        return os.path.basename(self.path)


class Frame(NamedTuple):
    """One frame that is there."""

    number: int
    gray: Gray | None
    """uint8 [H, W]; None where the frame is not wanted, or cannot be used."""
    path: str
    """The picture, or the video."""
    time_seconds: float | None = None
    """Of a video's frame: the time from the video's beginning at which it is shown."""


class Fault(NamedTuple):
    """Why one frame was left out."""

    reason: Reason
    number: int
    file: str | None = None
    """The picture or video at fault."""
    detail: str = ""
    """What else there is to say, such as what a decoder says."""


class FramePart(Part, Protocol):
    """Numbered frames of one sequence."""

    def matching(self, numbers: Iterable[int]) -> set[int]:
        """Those of `numbers` that have a frame, or may have one."""
        ...

    def read(self, wanted: Set[int], faults: list[Fault], read_grays: ReadGrays) -> Iterator[Frame]:
        """Yield each frame that is there, in order, with its grey picture where it is wanted and can be decoded.

        What cannot be decoded is noted in `faults`.
        """
        ...


class FlowImage(NamedTuple):
    """One ready flow image."""

    number: int
    """Of the second of its two frames."""
    pixels: NDArray[np.uint8]
    """Red, green and blue, [H, W, 3]."""
    time_seconds: float | None = None
    """As of a Frame."""


class FlowPart(Part, Protocol):
    """Numbered ready flow images of one sequence."""

    @property
    def is_lossy(self) -> bool:
        """Whether the colours went through a codec that changes them."""
        ...

    @property
    def max_images(self) -> int:
        """How many there are at most."""
        ...

    def read_flow(self, faults: list[Fault]) -> Iterator[FlowImage]:
        """Yield each image that can be decoded, in order; what cannot is noted in `faults`."""
        ...


class ArrayFile(Part, Protocol):
    """One file of another program that holds all pictures of a sequence as one array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array, as the file's header gives it; the first axis counts pictures."""
        ...

    @property
    def blue_first(self) -> bool:
        """Whether colours of flow are kept as blue, green, red."""
        ...

    def read(self) -> NDArray[Any]:
        """The array; raises `attengait.datasets.arrays.FileError`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSequence:
    """One walk of one subject seen from one view."""

    subject: str
    walk: str
    view: str
    parts: Mapping[str, Any] = field(default_factory=dict)
    """What it is read from, by name: FramePart, ArrayFile."""
    columns: Mapping[str, str | int | float] = field(default_factory=dict)
    """What else a data set knows of it, such as camera, clothing, date: columns of the store beside subject, walk and
    view. All sequences of a source have the same ones."""
    content_digest: str = ""
    """Hexadecimal digest over the files' names and sizes: equal for a copy elsewhere."""
    scan_digest: str = ""
    """The same with the times of last change (nanoseconds): differs when a file was written again."""
    stamps: bytes = b""
    """Size in bytes and time of last change in nanoseconds of each file, int64 [N, 2], part by part in the order of
    its `files` (see `attengait.datasets.inputs`); empty where nobody looked."""

    @property
    def name(self) -> str:
        """Subject, walk and view, such as `001/nm-01/090`."""
        return f"{self.subject}/{self.walk}/{self.view}"

    @property
    def frames(self) -> FramePart:
        """The part `frames`; raises KeyError where there is none."""
        found: FramePart = self.parts[FRAMES]
        return found

    @property
    def silhouettes(self) -> "Pictures":
        """The part `silhouettes`; raises KeyError where there are none."""
        found: Pictures = self.parts[SILHOUETTES]
        return found

    @property
    def array(self) -> ArrayFile:
        """The part `array`; raises KeyError where there is none."""
        found: ArrayFile = self.parts[ARRAY]
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """All sequences that a source holds, ordered by subject, walk and view, and what it left out."""

    sequences: tuple[SourceSequence, ...]
    skipped: tuple[Skipped, ...] = ()
    description: Description | None = None
    """What the source itself says that its pictures show."""
    recorded: Mapping[str, Any] = field(default_factory=dict)
    """What a store's recipe records of the source."""

    @property
    def content_digest(self) -> str:
        """Digest over all sequences' content digests."""
        return digest([f"{sequence.name} {sequence.content_digest}" for sequence in self.sequences])

    @property
    def scan_digest(self) -> str:
        """Digest over all sequences' scan digests."""
        return digest([f"{sequence.name} {sequence.scan_digest}" for sequence in self.sequences])


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Where a source looks."""

    frames: Path | None = None
    """Pictures or videos of what was filmed."""
    silhouettes: Path | None = None
    flow_images: Path | None = None
    """Flow images that the data set distributes ready-made: pictures or videos."""
    files: Path | None = None
    """Files of another program, one for each sequence."""
    pattern: str | None = None
    """Chooses among several `files` of a sequence by their names."""
    layout: str | None = None
    """Pattern of the paths, see `attengait.datasets.layout`."""
    silhouette_layout: str | None = None
    """That of the silhouettes, where it is another one."""
    constants: tuple[str, ...] | None = None
    """Values of fields that the paths lack, such as `view=090`."""


def frame_number(name: str) -> int:
    """Return the number in a file name: what stands between its last `-` and its suffix, or the last digits of that.

    Raises ValueError where there are no digits.

    >>> frame_number("001-nm-01-090-012.png"), frame_number("00011_00012_flow.png")
    (12, 12)
    """
    last = name.rpartition(".")[0].rpartition("-")[2]
    if last.isascii() and last.isdecimal():
        return int(last)
    if not (numbers := _NUMBER.findall(last)):
        raise ValueError(f"{name} has no number")
    return int(numbers[-1])


def digest(lines: list[str]) -> str:
    """Return a hexadecimal digest of some lines of text, 32 digits long."""
    # Names that are not UTF-8 reach us as lone surrogates.
    return blake2b("\n".join(lines).encode(errors="surrogateescape"), digest_size=16).hexdigest()
