"""Data sets in OpenGait's pickles, `subject/type/view/*.pkl`, with the names that each has.

    gait3d     0002/camid33_videoid2/seq0/seq0.pkl (or sils-seq0.pkl beside smpls-seq0.pkl)
    ccpg       100/U0_D0_BG/01_0/01_0-aligned-sils.pkl     outfit and bag; the camera stands before the underscore
    sustech1k  0000/01-nm/000-far/06-000-far-Camera-Sils_aligned.pkl     number and conditions
    casia-e    001/H-scene1-nm-1/000/000.pkl     height, scene, condition, number
    hid        00000/1/default/1.pkl; the subject of a probe without label is `probe`
    grew       00001train/00/4XPn5Z28/4XPn5Z28.pkl, 00001/01/79XJefi8/79XJefi8.pkl, probe/03/etaGVnWf/etaGVnWf.pkl

What a name tells becomes columns of the store. Folders with other names are left out and counted. Where no pattern is
given, the file of the silhouettes is taken, as OpenGait's configurations take it, or `{view}.pkl`, as an export names
it. A folder with other pickles alone is left out: they may hold something else.
"""

import re
from dataclasses import dataclass, replace
from functools import partial

from attengait.datasets import opengait
from attengait.datasets.source import Folders, Scan, SourceSequence
from attengait.errors import AttenGaitError
from attengait.sampling.selection import DISTRACTOR, PART, TRAIN, UNLABELLED
from attengait.store.skipped import Reason, Skipped

_NO_VIEW = "default"
"""The view of every sequence of HID, as OpenGait's pretreatment has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What a data set's folders are called. Named groups of the patterns become columns, texts."""

    subject: str
    walk: str
    view: str
    example: str
    files: tuple[str, ...]
    """Names of the silhouettes' file, the first that is there; {walk} and {view} stand for the folders' names."""
    has_parts: bool = False
    """Whether the subject's name says to which part it belongs. The column `part` keeps it, as for GREW's pictures."""

    def columns(self, subject: str, walk: str, view: str) -> dict[str, str] | None:
        """What the names tell; None for names that the data set does not have."""
        found: dict[str, str] = {}
        for pattern, name in ((self.subject, subject), (self.walk, walk), (self.view, view)):
            match = re.fullmatch(pattern, name, re.ASCII)
            if match is None:
                return None
            found |= {key: value or "" for key, value in match.groupdict().items()}
        return found | ({PART: _part_of(subject)} if self.has_parts else {})


def _part_of(subject: str) -> str:
    if subject in (UNLABELLED, DISTRACTOR):
        return subject
    return TRAIN if subject.endswith(TRAIN) else "gallery"


NAMINGS = {
    "gait3d": Naming(
        subject=r"\d{4}",
        walk=r"camid(?P<camera>\d+)_videoid(?P<video>\d+)",
        view=r"seq\d+",
        example="0002/camid33_videoid2/seq0",
        files=("{view}.pkl", "sils-{view}.pkl"),
    ),
    "ccpg": Naming(
        subject=r"\d{3}",
        walk=r"(?P<outfit>U\d_D\d)(_(?P<bag>BG))?",
        view=r"(?P<camera>[^_]+)(_.*)?",
        example="100/U0_D0_BG/01_0",
        files=("{view}-aligned-sils.pkl", "{view}.pkl"),
    ),
    "sustech1k": Naming(
        subject=r"\d{4}",
        walk=r"(?P<number>\d{2})-(?P<condition>[a-z]{2}(-[a-z]{2})*)",
        view=r"\d{3}(-[a-z]+)?",
        example="0000/01-nm/000-far",
        files=("06-{view}-Camera-Sils_aligned.pkl", "{view}.pkl"),
    ),
    "casia-e": Naming(
        subject=r"\d{3,4}",
        walk=r"(?P<height>[HL])-(?P<scene>scene\d(_s)?)-(?P<condition>nm|bg|cl)-(?P<number>\d+)",
        view=r"\d{3}",
        example="001/H-scene1-nm-1/000",
        files=("{view}.pkl",),
    ),
    "hid": Naming(
        subject=rf"\d+|{UNLABELLED}",
        walk=r".+",
        view=r".+",
        example="00000/1/default",
        files=("{walk}.pkl", "{view}.pkl"),
    ),
    "grew": Naming(
        subject=rf"\d{{5}}({TRAIN})?|{UNLABELLED}|{DISTRACTOR}",
        walk=r"\d{2}",
        view=r"[\w-]{1,100}",
        example="00001train/00/4XPn5Z28",
        files=("{view}.pkl",),
        has_parts=True,
    ),
}


def scan_named(name: str, folders: Folders) -> Scan:
    """The sequences of a data set of `NAMINGS`, with its columns.

    Raises what `attengait.datasets.opengait.scan` does, and AttenGaitError where no folder has the data set's names.
    """
    naming = NAMINGS[name]
    preferred = None if folders.pattern is not None else naming.files
    found = opengait.scan(folders, preferred=preferred)
    sequences: list[SourceSequence] = []
    skipped = list(found.skipped)
    for sequence in found.sequences:
        columns = naming.columns(sequence.subject, sequence.walk, sequence.view)
        if columns is None:
            detail = f"{name} has names like {naming.example}"
            skipped.append(Skipped(reason=Reason.FOREIGN_FOLDER, where=sequence.name, detail=detail))
        else:
            sequences.append(_with_video_as_view(replace(sequence, columns=columns)))
    if not sequences:
        raise AttenGaitError(
            f"the folder {folders.files} holds no sequence of {name}, which has names like {naming.example}: "
            f"its names are like {found.sequences[0].name}"
            if found.sequences
            else f"the folder {folders.files} holds no sequence of {name} that can be read"
        )
    sequences.sort(key=lambda each: (each.subject, each.walk, each.view))
    recorded = dict(found.recorded) | {"names": name}
    return replace(found, sequences=tuple(sequences), skipped=tuple(skipped), recorded=recorded)


def _with_video_as_view(sequence: SourceSequence) -> SourceSequence:
    """The file of a challenge names probes by their view; where all have the same view, the walk is the video."""
    is_probe = sequence.subject == UNLABELLED and sequence.view == _NO_VIEW
    return replace(sequence, view=sequence.walk) if is_probe else sequence


SCANS = {name: partial(scan_named, name) for name in NAMINGS}
"""The scan of each."""
