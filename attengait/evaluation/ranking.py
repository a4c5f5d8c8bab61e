"""Probes ranked against a gallery, a block of distances at a time, for galleries of any size.

No gallery is sorted. Of each match, the items that are nearer are counted, and those at the same distance. That is all
that rank-k, average precision and the rest need, see `attengait.evaluation.retrieval`.

Shapes: n probes, m gallery items; in a block, p probes, a table of b different ones and u different items; M items of
the subject that has most.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attengait.evaluation.blocks import Block, Int64, Rows
from attengait.evaluation.distances import Float64, Tile
from attengait.evaluation.retrieval import Mask, figures_of
from attengait.system.machine import usable_cores

_THREADS_FROM_ITEMS = 20_000
"""A row with fewer items is counted sooner than it is handed to a thread."""
_ITEMS = 2**22
"""Items of the probes' own subjects that are looked at together. With few subjects, they are most of the gallery."""
_SORT_FROM_MATCHES = 100
"""With more matches than this, sorting a row is quicker than counting once for each match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Whom n probes and m gallery items show, and which pairs are not compared. Numbers stand for names."""

    probes: Int64
    """[n] subjects."""
    gallery: Int64
    """[m] subjects."""
    probe_rows: Int64
    """[n]: which embedding it is. No embedding is compared with itself."""
    gallery_rows: Int64
    """[m]"""
    probe_views: Int64 | None = None
    """[n]: with these, items of the same subject and view are not compared. They may also stand for walks."""
    gallery_views: Int64 | None = None
    """[m]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """What was found of each probe."""

    figures: Float64
    """[n, K]: see `figures_of`; NaN where there was nothing to be compared with."""
    is_matched: Mask
    """[n]: has an item of its subject."""
    is_tied: Mask
    """[n]: a match and another person are at the same distance."""
    is_alone: Mask
    """[n]: has nothing at all to be compared with."""


Listener = Callable[[Block, Int64, "Items"], None]
"""Hears of each block: the block, the column [m] of each item, and the items of the probes' subjects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """The gallery items of each probe's own subject, and their distances; all [p, M]."""

    distances: Float64
    is_match: Mask
    is_left_out: Mask
    """Of the probe's subject, but not compared. What is neither is not there."""


