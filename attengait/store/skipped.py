"""What was left out of a store or changed, and why: one form, from whoever finds it to the report beside the store.

A source finds sequences, folders and files of no use; a recipe finds frames of no use. Both say so by `Skipped`, with a
`Reason`. It is counted on the screen and stands in NAME.zarr.skipped.jsonl, one JSON object a line.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from attengait.errors import AttenGaitError


class Reason(StrEnum):
    """Why something was left out, or what was done to it; the value is what a user reads."""

    # Found by a source.
    UNREADABLE_FOLDER = "unreadable folder"
    UNREADABLE_FILE = "unreadable file"
    FOREIGN_FOLDER = "foreign folder"
    FOREIGN_FILE = "foreign file"
    FOREIGN_NAMES = "foreign names"
    FOREIGN_PICTURES = "foreign pictures"
    FOREIGN_VIDEOS = "foreign videos"
    PACKED = "packed archive"
    LINK_IN_CIRCLE = "link that leads back to where it is"
    SEQUENCE_TWICE = "sequence twice"
    FRAME_TWICE = "frame number twice"
    NO_PICKLE = "no pickle"
    NO_SUCH_FILE = "no such file"
    REFUSED_PICKLE = "refused pickle"
    REFUSED_MEMBER = "refused file of an archive"
    NOT_FRAMES = "array that holds no frames"
    JOINTS = "joints of a body instead of pictures"

    # Found by a recipe.
    NO_FRAMES = "no frames"
    NO_SILHOUETTES = "no silhouettes"
    NO_FLOW = "no flow images"
    NO_ARRAY = "no array"
    NO_MATCH = "no matching frame number"
    SILHOUETTES_END = "frames after the last silhouette, nearly as many as before it or more"
    SILHOUETTE_EMPTY = "silhouette empty"
    SILHOUETTE_FULL = "silhouette without background"
    SILHOUETTE_INVERTED = "silhouette with too much white"
    SILHOUETTE_GREY = "grey picture instead of a silhouette"
    SILHOUETTE_ALPHA = "silhouette in the alpha channel"
    FLOW_GREY = "grey picture instead of a flow image"
    UNREADABLE_PICTURE = "unreadable picture"
    WRONG_SIZE = "wrong size"
    BROKEN_VIDEO = "broken video"
    TOO_FEW = "too few pictures"

    # Found where two stores are exported side by side.
    ONE_STORE_ONLY = "sequence of one store only"

    # Nothing was left out: what was done to it is said.
    SILHOUETTE_VALUES = "silhouette with other values than 0 and 255"
    SILHOUETTE_CUT = "silhouette with grey levels, cut between them"
    BLUE_FIRST = "flow in blue, green, red, turned to red, green, blue"
    OTHER_DECODER = "picture that DALI refused, decoded by OpenCV"

    @property
    def is_note(self) -> bool:
        """Whether it was used, in the way that the detail tells."""
        notes = (Reason.SILHOUETTE_VALUES, Reason.SILHOUETTE_CUT, Reason.BLUE_FIRST, Reason.OTHER_DECODER)
        return self in notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Something that was left out for one reason."""

    reason: Reason
    where: str
    """A sequence, such as 001/nm-01/090, or a path."""
    frames: tuple[int, ...] = ()
    """Frame numbers, where single frames of a sequence were left out; empty where all of it was."""
    files: tuple[str, ...] = ()
    """Pictures or videos at fault, each once."""
    detail: str = ""
    """What else there is to say, such as what a decoder said first."""

    def to_dict(self) -> dict[str, Any]:
        """One line of the report; what is empty is left out."""
        entry: dict[str, Any] = {"where": self.where, "reason": str(self.reason)}
        if self.frames:
            entry["frames"] = list(self.frames)
        if self.files:
            entry["files"] = list(self.files)
        if self.detail:
            entry["detail"] = self.detail
        return entry

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; raises KeyError, TypeError or ValueError for what is no such line."""
        return cls(
            reason=_reason(str(entry["reason"])),
            where=str(entry["where"]),
            frames=tuple(entry.get("frames", ())),
            files=tuple(entry.get("files", ())),
            detail=str(entry.get("detail", "")),
        )


def _reason(text: str) -> Reason:
    # Version 0.1.0 named the least number of frames in the reason.
    return Reason.TOO_FEW if text.startswith("fewer than ") else Reason(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipCount:
    """How often something was left out for one reason."""

    entries: int
    """Sequences, or folders and files that are no sequences."""
    frames: int
    """Frames; 0 where whole sequences, folders or files were left out."""
    example: str = ""
    """Where the first of them is, and what there is to say of it."""

    def __str__(self) -> str:
        if not self.frames:
            return f"{self.entries:,}"
        return f"{plural(self.frames, 'frame')} in {plural(self.entries, 'sequence')}"


def count_skipped(skipped: Iterable[Skipped]) -> dict[Reason, SkipCount]:
    """Count by reason, in the order in which the reasons come up."""
    counts: dict[Reason, SkipCount] = {}
    for each in skipped:
        example = f"{each.where}: {each.detail}" if each.detail else each.where
        before = counts.get(each.reason, SkipCount(entries=0, frames=0, example=example))
        counts[each.reason] = replace(before, entries=before.entries + 1, frames=before.frames + len(each.frames))
    return counts


def lines_of(counts: Mapping[Reason, SkipCount]) -> list[str]:
    """What a summary says of it: skipped, too few pictures: 1, such as 001/nm-01/090: 4 pictures came out, but ..."""
    return [
        f"{'noted' if reason.is_note else 'skipped'}, {reason}: {count}, such as {count.example}"
        for reason, count in counts.items()
    ]


class NothingMadeError(AttenGaitError):
    """No sequence can be used, or nothing came out of any; `skipped` says why."""

    def __init__(self, sentence: str, skipped: Sequence[Skipped] = ()) -> None:
        super().__init__(sentence)
        self.skipped = tuple(skipped)


def in_brackets(skipped: Sequence[Skipped]) -> str:
    """The end of a sentence: how often what was left out, by reason, and what there is to say of the first."""
    counts = count_skipped(skipped)
    if not counts:
        return "(there was nothing)"
    why = "; ".join(f"{reason}: {count}" for reason, count in counts.items())
    return f"({why}), such as {next(iter(counts.values())).example}"


def plural(number: int, noun: str) -> str:
    """Such as: 1 frame, 2,000 frames."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
