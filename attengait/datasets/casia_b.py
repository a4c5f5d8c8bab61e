"""CASIA-B: finds the sequences in its folders of frames and silhouettes, or of silhouettes alone.

Pictures are laid out as the owners' silhouettes are, subject/walk/view/subject-walk-view-frame.png:
`001/bg-01/000/001-bg-01-000-001.png`; jpg, jpeg and bmp will do. Frames may as well be the owners' videos,
`001-bg-01-000.avi` (or mp4, mkv, mov), anywhere in the folder of frames. Frames and silhouettes belong together by the
frame number, which starts at 1. Unpacking can nest a folder in itself (`113/113/...`), which is looked through; names
with `bkgrd` show the background alone and are passed over.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attengait.datasets.source import NO_PICTURES, Pictures, Problem, Scan, SourceSequence, Video, digest, frame_number
from attengait.errors import AttenGaitError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov")
SUBJECT, WALK, VIEW = re.compile(r"\d{3}", re.ASCII), re.compile(r"[a-z]{2}-\d{2}"), re.compile(r"\d{3}", re.ASCII)
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


def scan(frames: Path | None, silhouettes: Path) -> Scan:
    """Find the sequences that have frames and silhouettes; one that has only one of them is a problem, no error.

    Without a folder of frames, those that have silhouettes.

    Raises AttenGaitError for a folder that is missing, is none, or holds no sequence at all, and where no sequence has
    both.
    """
    problems: list[Problem] = []
    if frames is None:
        outlines = _scan_side(silhouettes, "silhouettes", problems)
        alone = tuple(_join(name, None, side) for name, side in sorted(outlines.items()))
        return Scan(sequences=alone, problems=tuple(problems))
    sides = [_scan_side(folder, what, problems) for folder, what in ((frames, "frames"), (silhouettes, "silhouettes"))]
    framed, outlined = sides
    sequences = []
    for name in sorted(framed.keys() | outlined.keys()):
        if name in framed and name in outlined:
            sequences.append(_join(name, framed[name], outlined[name]))
        else:
            lacking = "silhouettes" if name in framed else "frames"
            problems.append(Problem(reason=f"no {lacking}", where="/".join(name)))
    if not sequences:
        raise AttenGaitError(f"no sequence has both frames in {frames} and silhouettes in {silhouettes}")
    return Scan(sequences=tuple(sequences), problems=tuple(problems))


def _join(name: Name, frames: _Side | None, silhouettes: _Side) -> SourceSequence:
    assert isinstance(silhouettes.source, Pictures)
    subject, walk, view = name
    content, changes = ["silhouettes", *silhouettes.content], silhouettes.changes
    if frames is not None:
        content, changes = ["frames", *frames.content, *content], frames.changes + changes
    return SourceSequence(
        subject=subject,
        walk=walk,
        view=view,
        frames=NO_PICTURES if frames is None else frames.source,
        silhouettes=silhouettes.source,
        content_digest=digest(content),
        scan_digest=digest(content + changes),
    )


def _scan_side(root: Path, what: str, problems: list[Problem]) -> dict[Name, _Side]:
    if not root.exists():
        raise AttenGaitError(f"the folder of {what} {root} does not exist")
    if not root.is_dir():
        raise AttenGaitError(f"the folder of {what} {root} is a file: a folder laid out as {LAYOUT} is expected")
    found: dict[Name, _Side] = {}

    def add(name: Name, side: _Side) -> None:
        used = found.setdefault(name, side)
        if used is not side:
            detail = f"{used.source.where} is used"
            problems.append(Problem(reason="sequence twice", where=side.source.where, detail=detail))

    videos: _Videos | None = [] if what == "frames" else None
    for subject in _folders(str(root), SUBJECT, problems, videos):
        for walk in _folders(subject.path, WALK, problems, videos):
            for view in _folders(walk.path, VIEW, problems, videos):
                name = (subject.name, walk.name, view.name)
                side = _scan_pictures(view.path, name, problems, videos)
                if side is not None:
                    add(name, side)
    for name, side in _scan_videos(videos or [], problems):
        add(name, side)
    if not found:
        packed = " (it holds packed archives: unpack them first)" if list(root.glob("*.tar*")) else ""
        layout = LAYOUT if videos is None else f"{LAYOUT}, and no video named {VIDEO_LAYOUT}"
        raise AttenGaitError(f"the folder of {what} {root} holds no sequence laid out as {layout}{packed}")
    return found


def _scan_pictures(folder: str, name: Name, problems: list[Problem], videos: _Videos | None) -> _Side | None:
    """Return a sequence's pictures in one folder (or in one of the same name within it), None without any."""
    pattern = re.compile(rf"{re.escape('-'.join(name))}-\d{{1,9}}\.(png|jpe?g|bmp)", re.ASCII | re.IGNORECASE)
    sizes_and_times, num_foreign, nested = {}, 0, None
    for entry in _entries(folder, problems):
        if pattern.fullmatch(entry.name) and entry.is_file():
            try:
                status = entry.stat()
            except OSError as error:
                problems.append(Problem(reason="unreadable file", where=entry.path, detail=error.strerror or ""))
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
        problems.append(Problem(reason="foreign pictures", where=folder, detail=detail))
    if not sizes_and_times:
        return _scan_pictures(nested, name, problems, videos) if nested else None

    names: dict[int, str] = {}
    for file_name in sorted(sizes_and_times):
        used = names.setdefault(frame_number(file_name), file_name)
        if used != file_name:
            where = f"{folder}/{file_name}"
            problems.append(Problem(reason="frame number twice", where=where, detail=f"{used} is used"))
    pictures = Pictures.of(folder, list(names.values()))
    return _Side(
        source=pictures,
        content=[f"{name} {sizes_and_times[name][0]}" for name in pictures.names],
        changes=[str(sizes_and_times[name][1]) for name in pictures.names],
    )


