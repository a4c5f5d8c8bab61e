"""Probes compared with galleries as a protocol says, and what was found of each probe, in cells.

A cell is what is averaged over probes: the probes of one condition and, where the protocol has them apart, of one view
against one gallery view. Figures are means of means: over the probes of a cell, over the gallery views, over the probe
views, and over the conditions.

Shapes: N embeddings, C cells, K figures of `Cells.names`, S subjects.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import fsum

import numpy as np
from numpy.typing import NDArray

from attengait.evaluation.blocks import Int64, Rows
from attengait.evaluation.distances import Float64
from attengait.evaluation.ranking import Listener, People, Ranked, rank
from attengait.evaluation.retrieval import Mask, metric_names
from attengait.evaluation.rule import Rule
from attengait.evaluation.sides import Labels, Side, Sides
from attengait.system.progress import SILENT, Progress

ALL_VIEWS, OTHER_VIEWS = "rank1_all_views", "rank1_other_views"
"""Rank-1 for pairs of a probe view and a gallery view, with identical views and without."""

RowsOf = Callable[[Int64, Int64], Rows]
"""Distances between some embeddings (probes) and others (gallery)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What was found of some probes."""

    condition: str
    view: str | None
    """Of the probes; None where all views are together."""
    probes: Int64
    """[p]: which embeddings."""
    figures: Float64
    """[p, K]: NaN where a probe does not count."""


class Matches:
    """Whether the gallery of a condition has items of the probes' subjects."""

    def __init__(self, num: int) -> None:
        self._num_compared, self._num_matched = np.zeros((2, num), np.int64)
        self.is_alone = np.zeros(num, bool)
        """[N]: had nothing to be compared with."""

    def hear(self, side: Side, probes: Int64, ranked: Ranked) -> None:
        """Note what was found of these embeddings, of which some are probes of the condition."""
        mine = side.probes[probes]
        self._num_compared[probes[mine]] += 1
        self._num_matched[probes[mine]] += ranked.is_matched[mine]
        self.is_alone[probes[mine]] |= ranked.is_alone[mine]

    @property
    def is_matched(self) -> Mask:
        """[N]: was compared with an item of its subject, and so can be recognised."""
        found: Mask = self._num_matched > 0
        return found

    @property
    def is_unmatched(self) -> Mask:
        """[N]: was compared, and never with an item of its subject."""
        found: Mask = (self._num_compared > 0) & (self._num_matched == 0)
        return found

    @property
    def is_partly_matched(self) -> Mask:
        """[N]: was compared with items of its subject at some of the gallery's views, and at others with none."""
        found: Mask = (self._num_matched > 0) & (self._num_matched < self._num_compared)
        return found


@dataclass(slots=True, kw_only=True)
class Cells:
    """All that a protocol found."""

    names: tuple[str, ...]
    each: list[Cell] = field(default_factory=list)
    is_tied: Mask
    """[N]: a match and another person were at the same distance."""
    matches: dict[str, "Matches"]
    """Of the probes of each condition."""
    in_view_pairs: dict[str, "Matches"]
    """The same of the comparisons for pairs of views; empty where the protocol has none."""

    @property
    def is_unmatched(self) -> Mask:
        """[N]: was compared in a condition, and had no gallery item of its subject there."""
        found: Mask = np.logical_or.reduce([each.is_unmatched for each in self.matches.values()])
        return found

    def sums(self) -> tuple[Float64, Float64]:
        """[C, K]: sums over the probes of each cell, rounded once, and over how many of them."""
        totals = np.zeros((2, len(self.each), len(self.names)))
        for c, cell in enumerate(self.each):
            for k, column in enumerate(cell.figures.T):
                present = column[~np.isnan(column)]
                totals[:, c, k] = fsum(present), len(present)
        return totals[0], totals[1]

    def sums_by_subject(self, subjects: Int64, num_subjects: int) -> Iterator[tuple[Float64, Float64]]:
        """For each cell: sums [S, K] over the probes of each subject, and over how many. `subjects` is [N]."""
        for cell in self.each:
            who = subjects[cell.probes]
            counts = ~np.isnan(cell.figures)
            values = np.where(counts, cell.figures, 0)
            yield tuple(  # type: ignore[misc]
                np.stack([np.bincount(who, weights=column, minlength=num_subjects) for column in table.T], axis=1)
                for table in (values, counts.astype(np.float64))
            )


