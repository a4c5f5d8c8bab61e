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

from attengait.datasets.files import leads_somewhere
from attengait.datasets.inputs import pack_stamps
from attengait.datasets.pictures import Pictures
from attengait.datasets.source import FRAMES, SILHOUETTES, Folders, Scan, SourceSequence, digest, frame_number
from attengait.datasets.video import Video
from attengait.errors import AttenGaitError, ParameterError
from attengait.store.skipped import NothingMadeError, Reason, Skipped

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov")
SUBJECT, WALK, VIEW = (re.compile(pattern, re.ASCII) for pattern in (r"\d{3}", r"[a-z]{2}-\d{2}", r"\d{3}"))
VIDEO = re.compile(r"(\d{3})-([a-z]{2}-\d{2})-(\d{3})\.\w+", re.ASCII)
ARCHIVE = re.compile(r"(.+?)\.(tar|tar\.\w+|tgz|tbz2?|txz|zip|rar|7z)", re.ASCII | re.IGNORECASE)
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
    stamps: list[tuple[int, int]]
    """Its size in bytes and its time of last change in nanoseconds."""


def scan(folders: Folders) -> Scan:
    """Find the sequences that have frames or silhouettes; which of them are of use is a recipe's to say.

    Raises ParameterError without a folder of silhouettes, AttenGaitError for a folder that is missing, that is a file,
    or that holds no sequence at all.
    """
    if folders.silhouettes is None:
        raise ParameterError("silhouettes is missing, but must be given: CASIA-B needs the folder of the silhouettes")
    if folders.frames is not None and os.path.realpath(folders.frames) == os.path.realpath(folders.silhouettes):
        raise ParameterError(
            f"silhouettes is {str(folders.silhouettes)!r}, but must be another folder than that of the frames"
        )
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
    stamps = [stamp for side in sides.values() for stamp in side.stamps]
    return SourceSequence(
        subject=subject,
        walk=walk,
        view=view,
        parts={part: side.source for part, side in sides.items()},
        content_digest=digest(content),
        scan_digest=digest(content + [str(changed_ns) for _, changed_ns in stamps]),
        stamps=pack_stamps(stamps),
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
        is_packed = any(each.reason is Reason.PACKED for each in skipped)
        packed = " (it holds packed archives: unpack them first)" if is_packed else ""
        layout = LAYOUT if videos is None else f"{LAYOUT}, and no video named {VIDEO_LAYOUT}"
        sentence = f"the folder of {what} {root} holds no sequence laid out as {layout}{packed}"
        raise NothingMadeError(sentence, skipped)
    return found


def _scan_pictures(folder: str, name: Name, skipped: list[Skipped], videos: _Videos | None) -> _Side | None:
    """Return a sequence's pictures in one folder (or in one of the same name within it), None without any."""
    pattern = re.compile(rf"{re.escape('-'.join(name))}-\d{{1,9}}\.(png|jpe?g|bmp)", re.ASCII | re.IGNORECASE)
    sizes_and_times: dict[str, tuple[int, int]] = {}
    num_foreign, nested, archives = 0, None, []
    for entry in _entries(folder, skipped):
        if pattern.fullmatch(entry.name) and entry.is_file():
            try:
                status = entry.stat()
            except OSError as error:
                skipped.append(Skipped(reason=Reason.UNREADABLE_FILE, where=entry.path, detail=error.strerror or ""))
                continue
            sizes_and_times[entry.name] = (status.st_size, status.st_mtime_ns)
        elif entry.name == name[-1] and entry.is_dir():
            nested = entry
        elif entry.name.lower().endswith(SUFFIXES):
            num_foreign += 1
        elif videos is not None and _is_video(entry):
            videos.append(entry)
        elif ARCHIVE.fullmatch(entry.name):
            archives.append(entry)
    if num_foreign:
        detail = f"{num_foreign} pictures are not files named {'-'.join(name)}-NUMBER"
        skipped.append(Skipped(reason=Reason.FOREIGN_PICTURES, where=folder, detail=detail))
    if not sizes_and_times:
        skipped += map(_packed, archives)
        if nested is None or _leads_back(nested, folder, skipped):
            return None
        return _scan_pictures(nested.path, name, skipped, videos)

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
        stamps=[sizes_and_times[name] for name in pictures.names],
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
                stamps=[(status.st_size, status.st_mtime_ns)],
            ),
        )
    for folder, number in sorted(num_foreign.items()):
        detail = f"{number} videos are not files named {VIDEO_LAYOUT}"
        skipped.append(Skipped(reason=Reason.FOREIGN_VIDEOS, where=folder, detail=detail))


