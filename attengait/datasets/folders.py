"""Any tree of folders that a layout describes (`attengait.datasets.layout`): pictures, or videos for the frames.

Every field but subject, walk, view and frame becomes a column of the store. What does not fit is counted by folder.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attengait.datasets.files import entries, status_of
from attengait.datasets.inputs import pack_stamps
from attengait.datasets.layout import FRAME, KEYS, AmbiguousError, Layout, parse_constants, parse_layout
from attengait.datasets.pictures import Pictures
from attengait.datasets.source import FRAMES, SILHOUETTES, Folders, Scan, SourceSequence, digest
from attengait.datasets.video import Video
from attengait.errors import AttenGaitError, ParameterError
from attengait.store.skipped import NothingMadeError, Reason, Skipped

Name = tuple[str, str, str]


@dataclass(slots=True, kw_only=True)
class _Found:
    """What one side has of one sequence."""

    folder: str
    columns: dict[str, str]
    is_video: bool
    files: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    """By frame number, 0 for a video: name, size in bytes, time of last change in nanoseconds."""

    @property
    def part(self) -> Pictures | Video:
        names = [name for name, _, _ in self.in_order]
        if self.is_video:
            return Video(path=f"{self.folder}/{names[0]}")
        return Pictures.of(self.folder, names, sorted(self.files))

    @property
    def in_order(self) -> list[tuple[str, int, int]]:
        return [self.files[number] for number in sorted(self.files)]


def scan(folders: Folders) -> Scan:
    """Find the sequences of a tree.

    Raises ParameterError for a layout that cannot be read or does not tell sequences apart, AttenGaitError for a folder
    that is missing or holds nothing that fits.
    """
    if folders.layout is None:
        raise ParameterError("layout is missing, but must be given, such as {subject}/{walk}/{view}/{frame}.png")
    if folders.silhouettes is None:
        raise ParameterError("silhouettes is missing, but must be given: the folder of the silhouettes")
    constants = parse_constants(folders.constants or ())
    layouts = _layouts(folders, constants)
    roots = {part: Path(root) for part, root in _roots(folders).items()}
    if len({os.path.realpath(root) for root in roots.values()}) < len(roots) and (
        folders.silhouette_layout in (None, folders.layout)
    ):
        raise ParameterError(
            f"silhouettes is {str(folders.silhouettes)!r}, but must be another folder than that of the frames, or "
            "silhouette_layout must be given"
        )
    skipped: list[Skipped] = []
    is_one_tree = len({os.path.realpath(root) for root in roots.values()}) < len(roots)
    sides = {}
    for part, root in roots.items():
        others = [layouts[other] for other in roots if other != part] if is_one_tree else []
        sides[part] = _scan_side(root, part, layouts[part], others, skipped)
    columns = tuple(dict.fromkeys(name for part in roots for name in layouts[part].columns))
    names = sorted(set().union(*sides.values()))
    if is_one_tree:
        _check_apart(sides, layouts)
    sequences = (
        _join(name, {part: side[name] for part, side in sides.items() if name in side}, columns) for name in names
    )
    return Scan(sequences=tuple(sequences), skipped=tuple(skipped))


def _check_apart(sides: Mapping[str, Mapping[Name, _Found]], layouts: Mapping[str, Layout]) -> None:
    """Raise ParameterError where a file would be a frame and its own silhouette."""
    for name, found in sides[SILHOUETTES].items():
        other = sides[FRAMES].get(name)
        names = {file for file, _, _ in other.in_order} if other is not None and other.folder == found.folder else set()
        for file in (file for file, _, _ in found.in_order if file in names):
            raise ParameterError(
                f"silhouette_layout is {layouts[SILHOUETTES].pattern!r}, but must fit no file that layout "
                f"{layouts[FRAMES].pattern!r} takes for a frame, such as {found.folder}/{file}"
            )


def _roots(folders: Folders) -> dict[str, Path]:
    roots = {FRAMES: folders.frames, SILHOUETTES: folders.silhouettes}
    return {part: root for part, root in roots.items() if root is not None}


def _layouts(folders: Folders, constants: Mapping[str, str]) -> dict[str, Layout]:
    """The layouts of frames and silhouettes; a constant belongs to those layouts that lack its field."""
    assert folders.layout is not None
    if folders.silhouette_layout is None:
        layout = parse_layout(folders.layout, constants)
        if layout.is_video and folders.frames is None:
            raise ParameterError(f"layout is {folders.layout!r}, but must have {{frame}}: silhouettes are pictures")
        layouts = {FRAMES: layout, SILHOUETTES: layout}
    else:
        if folders.frames is None:
            raise ParameterError(
                f"silhouette_layout is {folders.silhouette_layout!r}, but must be left out without frames: layout is "
                "enough"
            )
        both = folders.layout, folders.silhouette_layout
        for name in (name for name in constants if all(f"{{{name}}}" in each for each in both)):
            raise ParameterError(
                f"constant is {name}={constants[name]}, but must be left out: both layouts have the field {{{name}}}"
            )
        frames, silhouettes = (
            {name: value for name, value in constants.items() if f"{{{name}}}" not in each} for each in both
        )
        layouts = {
            FRAMES: parse_layout(folders.layout, frames),
            SILHOUETTES: parse_layout(folders.silhouette_layout, silhouettes, "silhouette_layout"),
        }
    if layouts[SILHOUETTES].is_video:
        given = "layout" if folders.silhouette_layout is None else "silhouette_layout"
        hint = "; give silhouettes a layout of their own" if given == "layout" else ""
        raise ParameterError(
            f"{given} is {layouts[SILHOUETTES].pattern!r}, but must have {{frame}}: silhouettes are pictures{hint}"
        )
    return layouts


def _join(name: Name, sides: Mapping[str, _Found], columns: Sequence[str]) -> SourceSequence:
    subject, walk, view = name
    known: dict[str, str] = {}
    for side in sides.values():
        for column, value in side.columns.items():
            if known.setdefault(column, value) != value:
                raise ParameterError(
                    f"layout gives {'/'.join(name)} the {column} {known[column]!r} for the frames and {value!r} for "
                    "the silhouettes, but must give one"
                )
    files = {part: side.in_order for part, side in sides.items()}
    content = [line for part, each in files.items() for line in (part, *(f"{name} {size}" for name, size, _ in each))]
    stamps = [(size, changed_ns) for each in files.values() for _, size, changed_ns in each]
    return SourceSequence(
        subject=subject,
        walk=walk,
        view=view,
        parts={part: side.part for part, side in sides.items()},
        columns={column: known.get(column, "") for column in columns},
        content_digest=digest(content),
        scan_digest=digest(content + [str(changed_ns) for _, changed_ns in stamps]),
        stamps=pack_stamps(stamps),
    )


def _scan_side(
    root: Path, part: str, layout: Layout, others: Sequence[Layout], skipped: list[Skipped]
) -> dict[Name, _Found]:
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise AttenGaitError(f"the folder of {part} {root} {what}")
    found: dict[Name, _Found] = {}
    _scan_folder(str(root), "", 1, layout, others, found, skipped)
    if not found:
        raise NothingMadeError(f"the folder of {part} {root} holds nothing laid out as {layout.pattern}", skipped)
    return found


def _scan_folder(
    folder: str,
    within: str,
    depth: int,
    layout: Layout,
    others: Sequence[Layout],
    found: dict[Name, _Found],
    skipped: list[Skipped],
) -> None:
    foreign: list[str] = []
    ambiguous: list[str] = []
    for entry in entries(folder, skipped):
        path = within + entry.name
        if entry.is_dir():
            if depth < max(each.depth for each in (layout, *others)):
                _scan_folder(entry.path, f"{path}/", depth + 1, layout, others, found, skipped)
            else:
                skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=entry.path))
            continue
        try:
            values = layout.read(path)
        except AmbiguousError as error:
            ambiguous.append(f"{entry.name} ({error})")
            continue
        if values is not None:
            _add(entry, folder, values, layout, found, skipped)
        elif not any(each.shortest.fullmatch(path) for each in others):
            foreign.append(entry.name)
    for names, what in ((foreign, f"do not fit {layout.pattern}"), (ambiguous, "can be read in two ways or more")):
        if names:
            detail = f"{len(names)} files {what}, such as {names[0]}"
            skipped.append(Skipped(reason=Reason.FOREIGN_NAMES, where=folder, detail=detail))


def _add(
    entry: "os.DirEntry[str]",
    folder: str,
    values: Mapping[str, str],
    layout: Layout,
    found: dict[Name, _Found],
    skipped: list[Skipped],
) -> None:
    status = status_of(entry, skipped)
    if status is None:
        return
    name = (values["subject"], values["walk"], values["view"])
    columns = {column: values[column] for column in layout.columns}
    known = found.setdefault(name, _Found(folder=folder, columns=columns, is_video=layout.is_video))
    if known.columns != columns:
        column = next(column for column in columns if columns[column] != known.columns[column])
        raise ParameterError(
            f"layout is {layout.pattern!r}, but must tell sequences apart by {', '.join(KEYS)}: {'/'.join(name)} is "
            f"there with {column} {known.columns[column]} and with {column} {columns[column]}"
        )
    number = 0 if layout.is_video else int(values[FRAME])
    used = known.files.setdefault(number, (entry.name, status.st_size, status.st_mtime_ns))
    if used[0] != entry.name:
        where = f"{folder}/{entry.name}"
        skipped.append(Skipped(reason=Reason.FRAME_TWICE, where=where, detail=f"{used[0]} is used"))
