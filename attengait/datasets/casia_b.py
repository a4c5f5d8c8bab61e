"""CASIA-B: finds the sequences in its folders of frames and silhouettes, or of silhouettes alone.

Pictures are laid out as the owners' silhouettes are, subject/walk/view/subject-walk-view-frame.png:
`001/bg-01/000/001-bg-01-000-001.png`; jpg, jpeg and bmp are read, too. Frames can also be the owners' videos,
`001-bg-01-000.avi` (or mp4, mkv, mov), anywhere below the folder of frames. Frames and silhouettes belong together
by the frame number, which starts at 1. Unpacking sometimes nests a folder in itself (`113/113/...`); the inner
folder is searched, too. Names with `bkgrd` show only the background and are ignored.

Pictures may still be packed, as the owners distribute them (`002.tar.gz`), or in a zip. They are read in place
(`attengait.datasets.archives`). What is unpacked already is used from there. All other files and folders are counted.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attengait.datasets.archives import INSIDE, ArchiveError, folders_of, is_archive, list_archive
from attengait.datasets.files import leads_back, leads_somewhere
from attengait.datasets.inputs import pack_stamps
from attengait.datasets.pictures import PackedPictures, Pictures
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
_Archives = list[os.DirEntry[str]]


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
    archives: _Archives = []
    for subject in _folders(str(root), SUBJECT, skipped, videos, archives):
        for walk in _folders(subject.path, WALK, skipped, videos, archives):
            for view in _folders(walk.path, VIEW, skipped, videos, archives):
                name = (subject.name, walk.name, view.name)
                for side in _scan_pictures(view.path, name, skipped, videos, archives):
                    add(name, side)
    for name, side in _scan_videos(videos or [], skipped):
        add(name, side)
    for archive in sorted(archives, key=lambda entry: entry.path):
        _add_archive(archive, found, skipped)
    if not found:
        is_packed = any(each.reason is Reason.PACKED for each in skipped)
        packed = " (it holds packed archives: unpack them first)" if is_packed else ""
        layout = LAYOUT if videos is None else f"{LAYOUT}, and no video named {VIDEO_LAYOUT}"
        sentence = f"the folder of {what} {root} holds no sequence laid out as {layout}{packed}"
        raise NothingMadeError(sentence, skipped)
    return found


def _scan_pictures(
    folder: str, name: Name, skipped: list[Skipped], videos: _Videos | None, archives: _Archives
) -> Iterator[_Side]:
    """Yield a sequence's pictures in one folder, then those in one of the same name within it."""
    pattern = _pattern(name)
    sizes_and_times: dict[str, tuple[int, int]] = {}
    others, nested = [], None
    for entry in _entries(folder, skipped):
        if pattern.fullmatch(entry.name) and entry.is_file():
            try:
                status = entry.stat()
            except OSError as error:
                skipped.append(Skipped(reason=Reason.UNREADABLE_FILE, where=entry.path, detail=error.strerror or ""))
                continue
            sizes_and_times[entry.name] = (status.st_size, status.st_mtime_ns)
        elif entry.is_dir():
            if leads_back(entry, folder, skipped):
                continue
            if entry.name == name[-1]:
                nested = entry
            else:
                _pass_folder(entry, skipped, videos)
        elif videos is not None and _is_video(entry):
            videos.append(entry)
        elif ARCHIVE.fullmatch(entry.name):
            _meet(entry, skipped, archives)
        else:
            others.append(entry.name)
    _count_others(others, folder, f"are not files named {'-'.join(name)}-NUMBER", skipped)
    if sizes_and_times:
        pictures = Pictures.of(folder, _one_of_each_number(sizes_and_times, folder, skipped))
        yield _Side(
            source=pictures,
            content=[f"{name} {sizes_and_times[name][0]}" for name in pictures.names],
            stamps=[sizes_and_times[name] for name in pictures.names],
        )
    if nested is not None:
        yield from _scan_pictures(nested.path, name, skipped, videos, archives)


