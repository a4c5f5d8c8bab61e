"""k-reciprocal re-ranking (Zhong et al. 2017) of all probes against one gallery, in blocks.

Two items are near if they are among each other's nearest, and if their neighbours are the same. The published code
holds two tables of all items against all. Here only the neighbours of each item are kept, some tens, and the distances
pass by in blocks, twice. It keeps its weights in float16; here they are float64, so the two agree to about 1e-3.

Shapes: n probes, m gallery items, N = n + m items, the probes first.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.evaluation.blocks import Block, Int64, Rows
from attengait.evaluation.distances import Float64
from attengait.evaluation.ranking import as_numpy

K1, K2, OWN_SHARE = 6, 6, 0.3
"""Neighbours, neighbours to average over, and the share of the distance itself: as OpenGait has them for HID."""

_ROWS = 256
"""Probes that are re-ranked at once."""

PairDistances = Callable[[Int64, Int64], Float64]
"""Distances [p] between items [p] and items [p]."""


class RerankedRows:
    """Rows of re-ranked distances, between 0 and 1."""

    def __init__(
        self,
        everything: Rows,
        rows: Rows,
        between: PairDistances,
        *,
        k1: int = K1,
        k2: int = K2,
        own_share: float = OWN_SHARE,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`everything` has all N items as probes and as gallery, `rows` the n probes and the m gallery items.

        Among equally near items the first ones are neighbours, and sums are in the order of the items.
        """
        self._rows, self._own_share = rows, own_share
        self.column = np.arange(len(rows.column))
        self._num_probes = rows.num_probes
        neighbours, self._farthest = _neighbours(everything, max(k1 + 1, k2), progress)
        weights = _weights(neighbours, self._farthest, between, k1)
        self._weights = _averaged(weights, neighbours, k2) if k2 != 1 else weights

    @property
    def num_probes(self) -> int:
        """The probes of all blocks."""
        return self._num_probes

    def blocks(self) -> Iterator[Block]:
        """Each probe is in one block, and has a row of its own."""
        holders = _holders(self._weights)
        for block in self._rows.blocks():
            distances = as_numpy(block.table)
            for start in range(0, len(block.probes), _ROWS):
                probes = block.probes[start : start + _ROWS]
                table = distances[block.row[start : start + _ROWS]][:, self._rows.column]
                table *= self._own_share / self._farthest[probes, None]
                for row, probe in zip(table, probes.tolist(), strict=True):
                    row += (1 - self._own_share) * self._jaccard(probe, holders)
                yield Block(probes=probes, row=np.arange(len(probes)), table=table)

    def _jaccard(self, probe: int, holders: list[tuple[Int64, Float64]]) -> Float64:
        """[m]: 1 minus how much the neighbours of the probe and of each gallery item overlap."""
        common = np.zeros(len(self._weights))
        for item, weight in zip(*self._weights[probe], strict=True):
            who, theirs = holders[item]
            common[who] += np.minimum(weight, theirs)
        common = common[self._num_probes :]
        return 1 - common / (2 - common)


Weights = list[tuple[Int64, Float64]]
"""For each item: its neighbours, and how near each is; the weights of an item add up to 1."""


def _neighbours(rows: Rows, count: int, progress: Callable[[int], None]) -> tuple[Int64, Float64]:
    """The nearest items [N, count] of each item, itself first, and its largest distance [N], at least a tiny number."""
    num_items = rows.num_probes
    count = min(count, num_items)
    found, farthest = np.empty((num_items, count), np.int64), np.empty(num_items)
    for block in rows.blocks():
        table = as_numpy(block.table)
        for item, row in zip(block.probes.tolist(), block.row.tolist(), strict=True):
            values = table[row][rows.column]
            farthest[item] = max(values.max(), np.finfo(np.float64).tiny)
            values[item] = -1
            limit = np.partition(values, count - 1)[count - 1]
            near = np.flatnonzero(values <= limit)
            found[item] = near[np.argsort(values[near], kind="stable")[:count]]
        progress(len(block.probes))
    return found, farthest


def _weights(neighbours: Int64, farthest: Float64, between: PairDistances, k1: int) -> Weights:
    near, nearer = neighbours[:, : k1 + 1], neighbours[:, : round(k1 / 2) + 1]
    mutual, closely = _reciprocal(near), _reciprocal(nearer)
    result: Weights = []
    for item, own in enumerate(mutual):
        members = [own]
        for other in own:
            theirs = closely[other]
            if len(np.intersect1d(theirs, own)) > 2 / 3 * len(theirs):
                members.append(theirs)
        everyone = np.unique(np.concatenate(members))
        nearness = np.exp(-between(np.full(len(everyone), item), everyone) / farthest[item])
        result.append((everyone, nearness / nearness.sum()))
    return result


def _reciprocal(neighbours: Int64) -> list[Int64]:
    """Of each item: those of its neighbours [N, k] that have it among theirs."""
    is_mutual: NDArray[Any] = (neighbours[neighbours] == np.arange(len(neighbours))[:, None, None]).any(axis=2)
    return [row[mutual] for row, mutual in zip(neighbours, is_mutual, strict=True)]


def _averaged(weights: Weights, neighbours: Int64, k2: int) -> Weights:
    """Each item's weights, averaged over its `k2` nearest, itself included."""
    result: Weights = []
    for near in neighbours[:, :k2]:
        items = np.concatenate([weights[other][0] for other in near])
        values = np.concatenate([weights[other][1] for other in near])
        distinct, which = np.unique(items, return_inverse=True)
        result.append((distinct, np.bincount(which, weights=values) / len(near)))
    return result


def _holders(weights: Weights) -> list[tuple[Int64, Float64]]:
    """The other way round: for each item, who has it among its neighbours, and with which weight."""
    owners = np.repeat(np.arange(len(weights)), [len(items) for items, _ in weights])
    items = np.concatenate([items for items, _ in weights])
    values = np.concatenate([values for _, values in weights])
    order = np.argsort(items, kind="stable")
    ends = np.cumsum(np.bincount(items, minlength=len(weights)))[:-1]
    return list(zip(np.split(owners[order], ends), np.split(values[order], ends), strict=True))
