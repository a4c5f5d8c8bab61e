"""Ranked retrieval: how early the gallery items of the probe's subject come when the gallery is sorted by distance.

Shapes: n probes, m gallery items.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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


def retrieval_metrics(
    distances: NDArray[np.float64],
    probe_subjects: NDArray[np.str_],
    gallery_subjects: NDArray[np.str_],
    *,
    left_out: NDArray[np.bool_] | None = None,
) -> RetrievalMetrics | None:
    """Metrics of `distances` [n, m] without the pairs of `left_out` [n, m]; None if no probe has a match."""
    is_match = probe_subjects[:, None] == gallery_subjects
    is_kept = np.ones_like(is_match) if left_out is None else ~left_out
    is_valid = (is_match & is_kept).any(axis=1)
    if not is_valid.any():
        return None
    order = np.argsort(distances[is_valid], axis=1, kind="stable")
    is_kept = np.take_along_axis(is_kept[is_valid], order, axis=1)
    is_match = np.take_along_axis(is_match[is_valid], order, axis=1) & is_kept
    # [n, m]: at each gallery item its place among those kept, from 1, and the number of matches up to there.
    place = np.maximum(np.cumsum(is_kept, axis=1), 1)
    num_found = np.cumsum(is_match, axis=1)
    num_matches = num_found[:, -1]
    first = np.min(np.where(is_match, place, place[:, -1:]), axis=1)
    last = np.max(np.where(is_match, place, 0), axis=1)
    average_precision = np.sum(is_match * num_found / place, axis=1) / num_matches
    return RetrievalMetrics(
        rank1=float(np.mean(first <= 1)),
        rank5=float(np.mean(first <= 5)),
        rank10=float(np.mean(first <= 10)),
        mean_average_precision=float(np.mean(average_precision)),
        mean_inverse_negative_penalty=float(np.mean(num_matches / last)),
        num_probes=int(is_valid.sum()),
    )