def _folders(
    path: str, pattern: re.Pattern[str], skipped: list[Skipped], videos: _Videos | None
) -> Iterator[os.DirEntry[str]]:
    """Yield the folders of a path whose names fit the pattern, in order, then those of a folder nested in itself.

    Videos met on the way, in folders of other names too, are added to `videos`. Archives are named in `skipped`, except
    those whose content is there.
    """
    nested, own_name = None, os.path.basename(path)
    entries = _entries(path, skipped)
    names = {own_name, *(entry.name for entry in entries)}
    for entry in entries:
        if not entry.is_dir():
            if videos is not None and _is_video(entry):
                videos.append(entry)
            elif (archive := ARCHIVE.fullmatch(entry.name)) and archive.group(1) not in names:
                skipped.append(_packed(entry))
        elif _leads_back(entry, path, skipped):
            continue
        elif entry.name == own_name and not _is_sequence_part(entry.path, pattern):
            nested = entry.path
        elif pattern.fullmatch(entry.name):
            yield entry
        elif videos is None or not _find_videos(entry.path, skipped, videos):
            skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=entry.path))
    if nested:
        yield from _folders(nested, pattern, skipped, videos)


def _is_sequence_part(path: str, pattern: re.Pattern[str]) -> bool:
    """Whether a folder called like the one around it is a part of sequences' names, and not nested in itself."""
    own_name = os.path.basename(path)
    if pattern.fullmatch(own_name) is None:
        return False
    inside = (entry.name for entry in _entries(path, []) if entry.is_dir())
    return not any(pattern.fullmatch(name) for name in inside if name != own_name)


def _leads_back(entry: os.DirEntry[str], path: str, skipped: list[Skipped]) -> bool:
    """Whether a folder is a link to `path` or to a folder above it; if so, it is named in `skipped`."""
    if not entry.is_symlink():
        return False
    there, here = (os.path.join(os.path.realpath(each), "") for each in (entry.path, path))
    way = (os.path.join(os.path.realpath(each), "") for each in Path(path).parents)
    if not here.startswith(there) and there not in way:
        return False
    skipped.append(Skipped(reason=Reason.LINK_IN_CIRCLE, where=entry.path, detail=f"it leads to {there}"))
    return True


def _find_videos(folder: str, skipped: list[Skipped], videos: _Videos) -> bool:
    """Add the videos in a folder and in those below (links to folders are not followed); say whether there are any."""
    num_before = len(videos)
    for entry in _entries(folder, skipped):
        if _is_video(entry):
            videos.append(entry)
        elif entry.is_dir(follow_symlinks=False):
            _find_videos(entry.path, skipped, videos)
    return len(videos) > num_before


def _packed(entry: os.DirEntry[str]) -> Skipped:
    return Skipped(reason=Reason.PACKED, where=entry.path, detail="unpack it, or remove it")


def _is_video(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(VIDEO_SUFFIXES) and entry.is_file()


def _entries(path: str, skipped: list[Skipped]) -> list[os.DirEntry[str]]:
    """Return a folder's entries by name, without hidden ones and those that show the background alone."""
    try:
        with os.scandir(path) as entries:
            named = [entry for entry in entries if not entry.name.startswith(".") and "bkgrd" not in entry.name]
            return [entry for entry in sorted(named, key=lambda e: e.name) if leads_somewhere(entry, skipped)]
    except OSError as error:
        skipped.append(Skipped(reason=Reason.UNREADABLE_FOLDER, where=path, detail=error.strerror or ""))
        return []
