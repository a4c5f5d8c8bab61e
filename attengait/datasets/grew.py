"""GREW: finds the sequences in its folders of ready flow images, or of ready silhouettes.

    train/00001/4XPn5Z28/00001_00002_flow.png           subject and sequence
    test/gallery/00001/79XJefi8/00001_00002_flow.png    subject and sequence
    test/probe/etaGVnWf/00001_00002_flow.png            sequence: the challenge keeps the subjects
    distractors/aB3dEf7h/00001_00002_flow.png           sequence of somebody else

Silhouettes lie in the same folders of another root, 00001.png and so on. Any of the four parts may be absent.

Subjects get the names that OpenGait gives them, as subject 00001 of the training part is not subject 00001 of the
gallery. There are no views; the view is the name of the sequence:

    part         subject      walk
    train        00001train   00
    gallery      00001        01, 02 and so on, in the order of the sequences' names
    probe        probe        03
    distractor   distractor   04

The column `part` keeps the part. No sequence but those of `train` is trained on.

OpenGait's pickles of GREW have these names already (`attengait.datasets.opengait_sets`).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from attengait.datasets import opengait_sets
from attengait.datasets.ready import Name, Side, check_different, check_folder, folders_in, pictures_in, sequences_of
from attengait.datasets.source import FLOW, SILHOUETTES, Folders, Scan
from attengait.errors import ParameterError
from attengait.sampling.selection import DISTRACTOR, PART, TRAIN, UNLABELLED
from attengait.store.skipped import NothingMadeError, Reason, Skipped

LAYOUT = "train/SUBJECT/SEQUENCE, test/gallery/SUBJECT/SEQUENCE, test/probe/SEQUENCE and distractors/SEQUENCE"
_SUBJECT, _SEQUENCE = re.compile(r"\d{5}", re.ASCII), re.compile(r"[\w-]{1,100}", re.ASCII)
_PICTURES = {
    FLOW: (re.compile(r"\d{1,9}_\d{1,9}_flow\.png", re.ASCII), "00001_00002_flow.png", Reason.NO_FLOW),
    # A picture of the mean, such as gei.png, has no number.
    SILHOUETTES: (re.compile(r"(?:[\w-]*[_-])?\d{1,9}\.png", re.ASCII), "00001.png", Reason.NO_SILHOUETTES),
}
_WALKS = {TRAIN: "00", "probe": "03", "distractor": "04"}

_Place = tuple[str, str, str]
"""Part, subject, empty where there is none, and sequence."""


def scan(folders: Folders) -> Scan:
    """Find the sequences that have flow images or silhouettes, or OpenGait's pickles in `files`. Which of them are of
    use is a recipe's to say.

    Raises ParameterError where no folder is given, or pickles and pictures; AttenGaitError for a folder that is
    missing, that is a file, or that holds no sequence at all.
    """
    given = {"flow_images": (FLOW, folders.flow_images), "silhouettes": (SILHOUETTES, folders.silhouettes)}
    roots = {name: (part, root) for name, (part, root) in given.items() if root is not None}
    if folders.files is not None:
        for name, (_, root) in roots.items():
            raise ParameterError(f"{name} is {str(root)!r}, but must be left out beside files, which are pickles")
        return opengait_sets.scan_named("grew", folders)
    if not roots:
        raise ParameterError("flow_images is missing, but must be given, or silhouettes: GREW needs one of the folders")
    check_different({name: root for name, (_, root) in roots.items()})
    skipped: list[Skipped] = []
    found: dict[_Place, dict[str, Side]] = {}
    for name, (part, root) in roots.items():
        check_folder(name, root, LAYOUT)
        pattern, example, none = _PICTURES[part]
        is_empty = True
        for place, path in _places(root, skipped):
            sides = found.setdefault(place, {})  # also an empty one: it has a number in the gallery
            if part in sides:
                detail = f"{sides[part].part.where} is used"
                skipped.append(Skipped(reason=Reason.SEQUENCE_TWICE, where=path, detail=detail))
            elif (side := pictures_in(path, pattern, example, skipped, none=none)) is not None:
                sides[part], is_empty = side, False
        if is_empty:
            sentence = f"the folder of {name} {root} holds no sequence laid out as {LAYOUT}, with pictures as {example}"
            raise NothingMadeError(sentence, skipped)
    named = {_name_of(place, number): place for place, number in _numbered(found)}
    columns = {part: {PART: part} for part in dict.fromkeys(place[0] for place in found)}
    sequences = sequences_of(
        {name: found[place] for name, place in named.items() if found[place]},
        {name: columns[place[0]] for name, place in named.items()},
    )
    return Scan(sequences=tuple(sequences), skipped=tuple(skipped))


def _places(root: Path, skipped: list[Skipped]) -> Iterator[tuple[_Place, str]]:
    """Every sequence's place and folder."""
    for top in folders_in(root, skipped, known=("train", "test", "distractors", "distractor")):
        if top.name == "train":
            yield from _of_subjects(top.path, TRAIN, skipped)
        elif top.name == "test":
            for below in folders_in(top.path, skipped, known=("gallery", "probe")):
                if below.name == "gallery":
                    yield from _of_subjects(below.path, "gallery", skipped)
                else:
                    yield from _sequences(below.path, "probe", "", skipped)
        else:
            yield from _sequences(top.path, "distractor", "", skipped)


def _of_subjects(path: str, part: str, skipped: list[Skipped]) -> Iterator[tuple[_Place, str]]:
    for subject in folders_in(path, skipped):
        if _SUBJECT.fullmatch(subject.name):
            yield from _sequences(subject.path, part, subject.name, skipped)
        else:
            skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=subject.path))


def _sequences(path: str, part: str, subject: str, skipped: list[Skipped]) -> Iterator[tuple[_Place, str]]:
    for sequence in folders_in(path, skipped):
        if _SEQUENCE.fullmatch(sequence.name):
            yield (part, subject, sequence.name), sequence.path
        else:
            skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=sequence.path))


def _numbered(found: dict[_Place, dict[str, Side]]) -> Iterator[tuple[_Place, int]]:
    """Each place, and which of its subject's sequences it is, from 1."""
    before, number = ("", ""), 0
    for place in sorted(found):
        number = number + 1 if place[:2] == before else 1
        before = place[:2]
        yield place, number


def _name_of(place: _Place, number: int) -> Name:
    part, subject, sequence = place
    subjects = {TRAIN: f"{subject}train", "gallery": subject, "probe": UNLABELLED, "distractor": DISTRACTOR}
    return subjects[part], _WALKS.get(part, f"{number:02d}"), sequence
