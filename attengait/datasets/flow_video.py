"""Flow images as a video, one MP4 file for each sequence.

A plan needs an upper bound of the images before any is decoded. An MP4 file has a table with the size of each coded
frame, so the bound is read from there: OUMVLP has 288,000 sequences, and to open each by FFmpeg would take long. A
decoder cannot give more frames than there are coded ones.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from attengait.datasets.inputs import require_readable
from attengait.datasets.source import Fault, FlowImage, OneFile
from attengait.datasets.video import BrokenVideoError, read_video
from attengait.store.skipped import Reason
from attengait.system.files import open_regular

_MOST_BOXES = 10_000
"""In one box of a file; more are no video of ours."""
_TABLE = (b"mdia", b"minf", b"stbl")


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowVideo(OneFile):
    """A video of the flow images of one sequence, numbered from 1 (a FlowPart). Such a codec changes the colours."""

    kind: ClassVar[str] = "video"
    is_lossy: ClassVar[bool] = True

    max_images: int
    """Coded frames, as the file's own table has them."""

    def read_flow(self, faults: list[Fault]) -> Iterator[FlowImage]:
        """See FlowPart; from the frame on at which the video breaks, all are at fault."""
        number = 0
        try:
            for number, pixels, seconds in read_video(self.path, set(range(1, self.max_images + 1)), colour=True):
                if pixels is None:
                    more = f"its header counts {self.max_images} frames only"
                    faults.append(Fault(Reason.BROKEN_VIDEO, number, self.path, more))
                    continue
                yield FlowImage(number, pixels, seconds)
            if number < self.max_images:
                require_readable(self.path)  # to FFmpeg an error of the disk is the end of the file
        except BrokenVideoError as error:
            require_readable(self.path)
            lost = range(number + 1, self.max_images + 1)
            faults += [Fault(Reason.BROKEN_VIDEO, each, self.path, str(error)) for each in lost]


def num_coded_frames(path: str) -> int:
    """How many coded frames the video of an MP4 file has, by its header; 0 for what is no such file.

    Raises OSError for a file that cannot be read.
    """
    with open_regular(path) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        found = 0
        for kind, start, end in _boxes(file, 0, file_bytes):
            if kind == b"moov":
                tracks = [box for box in _boxes(file, start, end) if box[0] == b"trak"]
                found = max([found, *(_num_samples(file, *track[1:], file_bytes) for track in tracks)])
        return found


def _num_samples(file: BinaryIO, start: int, end: int, file_bytes: int) -> int:
    """The samples of a track with pictures; 0 for another one, and for a table that the file cannot hold."""
    for name in _TABLE:
        inside = {kind: (first, last) for kind, first, last in _boxes(file, start, end)}
        if name not in inside or (name == b"minf" and not _is_of_pictures(file, *inside.get(b"hdlr", (0, 0)))):
            return 0
        start, end = inside[name]
    table = {kind: (first, last) for kind, first, last in _boxes(file, start, end)}.get(b"stsz")
    if table is None:
        return 0
    file.seek(table[0])
    head = file.read(12)
    if len(head) < 12:
        return 0
    sample_bytes, count = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
    fits = count * sample_bytes <= file_bytes if sample_bytes else 4 * count <= table[1] - table[0] - 12
    return count if fits else 0


def _is_of_pictures(file: BinaryIO, start: int, end: int) -> bool:
    file.seek(start)
    return end - start >= 12 and file.read(12)[8:] == b"vide"


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an MP4 file between two places: what each is, and where its content begins and ends."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, content = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:16], "big"), start + 16
        stop = end if size == 0 else start + size
        if not content <= stop <= end:
            return
        yield head[4:8], content, stop
        start = stop