def _count_others(names: Sequence[str], where: str, problem: str, skipped: list[Skipped]) -> None:
    """Count the files of other names in a folder or archive: pictures, and all else."""
    pictures = [name for name in names if name.lower().endswith(SUFFIXES)]
    files = [name for name in names if not name.lower().endswith(SUFFIXES)]
    counted = ((Reason.FOREIGN_PICTURES, "pictures", pictures), (Reason.FOREIGN_FILE, "files", files))
    for reason, what, found in counted:
        if found:
            detail = f"{len(found)} {what} {problem}; the first is {found[0]}"
            skipped.append(Skipped(reason=reason, where=where, detail=detail))


def _pattern(name: Name) -> re.Pattern[str]:
    return re.compile(rf"{re.escape('-'.join(name))}-\d{{1,9}}\.(png|jpe?g|bmp)", re.ASCII | re.IGNORECASE)


def _one_of_each_number(file_names: Iterable[str], folder: str, skipped: list[Skipped]) -> list[str]:
    names: dict[int, str] = {}
    for file_name in sorted(file_names):
        used = names.setdefault(frame_number(file_name), file_name)
        if used != file_name:
            where = f"{folder}/{file_name}"
            skipped.append(Skipped(reason=Reason.FRAME_TWICE, where=where, detail=f"{used} is used"))
    return list(names.values())


def _add_archive(archive: os.DirEntry[str], found: dict[Name, _Side], skipped: list[Skipped]) -> None:
    """Add the sequences of an archive, except those that are there already; these are counted."""
    try:
        sides = list(_scan_archive(archive, skipped))
    except (ArchiveError, OSError) as error:
        detail = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        skipped.append(Skipped(reason=Reason.UNREADABLE_FILE, where=archive.path, detail=detail))
        return
    if not sides:
        detail = f"it holds no picture laid out as {LAYOUT}"
        skipped.append(Skipped(reason=Reason.FOREIGN_FILE, where=archive.path, detail=detail))
    twice = [(name, found[name], side) for name, side in sides if found.setdefault(name, side) is not side]
    if not twice:
        return
    fewer = ["/".join(name) for name, used, side in twice if len(used.content) < len(side.content) and _is_set(used)]
    name, used, _ = twice[0]
    detail = f"{len(twice)} of its {len(sides)} sequences are used from elsewhere: {'/'.join(name)} from "
    detail += used.source.where + (f"; {len(fewer)} have fewer pictures there, such as {fewer[0]}" if fewer else "")
    skipped.append(Skipped(reason=Reason.SEQUENCE_TWICE, where=archive.path, detail=detail))


def _is_set(side: _Side) -> bool:
    return side.source.kind == Pictures.kind


def _scan_archive(archive: os.DirEntry[str], skipped: list[Skipped]) -> Iterator[tuple[Name, _Side]]:
    status, others = archive.stat(), list[str]()
    for inner, files in folders_of(list_archive(archive.path, skipped)):
        name, folder = _name_of(inner), f"{archive.path}{INSIDE}{inner}"
        sizes: dict[str, int] = {}
        for file_name, size in files:
            if file_name.startswith(".") or "bkgrd" in file_name:
                continue
            if ARCHIVE.fullmatch(file_name):
                detail = f"it is packed within an archive: unpack {archive.path}"
                skipped.append(Skipped(reason=Reason.PACKED, where=f"{folder}/{file_name}", detail=detail))
            elif name is not None and _pattern(name).fullmatch(file_name):
                sizes[file_name] = size
            else:
                others.append(f"{inner}/{file_name}" if inner else file_name)
        if name is None or not sizes:
            continue
        names = _one_of_each_number(sizes, folder, skipped)
        pictures = PackedPictures(
            folder=folder, packed_names=Pictures.of(folder, names).packed_names, archive=archive.path
        )
        yield (
            name,
            _Side(
                source=pictures,
                content=[f"{name} {sizes[name]}" for name in pictures.names],
                stamps=[(status.st_size, status.st_mtime_ns)],
            ),
        )
    _count_others(others, archive.path, f"in it are not laid out as {LAYOUT}", skipped)