def compare(
    rule: Rule,
    labels: Labels,
    sides: Sides,
    rows_of: RowsOf,
    *,
    listener: Listener | None = None,
    progress: Progress = SILENT,
) -> Cells:
    """Compare all probes of a protocol with their galleries."""
    people = _People(rule, labels)
    names = (*metric_names(rule.ranks), *((ALL_VIEWS, OTHER_VIEWS) if rule.view_pairs else ()))
    num = len(labels)
    matches, in_view_pairs = ({side.condition: Matches(num) for side in sides.each} for _ in range(2))
    cells = Cells(
        names=names,
        is_tied=np.zeros(num, bool),
        matches=matches,
        in_view_pairs=in_view_pairs if rule.view_pairs else {},
    )
    told = _Told(progress)
    for sharing in _sharing_a_gallery(sides):
        if rule.compares == "views":
            for which, ranked, other in _view_by_view(people, sharing, rows_of, rule.ranks, listener, told):
                cells.is_tied[which] |= ranked.is_tied
                for side in sharing:
                    matches[side.condition].hear(side, which, ranked)
                    cells.each += _by_view(people, side, which, ranked.figures, without=other)
        else:
            which = np.flatnonzero(np.logical_or.reduce([side.probes for side in sharing]))
            gallery = np.flatnonzero(sharing[0].gallery)
            if not len(which) or not len(gallery):
                continue  # of these conditions nothing is measured; the coverage says what is missing
            told.total += len(which)
            ranked = rank(
                rows_of(which, gallery),
                people.some(which, gallery, leaves_out=rule.leaves_out),
                rule.ranks,
                listener=listener,
                progress=told.more,
            )
            cells.is_tied[which] |= ranked.is_tied
            figures = ranked.figures
            if rule.unmatched == "left out":
                figures[~ranked.is_matched] = np.nan
            for side in sharing:
                matches[side.condition].hear(side, which, ranked)
                if rule.table == "views":
                    cells.each += _by_view(people, side, which, figures)
                else:
                    mine = side.probes[which]
                    cells.each.append(
                        Cell(condition=side.condition, view=None, probes=which[mine], figures=figures[mine])
                    )
            if rule.view_pairs:
                cells.each += _view_pairs(people, sharing, rows_of, names, in_view_pairs, told)
    if rule.view_pairs:
        width = len(names)
        cells.each = [replace(cell, figures=_widened(cell.figures, width)) for cell in cells.each]
    return cells


class _Told:
    """Counts the probes for the progress; those of later galleries are not known before."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._done, self.total = progress, 0, 0

    def more(self, count: int) -> None:
        self._done += count
        self._progress.update("Comparing", self._done, max(self.total, self._done), unit="probes")


class _People:
    """Numbers for the subjects and views [N] of all embeddings."""

    def __init__(self, rule: Rule, labels: Labels) -> None:
        _, self.subjects = np.unique(labels.subjects, return_inverse=True)
        names, self.views = np.unique(rule.views(labels.views), return_inverse=True)
        self.view_names = [str(name) for name in names]
        self._left_out: dict[str, Int64] = {
            "own view": self.views,
            "own walk": np.unique(labels.walks, return_inverse=True)[1],
        }

    def some(self, probes: Int64, gallery: Int64, *, leaves_out: str = "nothing") -> People:
        own = self._left_out.get(leaves_out)
        return People(
            probes=self.subjects[probes],
            gallery=self.subjects[gallery],
            probe_rows=probes,
            gallery_rows=gallery,
            probe_views=None if own is None else own[probes],
            gallery_views=None if own is None else own[gallery],
        )


def _sharing_a_gallery(sides: Sides) -> list[list[Side]]:
    """The conditions, those with the same gallery together: their probes are compared at once."""
    groups: list[list[Side]] = []
    for side in sides.each:
        for group in groups:
            if np.array_equal(group[0].gallery, side.gallery):
                group.append(side)
                break
        else:
            groups.append([side])
    return groups


def _view_by_view(
    people: _People,
    sharing: list[Side],
    rows_of: RowsOf,
    ranks: tuple[int, ...],
    listener: Listener | None,
    told: _Told,
    *,
    identical_too: bool = False,
) -> Iterator[tuple[Int64, Ranked, int]]:
    """For each gallery view: the probes of other views (or all), what was found of them, and the view."""
    all_probes = np.logical_or.reduce([side.probes for side in sharing])
    in_gallery = sharing[0].gallery
    views = np.unique(people.views[in_gallery])
    chosen = [(all_probes if identical_too else all_probes & (people.views != view), view) for view in views]
    told.total += sum(int(probes.sum()) for probes, _ in chosen)
    for probes, view in chosen:
        which, gallery = np.flatnonzero(probes), np.flatnonzero(in_gallery & (people.views == view))
        if len(which):
            found = rank(
                rows_of(which, gallery),
                people.some(which, gallery),
                ranks,
                listener=listener,
                progress=told.more,
            )
            yield which, found, int(view)


def _by_view(
    people: _People, side: Side, which: Int64, figures: Float64, *, without: int | None = None
) -> Iterator[Cell]:
    """One cell for each view of a condition's probes among `which`."""
    mine = side.probes[which]
    for view in np.unique(people.views[which[mine]]):
        if view != without:
            rows = mine & (people.views[which] == view)
            yield Cell(
                condition=side.condition, view=people.view_names[view], probes=which[rows], figures=figures[rows]
            )


