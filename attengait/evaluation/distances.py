"""Distances between probe and gallery embeddings, by name.

They are computed in float64: in float32, |a|^2 + |b|^2 - 2ab can give a wrong nearest item when embeddings share a
large offset. Where float64 does not do, as between two that are far from all others and near each other, the
differences are squared instead. They are computed tile by tile, see `attengait.evaluation.blocks`.

The functions of `DISTANCES` compute one tile. They take NumPy arrays or torch tensors, and return the same.

Shapes: n probes, m gallery items, P parts (62), D features per part; in a tile, b probes and g gallery items.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError
from attengait.system.lookup import look_up
from attengait.system.machine import usable_cores

Float64 = NDArray[np.float64]
Tile = Any
"""A NumPy array or a torch tensor of float64."""

_L1_ROWS = 64  # gallery rows whose differences to one probe stay in the processor's cache
_PIECE_PROBES, _MOST_ITEMS = 64, 512
_PIECE_PRODUCTS = 2**18
"""Multiplications of a piece and a part. The distances of a piece stay in the processor's cache until all parts are
added. A larger product would be given to the threads of the matrix library, and with few features that takes longer
than the product."""
_SMALL_PART = 64
"""Features of a part up to which a pass over the distances takes about as long as their product."""
_SMALLEST_NORM = 1e-12
_NEAR = 2.0**-32
"""Squared distances below this share of the squared lengths are computed once more, from the differences. The others
are exact to about 2^-20 of themselves."""
_NEAR_VALUES = 2**20
"""Differences that are held at once."""


def distance(probes: NDArray[np.floating], gallery: NDArray[np.floating], name: str) -> Float64:
    """Distances float64 [n, m] of `probes` [n, P, D] to `gallery` [m, P, D], finite, by the distance called `name`.

    `l2`: Euclidean on the flattened vector (AttenGait's paper). `l1`: sum of absolute differences (what its shipped
    code computes). `part-l2`, `part-cosine`: mean over the parts of the Euclidean distance and of 1 - cosine
    (OpenGait's "euc" and "cos"; a part of length 0 has cosine 0 with everything).

    Raises ParameterError for an unknown name, or shapes that do not fit together.
    """
    from attengait.evaluation.blocks import DistanceRows, same_embeddings

    look_up(DISTANCES, name, "distance")
    if probes.ndim != 3 or gallery.ndim != 3 or probes.shape[1:] != gallery.shape[1:]:
        raise ParameterError(
            f"gallery is {list(gallery.shape)} and probes is {list(probes.shape)}, but must be [m, parts, D] and "
            "[n, parts, D]"
        )
    result = np.empty((len(probes), len(gallery)))
    if not result.size:
        return result
    both = np.concatenate([probes, gallery])
    rows = np.arange(len(both))
    found = DistanceRows(both, same_embeddings(both), rows[: len(probes)], rows[len(probes) :], name)
    for block in found.blocks():
        result[block.probes] = block.table[block.row][:, found.column]
    return result


def centre_of(features: NDArray[np.floating]) -> Float64:
    """The median [P, D] of features [n, P, D], of two middle ones the lower.

    A common offset changes no difference, but its square would swamp theirs. No single embedding moves the median far.
    It is a value of the features. So where they are small whole numbers or the like, the squares stay exact, and equal
    distances stay equal.
    """
    middle = (len(features) - 1) // 2
    centre: Float64 = np.partition(features, middle, axis=0)[middle].astype(np.float64)
    return centre


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """A distance between tiles of embeddings, in two steps: what concerns one tile alone is computed once."""

    prepare: Callable[[Tile], Any]
    """Float64 [b, P, D] to whatever `between` takes."""
    between: Callable[[Any, Any], Tile]
    """Prepared tiles of b probes and g items to their distances, float64 [b, g]."""
    is_centred: bool
    """Whether a common offset changes nothing, and is taken away first."""


def _flat(features: Tile) -> Tile:
    return features.reshape(len(features), -1)


def _with_squares(features: Tile) -> tuple[Tile, Tile]:
    """[b, F] and the squared lengths [b]."""
    if isinstance(features, np.ndarray):
        return features, np.einsum("ij,ij->i", features, features)
    return features, (features * features).sum(dim=1)


def _l1(probes: Tile, gallery: Tile) -> Tile:
    """Of [b, F] and [g, F]."""
    if not isinstance(probes, np.ndarray):
        import torch

        return torch.cdist(probes, gallery, p=1)
    result = np.empty((len(probes), len(gallery)))
    for j in range(0, len(gallery), _L1_ROWS):
        few = gallery[j : j + _L1_ROWS]
        difference = np.empty_like(few)
        for i, probe in enumerate(probes):
            np.subtract(few, probe, out=difference)
            np.abs(difference, out=difference)
            result[i, j : j + _L1_ROWS] = difference.sum(axis=1)
    return result


def _parts_with_squares(features: Tile) -> tuple[Tile, Tile]:
    """The parts one after the other [P, b, D], and the squared lengths [P, b]."""
    if isinstance(features, np.ndarray):
        parts = np.ascontiguousarray(features.transpose(1, 0, 2))
        return parts, np.einsum("pij,pij->pi", parts, parts)
    return features.transpose(0, 1).contiguous(), (features * features).sum(dim=2).T.contiguous()


def _part_l2(probes: tuple[Tile, Tile], gallery: tuple[Tile, Tile]) -> Tile:
    if not isinstance(probes[0], np.ndarray):
        total = _euclidean((probes[0][0], probes[1][0]), (gallery[0][0], gallery[1][0]))
        for part in range(1, len(probes[0])):
            total += _euclidean((probes[0][part], probes[1][part]), (gallery[0][part], gallery[1][part]))
        total /= len(probes[0])
        return total
    (few, few_squares), (many, many_squares) = probes, gallery
    many = -2 * many  # a factor of two changes no digit
    total = np.zeros((few.shape[1], many.shape[1]))
    height, width = _piece(few.shape[1], many.shape[1], few.shape[2])

    def add(i: int) -> None:
        rows = slice(i, i + height)
        for j in range(0, many.shape[1], width):
            columns = slice(j, j + width)
            piece = np.zeros(total[rows, columns].shape)
            squares = np.empty_like(piece)
            for part in range(len(few)):
                np.matmul(few[part, rows], many[part, columns].T, out=squares)
                squares += few_squares[part, rows, None]
                squares += many_squares[part, columns]
                some = few[part, rows], few_squares[part, rows]
                _mend_near(squares, some, (many[part, columns], many_squares[part, columns]), -0.5)
                np.maximum(squares, 0, out=squares)
                piece += np.sqrt(squares, out=squares)
            total[rows, columns] = piece

    firsts = range(0, few.shape[1], height)
    if len(firsts) > 1:
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(add, firsts))
    else:
        for first in firsts:
            add(first)
    total /= len(few)
    return total


def _piece(num_probes: int, num_items: int, size: int) -> tuple[int, int]:
    """Probes and items of a piece of a tile, for parts of `size` features."""
    if size > _SMALL_PART:
        return num_probes, num_items
    return _PIECE_PROBES, min(_PIECE_PRODUCTS // (_PIECE_PROBES * size), _MOST_ITEMS)


def _unit(features: Tile) -> tuple[Tile, int]:
    """Each part scaled to length 1, flattened [b, F], and the number of parts."""
    lengths = (features * features).sum(axis=2) ** 0.5
    return _flat(features / lengths.clip(min=_SMALLEST_NORM)[:, :, None]), features.shape[1]


def _part_cosine(probes: tuple[Tile, int], gallery: tuple[Tile, int]) -> Tile:
    # The mean over parts of the cosines is one product of the flattened unit vectors.
    cosines = probes[0] @ gallery[0].T
    cosines /= -probes[1]
    cosines += 1
    return cosines


def _euclidean(probes: tuple[Tile, Tile], gallery: tuple[Tile, Tile]) -> Tile:
    """Of vectors with their squares; rounding may leave a tiny negative square where two vectors are equal."""
    squares = probes[0] @ gallery[0].T
    squares *= -2
    squares += probes[1][:, None]
    squares += gallery[1]
    _mend_near(squares, probes, gallery)
    if isinstance(squares, np.ndarray):
        np.maximum(squares, 0, out=squares)
        return np.sqrt(squares, out=squares)
    return squares.clamp_(min=0).sqrt_()


def _mend_near(squares: Tile, probes: tuple[Tile, Tile], gallery: tuple[Tile, Tile], factor: float = 1.0) -> None:
    """Compute small squared distances [b, g] once more, from differences, in place.

    Both have a tile of vectors with their squares. The vectors of the gallery are to be multiplied by `factor`.
    """
    (few, few_squares), (many, many_squares) = probes, gallery
    if float(squares.min()) >= _NEAR * (float(few_squares.max()) + float(many_squares.max())):
        return
    is_near = squares < _NEAR * (few_squares[:, None] + many_squares)
    rows, columns = is_near.nonzero() if isinstance(is_near, np.ndarray) else is_near.nonzero(as_tuple=True)
    step = max(1, _NEAR_VALUES // few.shape[1])
    for start in range(0, len(rows), step):
        row, column = rows[start : start + step], columns[start : start + step]
        gaps = few[row] - factor * many[column]
        gaps *= gaps
        squares[row, column] = gaps.sum(axis=1)


DISTANCES: dict[str, Distance] = {
    "l2": Distance(prepare=lambda tile: _with_squares(_flat(tile)), between=_euclidean, is_centred=True),
    "l1": Distance(prepare=_flat, between=_l1, is_centred=False),
    "part-l2": Distance(prepare=_parts_with_squares, between=_part_l2, is_centred=True),
    "part-cosine": Distance(prepare=_unit, between=_part_cosine, is_centred=False),
}
