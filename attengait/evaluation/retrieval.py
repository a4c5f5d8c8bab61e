"""Ranked retrieval: how early the gallery items of the probe's subject come when the gallery is sorted by distance.

Items at the same distance have no order. So a figure is its expected value over all orders of the items that are tied,
each order as likely as another. Without ties that is the usual figure.

Shapes: n probes, m gallery items. A group is what is tied: items at one distance from the probe. For each place in the
sorted gallery, `before` is the number of items before its group, `size` that of its group, `matches` that of the
matches in its group, and `found` that of the matches before its group.
"""

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalMetrics:
    """Means over the probes that have a gallery item of their subject; fractions of 1."""

    rank1: float
    rank5: float
    rank10: float
    mean_average_precision: float
    mean_inverse_negative_penalty: float
    """Number of items of the subject divided by the place of the last one (Ye et al., arXiv 2001.04193)."""
    num_probes: int
    num_unmatched: int
    """Probes that are left out of the means, because no item of their subject is there."""
    is_tied: NDArray[np.bool_]
    """[all probes]: whether a match and an item of another subject are at the same distance."""

    @property
    def rank1_of_all(self) -> float:
        """Rank-1 over all probes. Those that are left out of the other means count as wrong."""
        return (
            self.rank1 * self.num_probes / (self.num_probes + self.num_unmatched) if self.num_unmatched else self.rank1
        )


def expected_rank1(
    distances: Float64, probe_subjects: NDArray[np.str_], gallery_subjects: NDArray[np.str_]
) -> tuple[Float64, NDArray[np.bool_]]:
    """Of each probe [n]: the expected rank-1 over all orders of tied items, and whether it depends on the order.

    `distances` is [n, m] with m at least 1. A probe without a match counts as wrong.
    """
    is_nearest = distances == distances.min(axis=1, keepdims=True)
    is_match = probe_subjects[:, None] == gallery_subjects
    num_nearest = is_nearest.sum(axis=1)
    num_right = (is_nearest & is_match).sum(axis=1)
    return num_right / num_nearest, (num_right > 0) & (num_right < num_nearest)


def retrieval_metrics(
    distances: Float64,
    probe_subjects: NDArray[np.str_],
    gallery_subjects: NDArray[np.str_],
    *,
    left_out: NDArray[np.bool_] | None = None,
) -> RetrievalMetrics | None:
    """Metrics of finite `distances` [n, m] without the pairs of `left_out` [n, m]; None if no probe has a match."""
    is_match = probe_subjects[:, None] == gallery_subjects
    if left_out is not None:
        is_match &= ~left_out
        distances = np.where(left_out, np.inf, distances)  # behind all others, and no match
    is_valid = is_match.any(axis=1)
    if not is_valid.any():
        return None
    order = np.argsort(distances[is_valid], axis=1, kind="stable")
    ranked = _Ranked(
        np.take_along_axis(distances[is_valid], order, axis=1), np.take_along_axis(is_match[is_valid], order, axis=1)
    )
    is_tied = np.zeros(len(distances), bool)
    is_tied[is_valid] = ranked.is_tied
    return RetrievalMetrics(
        rank1=exact_mean(ranked.found_within(1)),
        rank5=exact_mean(ranked.found_within(5)),
        rank10=exact_mean(ranked.found_within(10)),
        mean_average_precision=exact_mean(ranked.average_precision()),
        mean_inverse_negative_penalty=exact_mean(ranked.inverse_negative_penalty()),
        num_probes=int(is_valid.sum()),
        num_unmatched=int((~is_valid).sum()),
        is_tied=is_tied,
    )


def exact_mean(values: Float64) -> float:
    """The mean, rounded once: the order of the values changes no bit of it."""
    return fsum(values) / len(values)


class _Ranked:
    """Sorted distances [n, m] and which items match, at least one in each row."""

    def __init__(self, distances: Float64, is_match: NDArray[np.bool_]) -> None:
        num_items = distances.shape[1]
        index = np.arange(num_items)
        is_first = np.ones_like(is_match)
        is_first[:, 1:] = distances[:, 1:] != distances[:, :-1]
        is_last = np.ones_like(is_match)
        is_last[:, :-1] = is_first[:, 1:]
        self.before: Int64 = np.maximum.accumulate(np.where(is_first, index, 0), axis=1)
        last: Int64 = np.minimum.accumulate(np.where(is_last, index, num_items)[:, ::-1], axis=1)[:, ::-1]
        self.size = last - self.before + 1
        so_far: Int64 = np.cumsum(is_match, axis=1)
        self.found: Int64 = np.take_along_axis(so_far - is_match, self.before, axis=1)
        self.matches: Int64 = np.take_along_axis(so_far, last, axis=1) - self.found
        self.num_matches: Int64 = so_far[:, -1]
        is_mixed = (self.matches > 0) & (self.matches < self.size)
        self.is_tied: NDArray[np.bool_] = np.any(is_mixed, axis=1)
        self._index = index

    def found_within(self, places: int) -> Float64:
        """[n]: the probability that a match is among the first `places` items.

        It is among them unless all draws from the first group with a match miss. Draw i, from 0, misses
        with probability (size - matches - i) / (size - i).
        """
        group = (self.matches > 0).argmax(axis=1)[:, None]
        before, size, matches = (
            np.take_along_axis(values, group, axis=1)[:, 0] for values in (self.before, self.size, self.matches)
        )
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
        inside = self._index - self.before
        up_to_here = self.found + 1 + inside * (self.matches - 1) / np.maximum(self.size - 1, 1)
        terms = (self.matches / self.size) * up_to_here / (self._index + 1)
        mean: Float64 = np.sum(terms, axis=1) / self.num_matches
        return mean

    def inverse_negative_penalty(self) -> Float64:
        """[n]: the number of matches divided by the place of the last one, in expectation.

        In the last group with a match, the last match stands in place l of `size`, from 1, with probability
        C(l - 1, matches - 1) / C(size, matches). That is matches / size for l = size, and from l to l - 1 it changes by
        the factor (l - matches) / (l - 1).
        """
        result = np.empty(len(self.matches))
        rows = np.arange(len(result))
        group = self.matches.shape[1] - 1 - (self.matches[:, ::-1] > 0).argmax(axis=1)
        columns = [values[rows, group].tolist() for values in (self.before, self.size, self.matches)]
        for row, (before, size, matches, num_matches) in enumerate(
            zip(*columns, self.num_matches.tolist(), strict=True)
        ):
            places = np.arange(size, matches - 1, -1)
            factors = np.concatenate([[matches / size], (places[:-1] - matches) / np.maximum(places[:-1] - 1, 1)])
            result[row] = np.sum(np.cumprod(factors) * num_matches / (before + places))
        return result
