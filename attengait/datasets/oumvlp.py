"""OUMVLP-OF: finds the sequences in its folders of ready flow images, pictures or videos; and OUMVLP's silhouettes.

    00001/090_01/0001.png             subject, view and sequence (01 is the gallery, 00 the probe)
    00001/090_01/seq_0001.mp4         the same as a video
    00001/seq_0001.mp4                a video without a view
    seq_0001.mp4                      a video without a subject
    Silhouette_090-01/00001/0001.png  a silhouette

The walk is the sequence: 00001/01/090. A video without a view has the view `unknown` and its own name as walk. One
without a subject is an unlabelled probe: its subject is `probe`, and its view is its name. Views go up to 270.
"""

import os
import re
from pathlib import Path

from attengait.datasets.files import entries, status_of
from attengait.datasets.flow_video import FlowVideo, num_coded_frames
from attengait.datasets.ready import (
    Name,
    Side,
    check_different,
    check_folder,
    folders_in,
    foreign,
    pictures_in,
    sequences_of,
)
from attengait.datasets.source import FLOW, SILHOUETTES, Folders, Scan
from attengait.errors import ParameterError
from attengait.sampling.selection import UNLABELLED
from attengait.store.skipped import NothingMadeError, Reason, Skipped

LAYOUT = "SUBJECT/VIEW_SEQUENCE/*.png, such as 00001/090_01/0001.png, or with a video, such as seq_0001.mp4"
SILHOUETTE_LAYOUT = "Silhouette_VIEW-SEQUENCE/SUBJECT/*.png, such as Silhouette_090-01/00001/0001.png"
NO_VIEW = "unknown"
_SUBJECT, _SEQUENCE = re.compile(r"\d{5}", re.ASCII), re.compile(r"(\d{3})_(\d{2})", re.ASCII)
_VIDEO = re.compile(r"(seq_\d{1,9})\.mp4", re.ASCII | re.IGNORECASE)
# A number stands after the last hyphen, if there is one; it has 9 digits at most.
_PICTURE = re.compile(r"(?!.*\d{10})(?:.*-)?[^-]*\d[^-]*\.png", re.ASCII)

_SILHOUETTES, _SILHOUETTE = re.compile(r"Silhouette_(\d{3})-(\d{2})", re.ASCII), re.compile(r"\d{1,9}\.png", re.ASCII)

_Found = dict[Name, dict[str, Side]]


def scan(folders: Folders) -> Scan:
    """Find the sequences that have flow images or silhouettes. Which of them are of use is a recipe's to say.

    Raises ParameterError without a folder, AttenGaitError for one that is missing, that is a file, or that holds no
    sequence at all.
    """
    given = {"flow_images": (folders.flow_images, LAYOUT, _add_flow)}
    given["silhouettes"] = (folders.silhouettes, SILHOUETTE_LAYOUT, _add_silhouettes)
    roots = {name: root for name, (root, _, _) in given.items() if root is not None}
    if not roots:
        raise ParameterError(
            "flow_images is missing, but must be given, or silhouettes: OUMVLP needs the folder of one of them"
        )
    check_different(roots)
    skipped: list[Skipped] = []
    found: _Found = {}
    for name, root in roots.items():
        _, layout, add = given[name]
        check_folder(name, root, layout)
        of_one: _Found = {}
        add(root, of_one, skipped)
        if not of_one:
            raise NothingMadeError(f"the folder of {name} {root} holds no sequence laid out as {layout}", skipped)
        for sequence, sides in of_one.items():
            found.setdefault(sequence, {}).update(sides)
    return Scan(sequences=tuple(sequences_of(found)), skipped=tuple(skipped))


def _add_silhouettes(root: Path, found: _Found, skipped: list[Skipped]) -> None:
    for folder in folders_in(root, skipped):
        if (match := _SILHOUETTES.fullmatch(folder.name)) is None:
            skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=folder.path))
            continue
        for subject in folders_in(folder.path, skipped):
            if _SUBJECT.fullmatch(subject.name):
                none = Reason.NO_SILHOUETTES
                side = pictures_in(subject.path, _SILHOUETTE, "0001.png", skipped, none=none)
                _add((subject.name, match[2], match[1]), side, found, SILHOUETTES)
            else:
                skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=subject.path))


def _add_flow(root: Path, found: _Found, skipped: list[Skipped]) -> None:
    for entry in entries(root, skipped):
        if entry.is_dir():
            if _SUBJECT.fullmatch(entry.name):
                _add_subject(entry, found, skipped)
            else:
                skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=entry.path))
        elif match := _VIDEO.fullmatch(entry.name):
            _add((UNLABELLED, UNLABELLED, match[1]), _video(entry, skipped), found)
        else:
            skipped.append(foreign(entry))


def _add_subject(subject: os.DirEntry[str], found: _Found, skipped: list[Skipped]) -> None:
    for entry in entries(subject.path, skipped):
        if entry.is_dir() and (match := _SEQUENCE.fullmatch(entry.name)):
            _add((subject.name, match[2], match[1]), _sequence(entry.path, skipped), found)
        elif entry.is_dir():
            skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=entry.path))
        elif match := _VIDEO.fullmatch(entry.name):
            _add((subject.name, match[1], NO_VIEW), _video(entry, skipped), found)
        else:
            skipped.append(foreign(entry))


def _sequence(folder: str, skipped: list[Skipped]) -> Side | None:
    """The pictures in a folder, else the first video in it."""
    listed = entries(folder, [])  # what is wrong with the entries is said by `pictures_in`, or here again
    videos = [entry for entry in listed if _VIDEO.fullmatch(entry.name)]
    has_pictures = any(_PICTURE.fullmatch(entry.name) for entry in listed)
    if has_pictures or not videos:
        return pictures_in(folder, _PICTURE, "0001.png", skipped, none=Reason.NO_FLOW)
    for entry in listed:
        if entry not in videos:
            skipped.append(foreign(entry))
    for entry in videos[1:]:
        detail = f"{videos[0].name} is used"
        skipped.append(Skipped(reason=Reason.SEQUENCE_TWICE, where=entry.path, detail=detail))
    return _video(videos[0], skipped)


def _video(entry: os.DirEntry[str], skipped: list[Skipped]) -> Side | None:
    if (status := status_of(entry, skipped)) is None:
        return None
    try:
        num_frames = num_coded_frames(entry.path)
    except OSError as error:
        skipped.append(Skipped(reason=Reason.UNREADABLE_FILE, where=entry.path, detail=error.strerror or ""))
        return None
    if not num_frames:
        detail = "its header counts no frames; ffmpeg -i IT -c copy NEW.mp4 may write one that does"
        skipped.append(Skipped(reason=Reason.BROKEN_VIDEO, where=entry.path, detail=detail))
        return None
    return Side(
        part=FlowVideo(path=entry.path, max_images=num_frames),
        content=[f"{entry.name} {status.st_size}"],
        stamps=[(status.st_size, status.st_mtime_ns)],
    )


def _add(name: Name, side: Side | None, found: _Found, part: str = FLOW) -> None:
    if side is not None:
        found[name] = {part: side}
