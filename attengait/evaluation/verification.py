"""Verification: each pair of a probe and a gallery item is accepted if its distance is at most a threshold.

FAR is the share of the pairs of two people that are accepted, TAR that of the pairs of one person, FRR = 1 - TAR.
A gallery of 250,000 and 24,000 probes are six billion pairs, so distances are counted in `NUM_BINS` bins of one width.
Figures are those of the bins' upper edges as thresholds. So a threshold is exact to a millionth of the range.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from attengait.evaluation.blocks import Block, Int64
from attengait.evaluation.distances import Float64, Tile
from attengait.evaluation.ranking import Items

NUM_BINS = 2**20
FALSE_ACCEPT_RATES = (1e-4, 1e-3, 1e-2)
_ROWS = 64
"""Of a table, which are counted at once."""
_NUM_POINTS = 121
"""Of the curves."""


class Scores:
    """Counts the distances of pairs of one person and of two, from `lowest` to `highest`; a listener of `rank`."""

    def __init__(self, lowest: float, highest: float) -> None:
        self._lowest, self._scale = lowest, NUM_BINS / (highest - lowest) if highest > lowest else 0.0
        self._genuine, self._impostor = np.zeros((2, NUM_BINS), np.int64)

    def __call__(self, block: Block, column: Int64, items: Items) -> None:
        """Count the pairs of a block."""
        genuine = self._counts(items.distances[items.is_match])
        self._genuine += genuine
        self._impostor -= genuine + self._counts(items.distances[items.is_left_out])
        is_plain = len(column) == block.table.shape[1]
        for start in range(0, len(block.row), _ROWS):
            some = _rows(block.table, block.row[start : start + _ROWS])
            self._impostor += self._counts(some if is_plain else some[:, column])

    def _counts(self, distances: Tile) -> Int64:
        if not isinstance(distances, np.ndarray):
            import torch

            bins = ((distances - self._lowest) * self._scale).clip(0, NUM_BINS - 1).long()
            counted: Int64 = torch.bincount(bins.ravel(), minlength=NUM_BINS).cpu().numpy()
            return counted
        places = ((distances - self._lowest) * self._scale).clip(0, NUM_BINS - 1).astype(np.int64)
        return np.bincount(places.ravel(), minlength=NUM_BINS)

    def found(self) -> "Verification | None":
        """The figures; None if there is no pair of one person, or none of two."""
        if not self._genuine.any() or not self._impostor.any():
            return None
        edges = np.flatnonzero(self._genuine + self._impostor)
        accepted, wrongly = (np.cumsum(counts[edges]) for counts in (self._genuine, self._impostor))
        return Verification(
            num_genuine=int(accepted[-1]),
            num_impostor=int(wrongly[-1]),
            tar=np.concatenate([[0], accepted / accepted[-1]]),
            far=np.concatenate([[0], wrongly / wrongly[-1]]),
        )


def _rows(table: Tile, rows: Int64) -> Tile:
    if isinstance(table, np.ndarray):
        return table[rows]
    import torch

    return table[torch.from_numpy(rows).to(table.device)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verification:
    """TAR and FAR of one threshold after another, from none accepted to all."""

    num_genuine: int
    """Pairs of one person."""
    num_impostor: int
    """Pairs of two."""
    tar: Float64
    far: Float64

    @property
    def equal_error_rate(self) -> float:
        """Where FAR and FRR are equal, on a straight line between the two thresholds around it."""
        gap = self.far - (1 - self.tar)  # rises from -1 to 1
        after = int(np.argmax(gap >= 0))
        share = -gap[after - 1] / (gap[after] - gap[after - 1])
        return float(self.far[after - 1] + share * (self.far[after] - self.far[after - 1]))

    def tar_at(self, far: float) -> float | None:
        """The largest TAR whose FAR is at most `far`; None if there are too few pairs to measure such a FAR."""
        if self.num_impostor * far < 1:
            return None
        return float(self.tar[np.searchsorted(self.far, far, side="right") - 1])

    def to_dict(self) -> dict[str, Any]:
        """For JSON. The curves have one point for each of some FAR, from 1 / number of pairs to 1."""
        rates = np.geomspace(1 / self.num_impostor, 1, _NUM_POINTS)
        tar = self.tar[np.searchsorted(self.far, rates * (1 + 1e-12), side="right") - 1]
        return {
            "equal_error_rate": self.equal_error_rate,
            "tar_at_far": {f"{far:g}": self.tar_at(far) for far in FALSE_ACCEPT_RATES},
            "genuine_pairs": self.num_genuine,
            "impostor_pairs": self.num_impostor,
            "roc": {"far": rates.tolist(), "tar": tar.tolist()},
            "det": {"far": rates.tolist(), "frr": (1 - tar).tolist()},
        }
