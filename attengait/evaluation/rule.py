"""The protocols as data: one TOML file each in `rules/`.

`compares = "views"` compares the probes of each view with one gallery view after another. `compares = "gallery"` has
one gallery of all views.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from attengait.evaluation.names import Names, one_name_for_each_view

FROM_PARTITION = "those of the partition"
FROM_PARTITION_OR_ALL = "those of the partition, or all"
FROM_FILTERS = "those of filters"
ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The file that a challenge takes for probes without labels."""

    header: str
    """A row is the video's name and a subject for each further column."""
    gallery: tuple[str, ...]
    """Walks, as patterns."""
    subjects_are_numbers: bool = False

    @property
    def places(self) -> int:
        """Subjects in a row."""
        return self.header.count(",")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A protocol: which sequences are compared with which, and what is reported."""

    name: str
    about: str
    source: str
    compares: Literal["views", "gallery"]
    leaves_out: Literal["nothing", "identical views", "own view", "own walk"]
    """`own view`: gallery items of the probe's subject at the probe's view; `own walk`: those of the probe's walk,
    which other cameras may have seen."""
    table: Literal["views", "conditions"]
    """What the rows of the table are: probe views, with the conditions across, or conditions, with figures across."""
    columns: tuple[str, ...]
    """The figures that the table shows. The JSON has all."""
    ranks: tuple[int, ...]
    """The k of rank-k."""
    probes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Walks by condition, such as nm. `*` stands for any text."""
    gallery: tuple[str, ...] = ()
    """Walks. None at all: all sequences that are not probes."""
    galleries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By condition, where they have galleries of their own."""
    probes_are: str = "walks"
    unmatched: Literal["wrong", "left out"] = "wrong"
    """What becomes of probes whose subject the gallery lacks, in rank-k. They are always left out of mAP and mINP."""
    headline: str = ""
    """The condition whose figures are the headline. Empty: the mean over the conditions."""
    complete: bool = False
    """Whether each subject is expected to have each walk at each view, so that what is missing can be counted."""
    views_left_out: tuple[str, ...] = ()
    view_ends_at: str = ""
    """The view is what stands before this text."""
    view_pairs: bool = False
    """Whether rank-1 is also measured for each pair of probe view and gallery view."""
    rerank: bool = False
    """Whether the distances are re-ranked."""
    submission: Submission | None = None

    def gallery_of(self, condition: str) -> tuple[str, ...]:
        """Walks of a condition's gallery."""
        return self.galleries.get(condition, self.gallery)

    @property
    def all_walks(self) -> tuple[str, ...]:
        """Of all galleries and probes."""
        return (*self.all_gallery_walks, *self.all_probe_walks)

    @property
    def all_gallery_walks(self) -> tuple[str, ...]:
        """Each once."""
        return _each_once(self.gallery, *self.galleries.values())

    @property
    def all_probe_walks(self) -> tuple[str, ...]:
        """Each once."""
        return _each_once(*self.probes.values())

    def views(self, views: Names) -> Names:
        """[n]: the views as this protocol compares them."""
        if not self.view_ends_at or not len(views):
            return views
        return one_name_for_each_view(np.char.partition(views, self.view_ends_at)[:, 0])  # 10_0 and 10 are one view


def matching(walks: Names, patterns: tuple[str, ...]) -> NDArray[np.bool_]:
    """[n]: which of the walks [n] one of the patterns means."""
    distinct, which = np.unique(walks, return_inverse=True)
    wanted = [any(fnmatchcase(walk, pattern) for pattern in patterns) for walk in distinct.tolist()]
    return np.array(wanted, bool)[which]


@cache
def rules() -> dict[str, Rule]:
    """All protocols by name, those of CASIA-B first."""
    folder = resources.files("attengait.evaluation") / "rules"
    names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    names.sort(key=lambda name: (not name.startswith("casia-b"), name == "custom"))
    return {name: _rule(name, tomllib.loads(folder.joinpath(f"{name}.toml").read_text())) for name in names}


def _rule(name: str, written: dict[str, Any]) -> Rule:
    submission = written.pop("submission", None)
    return Rule(
        name=name,
        submission=None if submission is None else Submission(**_tuples(submission)),
        **_tuples(written),
    )


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Lists as tuples, also in tables."""
    return {
        key: tuple(value) if isinstance(value, list) else _tuples(value) if isinstance(value, dict) else value
        for key, value in values.items()
    }


def _each_once(*walks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(walk for some in walks for walk in some))
