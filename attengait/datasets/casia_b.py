"""CASIA-B: finds the sequences in its folders of frames and silhouettes, or of silhouettes alone.

Pictures are laid out as the owners' silhouettes are, subject/walk/view/subject-walk-view-frame.png:
`001/bg-01/000/001-bg-01-000-001.png`; jpg, jpeg and bmp are read, too. Frames can also be the owners' videos,
`001-bg-01-000.avi` (or mp4, mkv, mov), anywhere below the folder of frames. Frames and silhouettes belong together
by the frame number, which starts at 1. Unpacking sometimes nests a folder in itself (`113/113/...`); the inner
folder is searched, too. Names with `bkgrd` show only the background and are ignored.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attengait.datasets.pictures import Pictures
from attengait.datasets.source import FRAMES, SILHOUETTES, Folders, Scan, SourceSequence, digest, frame_number
from attengait.datasets.video import Video
from attengait.errors import AttenGaitError, ParameterError
from attengait.store.skipped import Reason, Skipped

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov")
SUBJECT, WALK, VIEW = (re.compile(pattern, re.ASCII) for pattern in (r"\d{3}", r"[a-z]{2}-\d{2}", r"\d{3}"))
VIDEO = re.compile(r"(\d{3})-([a-z]{2}-\d{2})-(\d{3})\.\w+", re.ASCII)
LAYOUT = "subject/walk/view/subject-walk-view-frame.png, such as 001/nm-01/090/001-nm-01-090-001.png"
VIDEO_LAYOUT = "subject-walk-view.avi, such as 001-nm-01-090.avi"

Name = tuple[str, str, str]
"""Subject, walk and view."""
_Videos = list[os.DirEntry[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    """One sequence's pictures, or its video, in one of the two folders."""

    source: Pictures | Video
    content: list[str]
    """One line of name and size for each file."""
    changes: list[str]
    """Its time of last change, in nanoseconds."""


def scan(folders: Folders) -> Scan:
    """Find the sequences that have frames or silhouettes; which of them are of use is a recipe's to say.

    Raises ParameterError without a folder of silhouettes, AttenGaitError for a folder that is missing, that is a file,
    or that holds no sequence at all.
    """
    if folders.silhouettes is None:
        raise ParameterError("silhouettes is missing, but must be given: CASIA-B needs the folder of the silhouettes")
    skipped: list[Skipped] = []
    sides: dict[str, dict[Name, _Side]] = {}
    if folders.frames is not None:
        sides[FRAMES] = _scan_side(folders.frames, FRAMES, skipped)
    sides[SILHOUETTES] = _scan_side(folders.silhouettes, SILHOUETTES, skipped)
    names = sorted(set().union(*sides.values()))
    return Scan(
        sequences=tuple(
            _join(name, {part: side[name] for part, side in sides.items() if name in side}) for name in names
        ),
        skipped=tuple(skipped),
    )


def _join(name: Name, sides: dict[str, _Side]) -> SourceSequence:
    subject, walk, view = name
    content = [line for part, side in sides.items() for line in (part, *side.content)]
    changes = [line for side in sides.values() for line in side.changes]
    return SourceSequence(
        subject=subject,
        walk=walk,
        view=view,
        parts={part: side.source for part, side in sides.items()},
        content_digest=digest(content),
        scan_digest=digest(content + changes),
    )


def _scan_side(root: Path, what: str, skipped: list[Skipped]) -> dict[Name, _Side]:
    if not root.exists():
        raise AttenGaitError(f"the folder of {what} {root} does not exist")
    if not root.is_dir():
        raise AttenGaitError(f"the folder of {what} {root} is a file: a folder laid out as {LAYOUT} is expected")
    found: dict[Name, _Side] = {}

    def add(name: Name, side: _Side) -> None:
        used = found.setdefault(name, side)
        if used is not side:
            detail = f"{used.source.where} is used"
            skipped.append(Skipped(reason=Reason.SEQUENCE_TWICE, where=side.source.where, detail=detail))

    videos: _Videos | None = [] if what == "frames" else None
    for subject in _folders(str(root), SUBJECT, skipped, videos):
        for walk in _folders(subject.path, WALK, skipped, videos):
            for view in _folders(walk.path, VIEW, skipped, videos):
                name = (subject.name, walk.name, view.name)
                side = _scan_pictures(view.path, name, skipped, videos)
                if side is not None:
                    add(name, side)
    for name, side in _scan_videos(videos or [], skipped):
        add(name, side)
    if not found:
        packed = " (it holds packed archives: unpack them first)" if list(root.glob("*.tar*")) else ""
        layout = LAYOUT if videos is None else f"{LAYOUT}, and no video named {VIDEO_LAYOUT}"
        raise AttenGaitError(f"the folder of {what} {root} holds no sequence laid out as {layout}{packed}")
    return found