def rank(
    rows: Rows,
    people: People,
    ranks: Sequence[int],
    *,
    listener: Listener | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Ranked:
    """Rank the gallery for each probe. `progress` hears how many probes each block has."""
    num_probes, num_items = len(people.probes), len(people.gallery)
    by_subject = _BySubject(people.gallery)
    figures = np.full((num_probes, len(ranks) + 2), np.nan)
    is_matched, is_tied, is_alone = np.zeros((3, num_probes), bool)
    for block in _parts(rows, by_subject.most):
        items = _items(block, rows.column, people, by_subject)
        before, size = _count(block, rows.column, items)
        is_there = np.arange(before.shape[1]) < items.is_match.sum(axis=1)[:, None]
        found, tied = figures_of(before, size, is_there, ranks)
        alone = items.is_left_out.sum(axis=1) == num_items
        found[alone] = np.nan
        figures[block.probes], is_tied[block.probes], is_alone[block.probes] = found, tied, alone
        is_matched[block.probes] = items.is_match.any(axis=1)
        if listener is not None:
            listener(block, rows.column, items)
        progress(len(block.probes))
    return Ranked(figures=figures, is_matched=is_matched, is_tied=is_tied, is_alone=is_alone)


def _parts(rows: Rows, most_items: int) -> Iterator[Block]:
    """The blocks, in parts of so few probes that there are at most `_ITEMS` items of their subjects."""
    size = max(1, _ITEMS // max(1, most_items))
    for block in rows.blocks():
        for start in range(0, len(block.probes), size):
            part = slice(start, start + size)
            yield replace(block, probes=block.probes[part], row=block.row[part])


def nearest(rows: Rows, count: int, order: Int64) -> tuple[Int64, Mask]:
    """The `count` nearest items [n, count] of each probe, nearest first, and whether a tie decided [n].

    Among items at one distance, `order` [m] decides: the lower number first. Fewer columns if the gallery is smaller.
    """
    num_items = len(rows.column)
    count = min(count, num_items)
    found = np.empty((rows.num_probes, count), np.int64)
    is_tied = np.zeros(rows.num_probes, bool)
    for block in rows.blocks():
        table = as_numpy(block.table)
        for probe, row in zip(block.probes, block.row, strict=True):
            values = table[row][rows.column]
            limit = np.partition(values, count - 1)[count - 1]
            near = np.flatnonzero(values <= limit)
            near = near[np.lexsort((order[near], values[near]))]
            found[probe] = near[:count]
            is_tied[probe] = len(near) > count or len(np.unique(values[near])) < len(near)
    return found, is_tied


def as_numpy(table: Tile) -> Float64:
    """A table of any device as a NumPy array."""
    array: Float64 = table if isinstance(table, np.ndarray) else table.cpu().numpy()
    return array


class _BySubject:
    """The gallery items [m] of each subject."""

    def __init__(self, subjects: Int64) -> None:
        self._order = np.argsort(subjects, kind="stable")
        self._sorted = subjects[self._order]
        self.most = int(np.unique(subjects, return_counts=True)[1].max(initial=0))
        """Items of one subject."""

    def of(self, subjects: Int64) -> tuple[Int64, Mask]:
        """[p, M] items of these subjects [p], and which of the entries are there."""
        first, end = (np.searchsorted(self._sorted, subjects, side=side) for side in ("left", "right"))
        counts = end - first
        places = np.arange(max(1, counts.max(initial=0)))
        is_there = places < counts[:, None]
        return self._order[np.where(is_there, first[:, None] + places, 0)], is_there


def _items(block: Block, column: Int64, people: People, by_subject: _BySubject) -> Items:
    items, is_there = by_subject.of(people.probes[block.probes])
    is_left_out = people.gallery_rows[items] == people.probe_rows[block.probes][:, None]
    if people.probe_views is not None and people.gallery_views is not None:
        is_left_out |= people.gallery_views[items] == people.probe_views[block.probes][:, None]
    is_left_out &= is_there
    distances = as_numpy(block.table[_index(block.table, block.row[:, None]), _index(block.table, column[items])])
    return Items(distances=distances, is_match=is_there & ~is_left_out, is_left_out=is_left_out)


def _index(table: Tile, index: Int64) -> Any:
    if isinstance(table, np.ndarray):
        return index
    import torch

    return torch.from_numpy(index).to(table.device)


def _count(block: Block, column: Int64, items: Items) -> tuple[Int64, Int64]:
    """[p, M]: of each match, in the order of distance, the items before it and those at its distance, itself too."""
    matches = np.sort(np.where(items.is_match, items.distances, np.inf), axis=1)
    counts = items.is_match.sum(axis=1)
    nearer, not_farther = np.zeros((2, *matches.shape), np.int64)
    is_plain = len(column) == block.table.shape[1]  # each item has a column of its own

    def of_probe(i: int) -> None:
        row = block.table[block.row[i]]
        found = _places(row if is_plain else row[column], matches[i, : counts[i]])
        nearer[i, : counts[i]], not_farther[i, : counts[i]] = found

    if not isinstance(block.table, np.ndarray):
        _count_on_device(block, column, matches, nearer, not_farther)
    elif block.table.shape[1] < _THREADS_FROM_ITEMS:
        for i in range(len(counts)):
            of_probe(i)
    else:
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(of_probe, range(len(counts))))
    for i in np.flatnonzero(items.is_left_out.any(axis=1)).tolist():
        left_out = np.sort(items.distances[i, items.is_left_out[i]])
        own = matches[i, : counts[i]]
        nearer[i, : counts[i]] -= np.searchsorted(left_out, own)
        not_farther[i, : counts[i]] -= np.searchsorted(left_out, own, side="right")
    return nearer, not_farther - nearer


def _places(values: Float64, matches: Float64) -> tuple[Any, Any]:
    """How many of the values [m] are below each match, and how many are not above it."""
    if len(matches) > _SORT_FROM_MATCHES:
        ordered = np.sort(values)
        return np.searchsorted(ordered, matches), np.searchsorted(ordered, matches, side="right")
    return (
        [np.count_nonzero(values < match) for match in matches],
        [np.count_nonzero(values <= match) for match in matches],
    )


def _count_on_device(block: Block, column: Int64, matches: Float64, nearer: Int64, not_farther: Int64) -> None:
    """As `_places` for all probes of a block of tensors, into [p, M]."""
    import torch

    table = block.table
    row = _index(table, block.row)
    values = table if np.array_equal(block.row, np.arange(len(table))) else table[row]
    if len(column) != table.shape[1]:
        values = values[:, _index(table, column)]
    of_device = torch.from_numpy(matches).to(table.device)
    if matches.shape[1] > _SORT_FROM_MATCHES:
        ordered = torch.sort(values, dim=1).values
        nearer[:] = torch.searchsorted(ordered, of_device).cpu().numpy()
        not_farther[:] = torch.searchsorted(ordered, of_device, right=True).cpu().numpy()
        return
    for k in range(matches.shape[1]):
        match = of_device[:, k : k + 1]
        nearer[:, k] = torch.count_nonzero(values < match, dim=1).cpu().numpy()
        not_farther[:, k] = torch.count_nonzero(values <= match, dim=1).cpu().numpy()