def _scan_videos(videos: _Videos, problems: list[Problem]) -> Iterator[tuple[Name, _Side]]:
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
            problems.append(Problem(reason="unreadable file", where=entry.path, detail=error.strerror or ""))
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
        problems.append(Problem(reason="foreign videos", where=folder, detail=detail))


def _folders(
    path: str, pattern: re.Pattern[str], problems: list[Problem], videos: _Videos | None
) -> Iterator[os.DirEntry[str]]:
    """Yield the folders of a path whose names fit the pattern, in order, then those of a folder nested in itself.

    Videos met on the way, in folders of other names too, are added to `videos`.
    """
    nested = None
    for entry in _entries(path, problems):
        if not entry.is_dir():
            if videos is not None and _is_video(entry):
                videos.append(entry)
        elif entry.name == os.path.basename(path):
            nested = entry.path
        elif pattern.fullmatch(entry.name):
            yield entry
        elif videos is None or not _find_videos(entry.path, problems, videos):
            problems.append(Problem(reason="foreign folder", where=entry.path))
    if nested:
        yield from _folders(nested, pattern, problems, videos)


def _find_videos(folder: str, problems: list[Problem], videos: _Videos) -> bool:
    """Add the videos in a folder and in those below (links to folders are not followed); say whether there are any."""
    num_before = len(videos)
    for entry in _entries(folder, problems):
        if _is_video(entry):
            videos.append(entry)
        elif entry.is_dir(follow_symlinks=False):
            _find_videos(entry.path, problems, videos)
    return len(videos) > num_before


def _is_video(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(VIDEO_SUFFIXES) and entry.is_file()


def _entries(path: str, problems: list[Problem]) -> list[os.DirEntry[str]]:
    """Return a folder's entries by name, without hidden ones and those that show the background alone."""
    try:
        with os.scandir(path) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".") and "bkgrd" not in entry.name),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        problems.append(Problem(reason="unreadable folder", where=path, detail=error.strerror or ""))
        return []
