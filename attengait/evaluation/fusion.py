"""Two sets of embeddings of the same sequences: matched by name, and their distances added.

Distances of two models have different sizes. So each probe's distances to the gallery are first brought to mean 0 and
standard deviation 1, and then added with weights. That changes no ranking of one model alone.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.evaluation.blocks import Block, DistanceRows, Int64
from attengait.evaluation.distances import Float64, Tile
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.names import Name, as_path, repeated
from attengait.sampling.selection import some_of


def matched(
    first: Embeddings, second: Embeddings, *, only_common: bool
) -> tuple[Embeddings, Embeddings, tuple[str, ...]]:
    """Both with the same sequences in the order of the first, and remarks about those that were left out.

    Raises what `match` raises.
    """
    rows, others, remarks = match(first.labels.names, second.labels.names, only_common=only_common)
    return first.select(rows), second.select(others), remarks


def match(
    first: list[Name], second: list[Name], *, only_common: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Rows of the first and of the second names [m] of the same sequences, and remarks about those left out.

    Raises AttenGaitError where a sequence is there twice, or where one side lacks one of the other. With `only_common`,
    those without a partner are left out instead.
    """
    names = [first, second]
    for what, these in zip(("first", "second"), names, strict=True):
        if again := repeated(these):
            raise AttenGaitError(
                f"the {what} embeddings have {len(again)} rows of sequences that are there already, such as "
                f"{as_path(again[0])}, so they cannot be matched"
            )
    places = {name: row for row, name in enumerate(names[1])}
    in_first = set(names[0])
    lacking = [("second", [name for name in names[0] if name not in places])]
    lacking.append(("first", [name for name in names[1] if name not in in_first]))
    remarks = [
        f"{len(absent)} sequences that the {what} embeddings lack are left out: {_some(absent)}"
        for what, absent in lacking
        if absent
    ]
    if remarks and not only_common:
        described = " and ".join(
            f"the {what} embeddings lack {len(absent)} sequences of the other, such as {as_path(absent[0])}"
            for what, absent in lacking
            if absent
        )
        raise AttenGaitError(
            f"{described}; --only-common leaves out what one of them lacks (in Python: only_common=True)"
        )
    common = [row for row, name in enumerate(names[0]) if name in places]
    if not common:
        raise AttenGaitError("the two sets of embeddings have no sequence in common")
    others = [places[names[0][row]] for row in common]
    return np.array(common), np.array(others), tuple(remarks)


def _some(names: list[Name]) -> str:
    return some_of([as_path(name) for name in names])


def same_pairs(first: Int64, second: Int64) -> Int64:
    """[n]: a number for each pair of the numbers [n] of two sets of embeddings, the same for equal pairs."""
    numbers: Int64 = np.unique(np.stack([first, second], axis=1), axis=0, return_inverse=True)[1].ravel()
    return numbers


class FusedRows:
    """The weighted sum of two rows of distances. Both were made of the same numbers of `same_pairs`."""

    def __init__(self, first: DistanceRows, second: DistanceRows, weight: float) -> None:
        """`weight` is that of the second."""
        self._rows, self._weight = (first, second), weight
        self.column = first.column

    @property
    def num_probes(self) -> int:
        """The probes of all blocks."""
        return self._rows[0].num_probes

    def blocks(self) -> Iterator[Block]:
        """Each probe is in one block."""
        counts = np.bincount(self.column).astype(np.float64)
        # One size for both: on a GPU, the first has less memory free for the second.
        size = min(rows.block_probes for rows in self._rows)
        for first, second in zip(*(rows.blocks(size) for rows in self._rows), strict=True):
            table = _standard(first.table, counts)
            table *= 1 - self._weight
            table += self._weight * _standard(second.table, counts)
            yield replace(first, table=table)


def _standard(table: Tile, counts: Float64) -> Tile:
    """[b, u] with mean 0 and standard deviation 1 in each row, in place; a column stands for `counts` [u] items."""
    weights: Tile = counts / counts.sum()
    if not isinstance(table, np.ndarray):
        import torch

        weights = torch.from_numpy(weights).to(table.device)
    for row in table:  # each for itself, so that the other rows of a block change no bit
        row -= (row * weights).sum()
        deviation = float((row * row * weights).sum()) ** 0.5
        if deviation > 0:
            row /= deviation
    return table
