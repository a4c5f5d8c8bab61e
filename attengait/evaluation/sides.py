"""Which sequences are the probes and the gallery of a protocol, and whether there are any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError, require
from attengait.evaluation.names import Name, Names, has_label, one_name_for_each_view
from attengait.evaluation.options import EvaluationOptions
from attengait.evaluation.rule import ALL, FROM_FILTERS, FROM_PARTITION, Rule, matching, rules
from attengait.sampling.selection import UNLABELLED, parse_views, some_of

if TYPE_CHECKING:
    from attengait.training.partition import Partition

Mask = NDArray[np.bool_]

_NUM_NAMES = 12
_ONE_CONDITION = "probes"
_OWN_COLUMNS = ("subject", "walk", "view")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What n sequences are of. The views are as `one_name_for_each_view` makes them."""

    subjects: Names
    walks: Names
    views: Names
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """The data set's own columns."""

    @classmethod
    def of_columns(cls, columns: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> "Labels":
        """Of some rows of the columns of a store: subject, walk, view and others."""
        subjects, walks, views = (
            np.array([str(value) for value in columns[name][rows]], np.str_) for name in _OWN_COLUMNS
        )
        extra = {name: column[rows] for name, column in columns.items() if name not in _OWN_COLUMNS}
        return cls(subjects=subjects, walks=walks, views=one_name_for_each_view(views, subjects), extra=extra)

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def names(self) -> list[Name]:
        """Of each sequence."""
        return list(zip(self.subjects.tolist(), self.walks.tolist(), self.views.tolist(), strict=True))

    def column(self, name: str, what: str) -> Names:
        """A column as text. ParameterError for one that is not there; `what` is the filter that asks for it."""
        columns: dict[str, NDArray[Any]] = dict(
            zip(_OWN_COLUMNS, (self.subjects, self.walks, self.views), strict=True)
        ) | dict(self.extra)
        require(name in columns, what, name, f"a filter on one of {', '.join(columns)}")
        return np.array([str(value) for value in columns[name].tolist()], np.str_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The probes and the gallery of one condition, as masks [n] of the sequences."""

    condition: str
    probes: Mask
    gallery: Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The sequences that a protocol compares."""

    each: tuple[Side, ...]
    missing: tuple[str, ...] = ()
    """What the partition names and is not there, one phrase each."""
    num_missing: int = 0
    """Sequences that the partition names and that are not there."""

    @property
    def probes(self) -> Mask:
        """[n]: those of any condition."""
        return _any([side.probes for side in self.each])

    @property
    def gallery(self) -> Mask:
        """[n]: those of any condition."""
        return _any([side.gallery for side in self.each])


def _any(masks: list[Mask]) -> Mask:
    found: Mask = np.logical_or.reduce(masks)
    return found


def sides_of(rule: Rule, labels: Labels, options: EvaluationOptions, *, where: str) -> Sides:
    """The probes and galleries of a protocol among these sequences.

    Raises AttenGaitError where there is no probe or nothing to compare one with, naming what is missing, and
    ParameterError for options that do not fit the protocol. `where` says in a sentence where the sequences are.
    """
    check_options(rule, options)
    sides = _sides_of(rule, labels, options, where)
    are_apart = not any((side.probes & side.gallery).any() for side in sides.each)
    is_possible = are_apart or not is_reranked(rule, options)
    require(is_possible, "rerank", True, "left out where a sequence is probe and gallery")
    return sides


def _sides_of(rule: Rule, labels: Labels, options: EvaluationOptions, where: str) -> Sides:
    if rule.probes_are == FROM_FILTERS:
        return _of_filters(rule, labels, options, where)
    if rule.probes_are == ALL:
        return _of_all(rule, labels, where)
    if rule.probes_are != "walks":
        return _of_partition(rule, labels, options, where)
    sides = _of_walks(rule, labels)
    if not _can_compare(rule, sides, labels):
        _refuse(rule, labels, where)
    return sides


def _of_walks(rule: Rule, labels: Labels) -> Sides:
    used = ~np.isin(rule.views(labels.views), rule.views_left_out) & has_label(labels.subjects)
    return Sides(
        each=tuple(
            Side(
                condition=condition,
                probes=used & matching(labels.walks, walks),
                gallery=used & matching(labels.walks, rule.gallery_of(condition)),
            )
            for condition, walks in rule.probes.items()
        )
    )


def _of_all(rule: Rule, labels: Labels, where: str) -> Sides:
    labelled = has_label(labels.subjects)
    if not has_two_walks(labels.subjects[labelled], labels.walks[labelled]):
        raise AttenGaitError(f"protocol {rule.name} needs a subject with two walks, but {where} has none")
    return Sides(each=(Side(condition=_ONE_CONDITION, probes=labelled, gallery=labelled),))


def has_two_walks(subjects: Names, walks: Names) -> bool:
    """Whether one of the subjects [n] has sequences of two walks [n]."""
    pairs = set(zip(subjects.tolist(), walks.tolist(), strict=True))
    return len(pairs) > len({subject for subject, _ in pairs})


def _of_partition(rule: Rule, labels: Labels, options: EvaluationOptions, where: str) -> Sides:
    labelled = has_label(labels.subjects)
    names = partition_of(options.partition).probes if options.partition is not None else ()
    if not names and rule.probes_are == FROM_PARTITION:
        have = "has none" if options.partition is not None else "is missing"
        hint = ", or write the file of the challenge with --submission" if rule.submission else ""
        raise ParameterError(
            f"partition {have}, but must be a JSON file with PROBE_SET for the protocol {rule.name}: it names the "
            f"probes of {where}{hint}"
        )
    if not names:
        everything = Side(condition=_ONE_CONDITION, probes=labelled, gallery=labelled)
        if labelled.sum() < 2:
            raise AttenGaitError(f"protocol {rule.name} needs two sequences with a subject, but {where} has fewer")
        return Sides(each=(everything,))
    # The views of Gait3D are seq0, but a view that is a number may stand there as 0 or 000.
    rows = zip(labels.subjects.tolist(), labels.walks.tolist(), labels.views.tolist(), strict=True)
    here = ["-".join(row) for row in rows]
    wanted = {_with_one_view(name) for name in names}
    probes = labelled & np.isin(here, list(wanted))
    absent = sorted(wanted - set(here))
    if not probes.any() or not (labelled & ~probes).any():
        raise AttenGaitError(
            f"protocol {rule.name} fits no sequence of {where}: "
            + (
                f"none of the {len(wanted)} sequences in PROBE_SET of {options.partition} is there (such as "
                f"{some_of(absent, 2)}), but {some_of(here, 2)}"
                if not probes.any()
                else "all sequences there are probes, and none is left for the gallery"
            )
        )
    missing = (f"{len(absent)} of {len(wanted)} probes of PROBE_SET are missing: {some_of(absent)}",) if absent else ()
    side = Side(condition=_ONE_CONDITION, probes=probes, gallery=labelled & ~probes)
    return Sides(each=(side,), missing=missing, num_missing=len(absent))


def _of_filters(rule: Rule, labels: Labels, options: EvaluationOptions, where: str) -> Sides:
    for name, filters in (("gallery", options.gallery), ("probes", options.probes)):
        require(bool(filters), name, filters, f"one or more filters for the protocol {rule.name}, such as walk=nm-01")
    gallery = _filtered(labels, options.gallery, "gallery") & (labels.subjects != UNLABELLED)  # distractors, if asked
    probes = _filtered(labels, options.probes, "probes") & has_label(labels.subjects)
    for name, mask, filters in (("gallery", gallery, options.gallery), ("probes", probes, options.probes)):
        if not mask.any():
            raise AttenGaitError(f"no sequence of {where} is in the {name}: none fits {' and '.join(filters)}")
    return Sides(each=(Side(condition=_ONE_CONDITION, probes=probes, gallery=gallery),))


def _filtered(labels: Labels, filters: Sequence[str], what: str) -> Mask:
    """[n]: for which all filters hold, each COLUMN=VALUES or COLUMN!=VALUES."""
    kept = np.ones(len(labels), bool)
    for text in filters:
        name, mark, wanted = str(text).partition("=")
        require(bool(mark and name and wanted), what, text, "COLUMN=VALUES or COLUMN!=VALUES, such as walk=nm-01,nm-02")
        is_negated, name = name.endswith("!"), name.removesuffix("!").strip()
        column = labels.column(name, what)
        chosen = parse_views(wanted, np.unique(column).tolist(), what=f"{what} {name}")
        kept &= np.isin(column, chosen) != is_negated
    return kept


def _can_compare(rule: Rule, sides: Sides, labels: Labels) -> bool:
    """Whether there is a probe, and something to compare it with."""
    if rule.leaves_out == "nothing":
        return bool(sides.probes.any() and sides.gallery.any())
    views = rule.views(labels.views)
    for side in sides.each:
        gallery_views, probe_views = set(views[side.gallery].tolist()), set(views[side.probes].tolist())
        if gallery_views and probe_views and len(gallery_views | probe_views) > 1:
            return True
    return False


def fitting(labels: Labels) -> list[str]:
    """The protocols of walks that fit some of these sequences."""
    return [
        name
        for name, rule in rules().items()
        if rule.probes_are == "walks" and _can_compare(rule, _of_walks(rule, labels), labels)
    ]


def _refuse(rule: Rule, labels: Labels, where: str) -> None:
    names = fitting(labels)
    found = (
        f"the {len(labels)} sequences there have the walks {some_of(np.unique(labels.walks).tolist(), _NUM_NAMES)} and "
        f"the views {some_of(np.unique(labels.views).tolist(), _NUM_NAMES)}"
    )
    known = ", ".join(name for name, other in rules().items() if other.probes_are == "walks")
    fit = f"{', '.join(names)} {'fits' if len(names) == 1 else 'fit'}" if names else f"none of {known} fits"
    other_views = "" if rule.leaves_out == "nothing" else " at other views"
    raise AttenGaitError(
        f"protocol {rule.name} fits no sequence of {where}: it compares probes {', '.join(rule.all_probe_walks)} with "
        f"the gallery {', '.join(rule.all_gallery_walks)}{other_views}, but "
        f"{found if len(labels) else 'there are no sequences'}; {fit}"
    )


def check_options(rule: Rule, options: EvaluationOptions) -> None:
    """Refuse options that do not fit a protocol (ParameterError)."""
    for name in ("gallery", "probes", "leave_out"):
        value = getattr(options, name)
        require(
            not value or rule.probes_are == FROM_FILTERS,
            name,
            value if isinstance(value, str) else list(value or ()),
            f"left out for the protocol {rule.name}, which has its own (custom takes it)",
        )
    rerank = is_reranked(rule, options)
    require(
        not rerank or rule.compares == "gallery",
        "rerank",
        rerank,
        f"left out for the protocol {rule.name}, which compares views one by one and has no gallery to re-rank",
    )
    # Fused distances are relative to each probe's gallery: they can be negative, and mean nothing between other items.
    require(
        not rerank or options.fuse is None,
        "rerank",
        rerank,
        "False where two models are fused (--no-rerank): re-ranking needs the distances of one model",
    )


def is_reranked(rule: Rule, options: EvaluationOptions) -> bool:
    """Whether distances are re-ranked: as asked for, else as the protocol says."""
    return rule.rerank if options.rerank is None else options.rerank


def partition_of(path: str | Path | None) -> "Partition":
    """Read it. Raises AttenGaitError where that is not possible."""
    from attengait.training.partition import read_partition

    assert path is not None
    return read_partition(path)


def subjects_to_test(
    options: EvaluationOptions, available: Sequence[str], *, where: str, with_unlabelled: bool = False
) -> tuple[list[str], list[str]]:
    """The subjects of TEST_SET that are there, and those that are not. Raises AttenGaitError where none is there.

    `with_unlabelled` adds the subject of probes without labels, whom no partition names.
    """
    test = partition_of(options.partition).test
    wanted = set(test)
    found = [name for name in available if name in wanted]
    if not found:
        raise AttenGaitError(
            f"{where} has none of the {len(test)} subjects in TEST_SET of {options.partition} (such as "
            f"{some_of(test, 3)}): its subjects are {some_of(available, 3)}"
        )
    there = set(found)
    absent = [name for name in test if name not in there]
    if with_unlabelled and UNLABELLED in available and UNLABELLED not in there:
        found.append(UNLABELLED)
    return found, absent


def _with_one_view(name: str) -> str:
    subject, _, rest = name.partition("-")
    walk, mark, view = rest.rpartition("-")
    if not mark:
        return name
    return "-".join([subject, walk, one_name_for_each_view(np.array([view])).item()])
