"""Verification: each pair of a probe and a gallery item is accepted if its distance is at most a threshold.

FAR is the share of the pairs of two people that are accepted, TAR that of the pairs of one person, FRR = 1 - TAR.
A gallery of 250,000 and 24,000 probes are six billion pairs, so distances are counted in bins. Figures are those of
the bins' upper edges as thresholds. A bin is a step of the leading bits of a float64: there are 2^18 bins from a power
of two to the next. So a threshold is exact to four millionths of itself, whatever the range of the distances is. The
bins take 4 MiB for each power of two from which to the next there are distances.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from attengait.evaluation.blocks import Block, Int64
from attengait.evaluation.distances import Float64, Tile
from attengait.evaluation.ranking import Items

FALSE_ACCEPT_RATES = (1e-4, 1e-3, 1e-2)
_BITS = 18
"""Of the fraction of a float64, which has 52."""
_PAGES = 2**12
"""Signs and exponents of a float64. The bins of each are a page."""
_DISTANCES = 2**21
"""Of a table, which are counted at once."""
_EXACT = 1e-3
_NUM_POINTS = 121
"""Of the curves."""


class Scores:
    """Counts the distances of pairs of one person and of two; a listener of `rank`."""

    def __init__(self) -> None:
        self._pages: dict[int, Int64] = {}
        """[2, bins]: pairs of one person, and of two."""

    def __call__(self, block: Block, column: Int64, items: Items) -> None:
        """Count the pairs of a block."""
        genuine, left_out = items.distances[items.is_match], items.distances[items.is_left_out]
        self._count(genuine, 1, -1)
        self._count(left_out, 0, -1)
        is_plain = len(column) == block.table.shape[1]
        step = max(1, _DISTANCES // len(column))
        for start in range(0, len(block.row), step):
            some = _rows(block.table, block.row[start : start + step])
            self._count(some if is_plain else some[:, column], 0, 1)

    def _count(self, distances: Tile, genuine: int, impostor: int) -> None:
        """Add these numbers to the bins of each of the distances."""
        for page, counts in _counts(distances):
            bins = self._pages.setdefault(page, np.zeros((2, 2**_BITS), np.int64))
            bins[0] += genuine * counts
            bins[1] += impostor * counts

    def found(self) -> "Verification | None":
        """The figures; None if there is no pair of one person, or none of two."""
        # Of a negative number, larger bits are a smaller number.
        order = sorted(self._pages, key=lambda page: page if page >= 0 else -page - 2 * _PAGES)
        nothing = np.zeros((2, 0), np.int64)
        counts = np.concatenate([nothing, *(_used(self._pages[page], page < 0) for page in order)], axis=1)
        accepted, wrongly = np.cumsum(counts, axis=1)
        if not counts[0].any() or not counts[1].any():
            return None
        return Verification(
            num_genuine=int(accepted[-1]),
            num_impostor=int(wrongly[-1]),
            tar=np.concatenate([[0], accepted / accepted[-1]]),
            far=np.concatenate([[0], wrongly / wrongly[-1]]),
        )


def _counts(distances: Tile) -> list[tuple[int, Int64]]:
    """How many distances the bins of a page have, for each page with some. Those of negative numbers are below 0."""
    if not isinstance(distances, np.ndarray):
        import torch

        bits = (distances + 0.0).ravel().view(torch.int64) >> 52 - _BITS  # -0.0 becomes 0.0
        pages = (bits >> _BITS) + _PAGES // 2
        used = torch.bincount(pages, minlength=_PAGES).nonzero().ravel()
        place = torch.zeros(_PAGES, dtype=torch.int64, device=distances.device)
        place[used] = torch.arange(len(used), device=distances.device)
        bins = (place[pages] << _BITS) + (bits & 2**_BITS - 1)
        counted = torch.bincount(bins, minlength=len(used) << _BITS).cpu().numpy()
        numbers = used.cpu().numpy()
    else:
        bits = (distances + 0.0).ravel().view(np.int64) >> 52 - _BITS
        pages = (bits >> _BITS) + _PAGES // 2
        numbers = np.flatnonzero(np.bincount(pages, minlength=_PAGES))
        place_of = np.zeros(_PAGES, np.int64)
        place_of[numbers] = np.arange(len(numbers))
        counted = np.bincount((place_of[pages] << _BITS) + (bits & 2**_BITS - 1), minlength=len(numbers) << _BITS)
    return list(zip((numbers - _PAGES // 2).tolist(), counted.reshape(len(numbers), 2**_BITS), strict=True))


def _used(counts: Int64, is_negative: bool) -> Int64:
    """[2, u]: the bins with a pair, in the order of the distances."""
    counts = counts[:, counts.any(axis=0)]
    return counts[:, ::-1] if is_negative else counts


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
        after, gap = self._equal
        share = -gap[after - 1] / (gap[after] - gap[after - 1])
        return float(self.far[after - 1] + share * (self.far[after] - self.far[after - 1]))

    @property
    def remarks(self) -> tuple[str, ...]:
        """A sentence where so many distances share a bin that the equal error rate is not exact to `_EXACT`."""
        after, _ = self._equal
        width = min(rates[after] - rates[after - 1] for rates in (self.far, self.tar))
        if width <= _EXACT:
            return ()
        return (
            "verification: so many distances are equal, or nearly, that the equal error rate is exact to "
            f"{100 * width:.1f} % only",
        )

    @property
    def _equal(self) -> tuple[int, Float64]:
        """The threshold from which on FAR is at least FRR, and FAR - FRR of all."""
        gap = self.far - (1 - self.tar)  # rises from -1 to 1
        return int(np.argmax(gap >= 0)), gap

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
