"""What a dataset's adapter finds on disk: sequences of numbered frames and silhouettes, and what was wrong.

CASIA-B has 13,640 sequences of 2.2 million files, so a sequence keeps two folders and its file names packed into one
string each, not a path object per file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar, Self

SEPARATOR = "/"
"""Between packed names: the one character that no file name holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """The numbered pictures of one sequence, ordered by their numbers."""

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
        """Paths of all files."""
        return list(self.by_number.values())

    @property
    def where(self) -> str:
        """The path that stands for all of them: their folder."""
        return self.folder

    def matching(self, numbers: Iterable[int]) -> set[int]:
        """Those of `numbers` that have a picture."""
        return set(numbers).intersection(map(frame_number, self.names))


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """A video of one sequence. Its frames are numbered from 1, as they are coded.

    How many there are shows only when it is decoded: what its container says can be wrong, and opening thousands of
    videos takes long.
    """

    kind: ClassVar[str] = "video"

    path: str

    @property
    def files(self) -> list[str]:
        """Paths of all files."""
        return [self.path]

    @property
    def where(self) -> str:
        """The path that stands for all frames."""
        return self.path

    def matching(self, numbers: Iterable[int]) -> set[int]:
        """Those of `numbers` that may have a frame."""
        return {number for number in numbers if number >= 1}


NO_PICTURES = Pictures(folder="", packed_names="")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSequence:
    """One walk of one subject seen from one view."""

    subject: str
    walk: str
    view: str
    frames: Pictures | Video
    """`NO_PICTURES` where silhouettes alone were asked for."""
    silhouettes: Pictures
    content_digest: str = ""
    """Hexadecimal digest over the files' names and sizes: equal for a copy elsewhere."""
    scan_digest: str = ""
    """The same with the times of last change (nanoseconds): differs when a file was written again."""

    @property
    def name(self) -> str:
        """Subject, walk and view, such as `001/nm-01/090`."""
        return f"{self.subject}/{self.walk}/{self.view}"

    @property
    def max_images(self) -> int:
        """Flow images that can result at most: one for each matched frame but the first."""
        return max(0, len(self.frames.matching(map(frame_number, self.silhouettes.names))) - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that the scan of a folder left out, and why."""

    reason: str
    where: str
    """A sequence (`001/nm-01/090`) or a path."""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """All usable sequences of a dataset, ordered by subject, walk and view, and what was left out."""

    sequences: tuple[SourceSequence, ...]
    problems: tuple[Problem, ...]

    @property
    def content_digest(self) -> str:
        """Digest over all sequences' content digests."""
        return digest([f"{sequence.name} {sequence.content_digest}" for sequence in self.sequences])

    @property
    def scan_digest(self) -> str:
        """Digest over all sequences' scan digests."""
        return digest([f"{sequence.name} {sequence.scan_digest}" for sequence in self.sequences])


def frame_number(name: str) -> int:
    """Return the number in a file name: what stands between its last `-` and its suffix."""
    return int(name.rpartition(".")[0].rpartition("-")[2])


def digest(lines: list[str]) -> str:
    """Return a hexadecimal digest of some lines of text, 32 digits long."""
    # Names that are not UTF-8 reach us as lone surrogates.
    return blake2b("\n".join(lines).encode(errors="surrogateescape"), digest_size=16).hexdigest()
