"""What GREW and OUMVLP share: folders of numbered pictures that are ready, one folder for each sequence."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from attengait.datasets.files import entries, status_of
from attengait.datasets.flow_video import FlowVideo
from attengait.datasets.inputs import pack_stamps
from attengait.datasets.pictures import Pictures
from attengait.datasets.source import SourceSequence, digest, frame_number
from attengait.errors import AttenGaitError, ParameterError
from attengait.store.skipped import Reason, Skipped

ARCHIVE = re.compile(r".+\.(tar|tar\.\w+|tgz|tbz2?|txz|zip|rar|7z)", re.ASCII | re.IGNORECASE)
_PICTURE = (".png", ".jpg", ".jpeg", ".bmp")

Name = tuple[str, str, str]
"""Subject, walk and view."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """What one part of a sequence is read from."""

    part: Pictures | FlowVideo
    content: list[str]
    """One line of name and size for each file."""
    stamps: list[tuple[int, int]]
    """Its size in bytes and its time of last change in nanoseconds."""


def check_folder(name: str, folder: Path, layout: str) -> None:
    """Raise AttenGaitError for a folder that is missing or is a file; `name` is the parameter that gives it."""
    if not folder.exists():
        raise AttenGaitError(f"the folder of {name} {folder} does not exist")
    if not folder.is_dir():
        raise AttenGaitError(f"the folder of {name} {folder} is a file: a folder laid out as {layout} is expected")


def check_different(folders: Mapping[str, Path]) -> None:
    """Raise ParameterError where two parameters give the same folder."""
    seen: dict[str, str] = {}
    for name, folder in folders.items():
        other = seen.setdefault(os.path.realpath(folder), name)
        if other != name:
            raise ParameterError(f"{name} is {str(folder)!r}, but must be another folder than {other}")


def folders_in(path: str | Path, skipped: list[Skipped], known: Iterable[str] | None = None) -> list[os.DirEntry[str]]:
    """The folders in a folder, by name, `known` ones only where they are given; what else lies there is skipped."""
    found = []
    for entry in entries(path, skipped):
        if entry.is_dir() and (known is None or entry.name in known):
            found.append(entry)
        elif entry.is_dir():
            skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=entry.path))
        else:
            skipped.append(foreign(entry))
    return found


def foreign(entry: os.DirEntry[str]) -> Skipped:
    """What to say of a file that lies where a folder is expected."""
    if ARCHIVE.fullmatch(entry.name):
        return Skipped(reason=Reason.PACKED, where=entry.path, detail="unpack it, or remove it")
    return Skipped(reason=Reason.FOREIGN_FILE, where=entry.path)


def pictures_in(
    folder: str, pattern: re.Pattern[str], example: str, skipped: list[Skipped], *, none: Reason
) -> Side | None:
    """The pictures in a folder whose names fit the pattern; None without any, which `none` says."""
    found: dict[int, tuple[str, int, int]] = {}
    num_foreign = {Reason.FOREIGN_PICTURES: 0, Reason.FOREIGN_FILE: 0}
    for entry in entries(folder, skipped):
        if not (pattern.fullmatch(entry.name) and entry.is_file()):
            is_picture = entry.name.lower().endswith(_PICTURE)
            num_foreign[Reason.FOREIGN_PICTURES if is_picture else Reason.FOREIGN_FILE] += 1
            continue
        if (status := status_of(entry, skipped)) is None:
            continue
        kept = found.setdefault(frame_number(entry.name), (entry.name, status.st_size, status.st_mtime_ns))
        if kept[0] != entry.name:
            skipped.append(Skipped(reason=Reason.FRAME_TWICE, where=entry.path, detail=f"{kept[0]} is used"))
    for reason, number in num_foreign.items():
        if number:
            detail = f"{number} of its entries are not named as {example} is"
            skipped.append(Skipped(reason=reason, where=folder, detail=detail))
    if not found:
        skipped.append(Skipped(reason=none, where=folder, detail=f"no picture in it is named as {example} is"))
        return None
    kept_files = [found[number] for number in sorted(found)]
    return Side(
        part=Pictures.of(folder, [name for name, _, _ in kept_files]),
        content=[f"{name} {size}" for name, size, _ in kept_files],
        stamps=[(size, changed_ns) for _, size, changed_ns in kept_files],
    )


def sequences_of(
    found: Mapping[Name, Mapping[str, Side]], columns: Mapping[Name, Mapping[str, str]] | None = None
) -> Iterator[SourceSequence]:
    """Sequences from their sides by part, ordered by name."""
    for name in sorted(found):
        sides = found[name]
        content = [line for part, side in sides.items() for line in (part, *side.content)]
        stamps = [stamp for side in sides.values() for stamp in side.stamps]
        yield SourceSequence(
            subject=name[0],
            walk=name[1],
            view=name[2],
            parts={part: side.part for part, side in sides.items()},
            columns={} if columns is None else columns[name],
            content_digest=digest(content),
            scan_digest=digest(content + [str(changed_ns) for _, changed_ns in stamps]),
            stamps=pack_stamps(stamps),
        )