def _name_of(inner: str) -> Name | None:
    """The sequence of a folder in an archive, by its last three names; a folder nested in itself counts once."""
    parts = inner.split("/")
    parts = [part for part, before in zip(parts, ["", *parts], strict=False) if part != before]
    if len(parts) < 3:
        return None
    subject, walk, view = parts[-3:]
    patterns = ((SUBJECT, subject), (WALK, walk), (VIEW, view))
    return (subject, walk, view) if all(pattern.fullmatch(part) for pattern, part in patterns) else None


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
    path: str, pattern: re.Pattern[str], skipped: list[Skipped], videos: _Videos | None, archives: _Archives
) -> Iterator[os.DirEntry[str]]:
    """Yield the folders of a path whose names fit the pattern, in order, then those of a folder nested in itself.

    Videos met on the way, in folders of other names too, are added to `videos`, and archives to `archives`.
    Those that cannot be read are named in `skipped`, unless their content is there.
    """
    nested, own_name = None, os.path.basename(path)
    entries = _entries(path, skipped)
    names, others = {own_name, *(entry.name for entry in entries)}, []
    for entry in entries:
        if not entry.is_dir():
            if videos is not None and _is_video(entry):
                videos.append(entry)
            elif (archive := ARCHIVE.fullmatch(entry.name)) is None:
                others.append(entry.name)
            elif is_archive(entry.name) or archive.group(1) not in names:
                _meet(entry, skipped, archives)
        elif leads_back(entry, path, skipped):
            continue
        elif entry.name == own_name and not _is_sequence_part(entry.path, pattern):
            nested = entry.path
        elif pattern.fullmatch(entry.name):
            yield entry
        else:
            _pass_folder(entry, skipped, videos)
    _count_others(others, path, f"are not laid out as {LAYOUT}", skipped)
    if nested:
        yield from _folders(nested, pattern, skipped, videos, archives)


def _is_sequence_part(path: str, pattern: re.Pattern[str]) -> bool:
    """Whether a folder called like the one around it is a part of sequences' names, and not nested in itself."""
    own_name = os.path.basename(path)
    if pattern.fullmatch(own_name) is None:
        return False
    inside = (entry.name for entry in _entries(path, []) if entry.is_dir())
    return not any(pattern.fullmatch(name) for name in inside if name != own_name)


def _pass_folder(entry: os.DirEntry[str], skipped: list[Skipped], videos: _Videos | None) -> None:
    """Add the videos in a folder of another name and in those below (links to folders are not followed).

    All else in it is counted, or the folder as a whole where there are none.
    """
    found, others, below = list[os.DirEntry[str]](), list[str](), list[Skipped]()
    for each in [] if videos is None else _entries(entry.path, skipped):
        if _is_video(each):
            found.append(each)
        elif each.is_dir(follow_symlinks=False):
            _pass_folder(each, below, found)
        elif each.is_dir():
            detail = "links to folders are not followed here"
            below.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=each.path, detail=detail))
        else:
            others.append(each.name)
    if videos is None or not found:
        skipped += [each for each in below if each.reason is not Reason.FOREIGN_FOLDER]
        skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=entry.path))
        return
    videos += found
    skipped += below
    _count_others(others, entry.path, f"are no videos named {VIDEO_LAYOUT}", skipped)


def _meet(entry: os.DirEntry[str], skipped: list[Skipped], archives: _Archives) -> None:
    if is_archive(entry.name):
        archives.append(entry)
    else:
        skipped.append(Skipped(reason=Reason.PACKED, where=entry.path, detail="unpack it, or remove it"))


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