def _view_pairs(
    people: _People,
    sharing: list[Side],
    rows_of: RowsOf,
    names: tuple[str, ...],
    matches: dict[str, Matches],
    told: _Told,
) -> Iterator[Cell]:
    """Rank-1 for each pair of views: two of the columns, the others NaN."""
    of_all, of_others = names.index(ALL_VIEWS), names.index(OTHER_VIEWS)
    for which, ranked, other in _view_by_view(people, sharing, rows_of, (1,), None, told, identical_too=True):
        figures = np.full((len(which), len(names)), np.nan)
        figures[:, of_all] = ranked.figures[:, 0]
        figures[:, of_others] = np.where(people.views[which] == other, np.nan, ranked.figures[:, 0])
        for side in sharing:
            matches[side.condition].hear(side, which, ranked)
            yield from _by_view(people, side, which, figures)


def _widened(figures: Float64, width: int) -> Float64:
    return np.pad(figures, ((0, 0), (0, width - figures.shape[1])), constant_values=np.nan)


class Means:
    """The means of means of cells, for any number of samples of subjects at once.

    Figures are [..., K], NaN where there is nothing to measure. A mean is over what was measured of all subjects. So a
    sample that lacks a part of it has NaN.
    """

    def __init__(self, cells: Cells, conditions: tuple[str, ...], headline: str) -> None:
        self.conditions = conditions
        self._headline = conditions.index(headline) if headline else None
        self._is_measured: Mask = np.stack([~np.isnan(cell.figures).all(axis=0) for cell in cells.each])
        """[C, K]"""
        of: dict[tuple[str, str | None], list[int]] = {}
        for c, cell in enumerate(cells.each):
            of.setdefault((cell.condition, cell.view), []).append(c)
        self._cells_of = of

    def by_view(self, totals: Float64, counts: Float64) -> dict[tuple[str, str | None], Float64]:
        """Of each condition and view, from sums [..., C, K] over probes and numbers of them."""
        cells = _divided(totals, counts)
        return {key: _mean(cells[..., rows, :], self._is_measured[rows]) for key, rows in self._cells_of.items()}

    def by_condition(self, by_view: dict[tuple[str, str | None], Float64]) -> list[Float64]:
        """Of each condition, in order."""
        nothing = np.full_like(next(iter(by_view.values())), np.nan)
        found = []
        for condition in self.conditions:
            keys = [key for key in by_view if key[0] == condition]
            if keys:
                measured = [self._is_measured[self._cells_of[key]].any(axis=0) for key in keys]
                found.append(_mean(np.stack([by_view[key] for key in keys], axis=-2), np.stack(measured)))
            else:
                found.append(nothing)
        return found

    def overall(self, by_condition: list[Float64]) -> Float64:
        """The headline figures."""
        if self._headline is not None:
            return by_condition[self._headline]
        rows = [[c for key, of in self._cells_of.items() if key[0] == name for c in of] for name in self.conditions]
        measured = [self._is_measured[of].any(axis=0) for of in rows]
        return _mean(np.stack(by_condition, axis=-2), np.stack(measured))


def _mean(figures: Float64, is_measured: Mask) -> Float64:
    """[..., n, K] to [..., K]: the mean of those of `is_measured` [n, K]; NaN if there are none."""
    return _divided(np.where(is_measured, figures, 0).sum(axis=-2), is_measured.sum(axis=0))


def _divided(totals: Float64, counts: NDArray[np.floating] | NDArray[np.integer]) -> Float64:
    with np.errstate(invalid="ignore"):
        result: Float64 = np.where(counts > 0, totals / np.where(counts > 0, counts, 1), np.nan)
    return result
