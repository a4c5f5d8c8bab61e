"""Ranked retrieval: how early the gallery items of the probe's subject come when the gallery is sorted by distance.

Items at the same distance have no order. So a figure is its expected value over all orders of the items that are tied,
each order as likely as another. Without ties that is the usual figure.

Shapes: n probes, m gallery items, M matches of a probe, which are the items of its subject. A group is what is tied:
items at one distance from the probe. Only groups with a match count. Of each match, `before` is the number of items
before its group, `size` that of its group, `matches` that of the matches in its group, and `found` that of the matches
before its group. Matches are in the order of their distances; a probe with fewer than M has False in `is_there`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

MEAN_AVERAGE_PRECISION = "mAP"
MEAN_INVERSE_NEGATIVE_PENALTY = "mINP"
"""The number of matches divided by the place of the last one (Ye et al., arXiv 2001.04193)."""


def metric_names(ranks: Sequence[int]) -> list[str]:
    """The names of the columns of `figures_of`: rank1, rank5, ..., mAP, mINP."""
    return [*(f"rank{places}" for places in ranks), MEAN_AVERAGE_PRECISION, MEAN_INVERSE_NEGATIVE_PENALTY]


def figures_of(before: Int64, size: Int64, is_there: Mask, ranks: Sequence[int]) -> tuple[Float64, Mask]:
    """Figures [n, K] of n probes, one column for each of `metric_names`, and which probes [n] are tied.

    `before`, `size` and `is_there` are [n, M]. A tied probe has a match and another item at one distance. A probe
    without a match has rank-k 0, and NaN as the other figures.
    """
    figures = np.zeros((len(before), len(ranks) + 2))
    figures[:, -2:] = np.nan
    is_matched = is_there.any(axis=1)
    is_tied = np.zeros(len(before), bool)
    if is_matched.any():
        groups = _Groups(before[is_matched], size[is_matched], is_there[is_matched])
        for k, places in enumerate(ranks):
            figures[is_matched, k] = groups.found_within(places)
        figures[is_matched, -2] = groups.average_precision()
        figures[is_matched, -1] = groups.inverse_negative_penalty()
        is_tied[is_matched] = groups.is_tied
    return figures, is_tied


class _Groups:
    """Where the matches [n, M] of each probe stand, of which there is at least one."""

    def __init__(self, before: Int64, size: Int64, is_there: Mask) -> None:
        num_matches = before.shape[1]
        index = np.arange(num_matches)
        is_first = np.ones_like(is_there)
        is_first[:, 1:] = before[:, 1:] != before[:, :-1]
        is_first[:, 1:] |= is_there[:, 1:] != is_there[:, :-1]
        is_last = np.ones_like(is_there)
        is_last[:, :-1] = is_first[:, 1:]
        self.found: Int64 = np.maximum.accumulate(np.where(is_first, index, 0), axis=1)
        last: Int64 = np.minimum.accumulate(np.where(is_last, index, num_matches)[:, ::-1], axis=1)[:, ::-1]
        self.before, self.size = before, size
        self.matches: Int64 = last - self.found + 1
        self.is_group: Mask = is_first & is_there
        """[n, M]: the first match of each group."""
        self.num_matches: Int64 = is_there.sum(axis=1)
        self.is_tied: Mask = np.any((self.matches < size) & is_there, axis=1)

    def found_within(self, places: int) -> Float64:
        """[n]: the probability that a match is among the first `places` items.

        It is among them unless all draws from the first group with a match miss. Draw i, from 0, misses
        with probability (size - matches - i) / (size - i).
        """
        before, size, matches = self.before[:, 0], self.size[:, 0], self.matches[:, 0]
        all_miss = np.ones(len(before))
        for draw in range(places):
            is_drawn = (draw < places - before) & (draw < size)
            missing = np.maximum(size - matches - draw, 0) / np.maximum(size - draw, 1)
            all_miss *= np.where(is_drawn, missing, 1)
        return 1 - all_miss

    def average_precision(self) -> Float64:
        """[n]: the mean over the matches of the share of matches up to each, in expectation.

        Place j of a group, from 0, holds a match with probability matches / size. If it does, then
        found + 1 + j (matches - 1) / (size - 1) matches are expected up to there.
        """
        terms = np.where(self.is_group, (self.found + 1) / (self.before + 1), 0.0)  # of groups of one
        for row, group in zip(*np.nonzero(self.is_group & (self.size > 1)), strict=True):
            before, size, matches, found = self._numbers(row, group)
            inside = np.arange(size)
            up_to_here = found + 1 + inside * ((matches - 1) / (size - 1))
            terms[row, group] = matches / size * np.sum(up_to_here / (before + inside + 1))
        # Added one after the other: how many zeros follow, which other probes decide, changes no bit.
        precision: Float64 = terms.cumsum(axis=1)[:, -1] / self.num_matches
        return precision

    def inverse_negative_penalty(self) -> Float64:
        """[n]: the number of matches divided by the place of the last one, in expectation.

        In the last group, the last match stands in place l of `size`, from 1, with probability
        C(l - 1, matches - 1) / C(size, matches). That is matches / size for l = size, and from l to l - 1 it changes by
        the factor (l - matches) / (l - 1).
        """
        rows = np.arange(len(self.num_matches))
        last = self.num_matches - 1
        result: Float64 = self.num_matches / (self.before + self.size)[rows, last]
        for row in np.flatnonzero(self.is_tied):
            before, size, matches, _ = self._numbers(row, last[row])
            places = np.arange(size, matches - 1, -1)
            factors = np.concatenate([[matches / size], (places[:-1] - matches) / np.maximum(places[:-1] - 1, 1)])
            result[row] = np.sum(np.cumprod(factors) * self.num_matches[row] / (before + places))
        return result

    def _numbers(self, row: np.int64, group: np.int64) -> tuple[int, int, int, int]:
        """Before, size, matches, found."""
        before, size, matches, found = (
            int(values[row, group]) for values in (self.before, self.size, self.matches, self.found)
        )
        return before, size, matches, found


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalMetrics:
    """Means over the probes that have a gallery item of their subject; fractions of 1."""

    rank1: float
    rank5: float
    rank10: float
    mean_average_precision: float
    mean_inverse_negative_penalty: float
    num_probes: int
    num_unmatched: int
    """Probes that are left out of the means, because no item of their subject is there."""
    is_tied: Mask
    """[all probes]: whether a match and an item of another subject are at the same distance."""


def retrieval_metrics(
    distances: Float64,
    probe_subjects: NDArray[np.str_],
    gallery_subjects: NDArray[np.str_],
    *,
    left_out: Mask | None = None,
) -> RetrievalMetrics | None:
    """Metrics of finite `distances` [n, m] without the pairs of `left_out` [n, m]; None if no probe has a match."""
    is_match = probe_subjects[:, None] == gallery_subjects
    if left_out is not None:
        is_match &= ~left_out
        distances = np.where(left_out, np.inf, distances)  # behind all others, and no match
    num_matches = is_match.sum(axis=1)
    if not num_matches.any():
        return None
    before, size = np.zeros((2, len(distances), num_matches.max()), np.int64)
    for row, (all_of_row, count) in enumerate(zip(distances, num_matches, strict=True)):
        matches, values = np.sort(all_of_row[is_match[row]]), np.sort(all_of_row)
        before[row, :count] = np.searchsorted(values, matches)
        size[row, :count] = np.searchsorted(values, matches, side="right") - before[row, :count]
    is_there = np.arange(before.shape[1]) < num_matches[:, None]
    figures, is_tied = figures_of(before, size, is_there, (1, 5, 10))
    means = [exact_mean(column) for column in figures[num_matches > 0].T]
    return RetrievalMetrics(
        rank1=means[0],
        rank5=means[1],
        rank10=means[2],
        mean_average_precision=means[3],
        mean_inverse_negative_penalty=means[4],
        num_probes=int((num_matches > 0).sum()),
        num_unmatched=int((num_matches == 0).sum()),
        is_tied=is_tied,
    )


def exact_mean(values: Float64) -> float:
    """The mean, rounded once: the order of the values changes no bit of it."""
    return fsum(values) / len(values)
