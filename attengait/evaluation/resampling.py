"""How sure figures are: intervals and tests that resample the subjects of the probes.

The sequences of one person are alike, so people are resampled, not sequences: each resample takes as many of the
probes' subjects as there are, with replacement. The gallery stays as it is. Everything follows from the seed.
Where a resample lacks something that the figures are means over, such as a condition that few subjects have, there is
no interval. Nor is there one with fewer than two subjects.

Shapes: S subjects, B resamples, C cells, K figures.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from attengait.evaluation.blocks import Int64
from attengait.evaluation.distances import Float64
from attengait.evaluation.measure import Cells, Means

LEVEL = 0.95
_FEWEST_SUBJECTS = 2
_BLOCK = 100
"""Resamples at once."""


def bootstrap(cells: Cells, means: Means, subjects: Int64, num_resamples: int, seed: int) -> tuple[Float64, Float64]:
    """The figures of all resamples: by condition [B, conditions, K], and overall [B, K].

    `subjects` [N] numbers the subjects of the embeddings.
    """
    present, who = subjects_of_probes(cells, subjects)
    if len(present) < _FEWEST_SUBJECTS:
        nothing = np.full((1, len(means.conditions), len(cells.names)), np.nan)
        return nothing, nothing[:, 0]
    sums = list(cells.sums_by_subject(who, len(present)))
    by_condition, overall = [], []
    for weights in _resamples(len(present), num_resamples, seed):
        conditions = _figures(means, sums, weights)
        by_condition.append(np.stack(conditions, axis=1))
        overall.append(means.overall(conditions))
    return np.concatenate(by_condition), np.concatenate(overall)


def paired_test(
    both: tuple[Cells, Cells], means: Means, subjects: Int64, num_resamples: int, seed: int
) -> tuple[Float64, Float64, Float64]:
    """How the second of two models differs from the first, overall, on the same probes.

    Returns the differences [K], those of resamples of the subjects [B, K] (the same subjects for both models), and the
    two-sided p-values [K] of a permutation test: under the hypothesis that the two are equally good, each subject's
    results could as well be exchanged between them. p is the share of B random exchanges with a difference as large as
    the one found, counting the one found, too.
    """
    present, who = subjects_of_probes(both[0], subjects)
    nothing = np.full((1, len(both[0].names)), np.nan)
    if not len(present):
        return nothing[0], nothing, nothing[0]
    first, second = (list(cells.sums_by_subject(who, len(present))) for cells in both)
    found = _difference(means, first, second, np.ones((1, len(present))))[0]
    differences = [nothing]
    if len(present) >= _FEWEST_SUBJECTS:
        resamples = _resamples(len(present), num_resamples, seed)
        differences = [_difference(means, first, second, weights) for weights in resamples]
    random = np.random.default_rng([seed, 1])
    # One below the other [2 S, K]: a subject counts with one of its two rows.
    stacked = [(np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])) for a, b in zip(first, second, strict=True)]
    at_least = np.zeros(len(found))
    for size in _blocks(num_resamples):
        stays = random.integers(0, 2, (size, len(present))).astype(np.float64)
        one, other = (
            means.overall(_figures(means, stacked, np.concatenate(weights, axis=1)))
            for weights in ((stays, 1 - stays), (1 - stays, stays))
        )
        # A difference that is equal but for rounding is as large.
        at_least += (np.abs(other - one) >= np.abs(found) - 1e-12).sum(axis=0)
    p_values = np.where(np.isnan(found), np.nan, (at_least + 1) / (num_resamples + 1))
    return found, np.concatenate(differences), p_values


Sums = list[tuple[Float64, Float64]]
"""For each cell: sums [S, K] by subject, and of how many probes."""


def interval(values: Float64) -> tuple[Float64, Float64]:
    """[B, ...] to the lower and the upper end [...] that hold `LEVEL` of the resamples; NaN where one is NaN."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def _difference(means: Means, first: Sums, second: Sums, weights: Float64) -> Float64:
    """[B, K]: the second's overall figures minus the first's."""
    one, other = (means.overall(_figures(means, sums, weights)) for sums in (first, second))
    return other - one


def _figures(means: Means, sums: Sums, weights: Float64) -> list[Float64]:
    """Figures [B, K] of each condition, where subjects count as often as `weights` [B, S] says."""
    totals = np.stack([weights @ of_cell for of_cell, _ in sums], axis=1)
    counts = np.stack([weights @ of_cell for _, of_cell in sums], axis=1)
    return means.by_condition(means.by_view(totals, counts))


def subjects_of_probes(cells: Cells, subjects: Int64) -> tuple[Int64, Int64]:
    """The subjects that have a probe with a figure, and [N] the place of each embedding's among them."""
    counted = [cell.probes[~np.isnan(cell.figures).all(axis=1)] for cell in cells.each]
    present = np.unique(subjects[np.concatenate(counted)])
    return present, np.searchsorted(present, subjects).clip(max=len(present) - 1)


def why_no_interval(num_subjects: int, lacking: Sequence[str]) -> tuple[str, ...]:
    """A sentence where there are too few subjects, or where what is named in `lacking` has a figure and no interval."""
    if num_subjects < _FEWEST_SUBJECTS:
        return (f"no intervals: there must be 2 subjects with a probe that was compared, but there is {num_subjects}",)
    names = ", ".join(lacking)
    few = "some resamples have none of the few subjects with probes of one condition or view there"
    return (f"no interval for {names}: {few}",) if lacking else ()


def _resamples(num_subjects: int, num_resamples: int, seed: int) -> Iterator[Float64]:
    """Blocks [b, S] of how often each subject is taken."""
    random = np.random.default_rng([seed, 0])
    for size in _blocks(num_resamples):
        drawn = random.integers(0, num_subjects, (size, num_subjects))
        yield np.stack([np.bincount(row, minlength=num_subjects) for row in drawn]).astype(np.float64)


def _blocks(count: int) -> Iterator[int]:
    for start in range(0, count, _BLOCK):
        yield min(_BLOCK, count - start)
