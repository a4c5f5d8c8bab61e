"""Rank-1 on people of any data set: each sequence is looked for among the sequences of all other walks.

A data set's own protocol says which walks are gallery and which are probes. Where there is none, each sequence is a
probe. Its gallery are all sequences but those of its own walk: the same walk, seen by another camera, would be too easy
to find. Probes whose subject has no other walk have nothing to be found, and are left out.
"""

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from attengait.evaluation.distances import distance
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.retrieval import retrieval_metrics

BLOCK_PROBES = 256
"""Probes that are compared at once, which bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossWalk:
    """Means over the probes; fractions of 1."""

    rank1: float
    mean_average_precision: float
    num_probes: int


def has_probes(subjects: NDArray[np.str_], walks: NDArray[np.str_]) -> bool:
    """Whether one of the subjects [n] has sequences of two walks [n]."""
    pairs = set(zip(subjects.tolist(), walks.tolist(), strict=True))
    return len(pairs) > len({subject for subject, _ in pairs})


def evaluate_cross_walk(embeddings: Embeddings, distance_name: str = "l2") -> CrossWalk:
    """Rank-1 and mean average precision of all sequences that have another walk of their subject.

    Raises ParameterError for an unknown distance, ValueError where no subject has two walks (`has_probes`).
    """
    rank1: list[float] = []
    precision: list[float] = []
    counts: list[int] = []
    for first in range(0, len(embeddings), BLOCK_PROBES):
        probes = embeddings.select(np.arange(first, min(first + BLOCK_PROBES, len(embeddings))))
        is_own = probes.subjects[:, None] == embeddings.subjects
        is_own &= probes.sequences[:, None] == embeddings.sequences
        distances = distance(probes.features, embeddings.features, distance_name)
        metrics = retrieval_metrics(distances, probes.subjects, embeddings.subjects, left_out=is_own)
        if metrics is not None:
            rank1.append(metrics.rank1 * metrics.num_probes)
            precision.append(metrics.mean_average_precision * metrics.num_probes)
            counts.append(metrics.num_probes)
    if not counts:
        raise ValueError("no subject has two walks")
    num_probes = sum(counts)
    return CrossWalk(
        rank1=fsum(rank1) / num_probes,
        mean_average_precision=fsum(precision) / num_probes,
        num_probes=num_probes,
    )
