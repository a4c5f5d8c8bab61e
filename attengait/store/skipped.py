"""What was left out of a store, and why: one form, from whoever finds it to the report beside the store.

A source finds sequences, folders and files of no use; a recipe finds frames of no use. Both say so by `Skipped`, with a
`Reason`. It is counted on the screen and stands in NAME.zarr.skipped.jsonl, one JSON object a line.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class Reason(StrEnum):
    """Why something was left out; the value is what a user reads."""

    # Found by a source.
    UNREADABLE_FOLDER = "unreadable folder"
    UNREADABLE_FILE = "unreadable file"
    FOREIGN_FOLDER = "foreign folder"
    FOREIGN_FILE = "foreign file"
    FOREIGN_NAMES = "foreign names"
    FOREIGN_PICTURES = "foreign pictures"
    FOREIGN_VIDEOS = "foreign videos"
    SEQUENCE_TWICE = "sequence twice"
    FRAME_TWICE = "frame number twice"
    NO_PICKLE = "no pickle"
    NO_SUCH_FILE = "no such file"
    REFUSED_PICKLE = "refused pickle"
    NOT_FRAMES = "array that holds no frames"

    # Found by a recipe.
    NO_FRAMES = "no frames"
    NO_SILHOUETTES = "no silhouettes"
    NO_FLOW = "no flow images"
    NO_ARRAY = "no array"
    NO_MATCH = "no matching frame number"
    SILHOUETTE_EMPTY = "silhouette empty"
    UNREADABLE_PICTURE = "unreadable picture"
    WRONG_SIZE = "wrong size"
    BROKEN_VIDEO = "broken video"
    TOO_FEW = "too few pictures"


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

    def __str__(self) -> str:
        if not self.frames:
            return f"{self.entries:,}"
        return f"{plural(self.frames, 'frame')} in {plural(self.entries, 'sequence')}"


def count_skipped(skipped: Iterable[Skipped]) -> dict[Reason, SkipCount]:
    """Count by reason, in the order in which the reasons come up."""
    counts: dict[Reason, SkipCount] = {}
    for each in skipped:
        before = counts.get(each.reason, SkipCount(entries=0, frames=0))
        counts[each.reason] = SkipCount(entries=before.entries + 1, frames=before.frames + len(each.frames))
    return counts


def lines_of(counts: Mapping[Reason, SkipCount]) -> list[str]:
    """What a summary says of it, such as: skipped, broken video: 14 frames in 1 sequence."""
    return [f"skipped, {reason}: {count}" for reason, count in counts.items()]


def plural(number: int, noun: str) -> str:
    """Such as: 1 frame, 2,000 frames."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