def _scan_pictures(folder: str, name: Name, skipped: list[Skipped], videos: _Videos | None) -> _Side | None:
    """Return a sequence's pictures in one folder (or in one of the same name within it), None without any."""
    pattern = re.compile(rf"{re.escape('-'.join(name))}-\d{{1,9}}\.(png|jpe?g|bmp)", re.ASCII | re.IGNORECASE)
    sizes_and_times, num_foreign, nested = {}, 0, None
    for entry in _entries(folder, skipped):
        if pattern.fullmatch(entry.name) and entry.is_file():
            try:
                status = entry.stat()
            except OSError as error:
                skipped.append(Skipped(reason=Reason.UNREADABLE_FILE, where=entry.path, detail=error.strerror or ""))
                continue
            sizes_and_times[entry.name] = (status.st_size, status.st_mtime_ns)
        elif entry.name == name[-1] and entry.is_dir():
            nested = entry.path
        elif entry.name.lower().endswith(SUFFIXES):
            num_foreign += 1
        elif videos is not None and _is_video(entry):
            videos.append(entry)
    if num_foreign:
        detail = f"{num_foreign} pictures are not files named {'-'.join(name)}-NUMBER"
        skipped.append(Skipped(reason=Reason.FOREIGN_PICTURES, where=folder, detail=detail))
    if not sizes_and_times:
        return _scan_pictures(nested, name, skipped, videos) if nested else None

    names: dict[int, str] = {}
    for file_name in sorted(sizes_and_times):
        used = names.setdefault(frame_number(file_name), file_name)
        if used != file_name:
            where = f"{folder}/{file_name}"
            skipped.append(Skipped(reason=Reason.FRAME_TWICE, where=where, detail=f"{used} is used"))
    pictures = Pictures.of(folder, list(names.values()))
    return _Side(
        source=pictures,
        content=[f"{name} {sizes_and_times[name][0]}" for name in pictures.names],
        changes=[str(sizes_and_times[name][1]) for name in pictures.names],
    )


def _scan_videos(videos: _Videos, skipped: list[Skipped]) -> Iterator[tuple[Name, _Side]]:
    """Yield the videos whose names are a sequence's, in the order of their names; none is opened."""
    num_foreign: Counter[str] = Counter()
    for entry in sorted(videos, key=lambda entry: (entry.name, entry.path)):
        match = VIDEO.fullmatch(entry.name)
        if match is None:
            num_foreign[os.path.dirname(entry.path)] += 1
            continue
        try:
            status = entry.stat()
        except OSError as error:
            skipped.append(Skipped(reason=Reason.UNREADABLE_FILE, where=entry.path, detail=error.strerror or ""))
            continue
        subject, walk, view = match.groups()
        yield (
            (subject, walk, view),
            _Side(
                source=Video(path=entry.path),
                content=[f"{entry.name} {status.st_size}"],
                changes=[str(status.st_mtime_ns)],
            ),
        )
    for folder, number in sorted(num_foreign.items()):
        detail = f"{number} videos are not files named {VIDEO_LAYOUT}"
        skipped.append(Skipped(reason=Reason.FOREIGN_VIDEOS, where=folder, detail=detail))


def _folders(
    path: str, pattern: re.Pattern[str], skipped: list[Skipped], videos: _Videos | None
) -> Iterator[os.DirEntry[str]]:
    """Yield the folders of a path whose names fit the pattern, in order, then those of a folder nested in itself.

    Videos met on the way, in folders of other names too, are added to `videos`.
    """
    nested = None
    for entry in _entries(path, skipped):
        if not entry.is_dir():
            if videos is not None and _is_video(entry):
                videos.append(entry)
        elif entry.name == os.path.basename(path):
            nested = entry.path
        elif pattern.fullmatch(entry.name):
            yield entry
        elif videos is None or not _find_videos(entry.path, skipped, videos):
            skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=entry.path))
    if nested:
        yield from _folders(nested, pattern, skipped, videos)


def _find_videos(folder: str, skipped: list[Skipped], videos: _Videos) -> bool:
    """Add the videos in a folder and in those below (links to folders are not followed); say whether there are any."""
    num_before = len(videos)
    for entry in _entries(folder, skipped):
        if _is_video(entry):
            videos.append(entry)
        elif entry.is_dir(follow_symlinks=False):
            _find_videos(entry.path, skipped, videos)
    return len(videos) > num_before


def _is_video(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(VIDEO_SUFFIXES) and entry.is_file()


def _entries(path: str, skipped: list[Skipped]) -> list[os.DirEntry[str]]:
    """Return a folder's entries by name, without hidden ones and those that show the background alone."""
    try:
        with os.scandir(path) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".") and "bkgrd" not in entry.name),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        skipped.append(Skipped(reason=Reason.UNREADABLE_FOLDER, where=path, detail=error.strerror or ""))
        return []
