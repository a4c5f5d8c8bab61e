"""Distances between probe and gallery embeddings, by name.

They are computed in float64: in float32, |a|^2 + |b|^2 - 2ab can give a wrong nearest item when embeddings share a
large offset. They are computed tile by tile, see `attengait.evaluation.blocks`.

The functions of `DISTANCES` compute one tile: float64 [b, P, D] and [g, P, D] to [b, g]. They take NumPy arrays or
torch tensors, and return the same.

Shapes: n probes, m gallery items, P parts (62), D features per part; in a tile, b probes and g gallery items.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError
from attengait.system.lookup import look_up

Float64 = NDArray[np.float64]
Tile = Any
"""A NumPy array or a torch tensor of float64."""

_L1_ROWS = 64  # gallery rows whose differences to one probe stay in the processor's cache
_SMALLEST_NORM = 1e-12


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


def centre_of(lowest: Float64, highest: Float64) -> Float64:
    """About the middle [P, D] between the lowest and the highest values.

    A common offset changes no difference, but its square would swamp theirs. Each value is a multiple of a power of two
    below the spread there. So where the features are small whole numbers or the like, the squares stay exact, and equal
    distances stay equal.
    """
    _, exponent = np.frexp(highest - lowest)
    step = np.ldexp(0.25, exponent)
    centre: Float64 = np.where(lowest < highest, np.round((lowest + highest) / 2 / step) * step, lowest)
    return centre


def _l2(probes: Tile, gallery: Tile) -> Tile:
    return _euclidean(probes.reshape(len(probes), -1), gallery.reshape(len(gallery), -1))


def _l1(probes: Tile, gallery: Tile) -> Tile:
    if not isinstance(probes, np.ndarray):
        import torch

        return torch.cdist(probes.reshape(len(probes), -1), gallery.reshape(len(gallery), -1), p=1)
    result = np.empty((len(probes), len(gallery)))
    for j in range(0, len(gallery), _L1_ROWS):
        few = gallery[j : j + _L1_ROWS]
        difference = np.empty_like(few)
        for i, probe in enumerate(probes):
            np.subtract(few, probe, out=difference)
            np.abs(difference, out=difference)
            result[i, j : j + _L1_ROWS] = difference.sum(axis=(1, 2))
    return result


def _part_l2(probes: Tile, gallery: Tile) -> Tile:
    num_parts = probes.shape[1]
    total = _euclidean(probes[:, 0], gallery[:, 0])
    for part in range(1, num_parts):
        total += _euclidean(probes[:, part], gallery[:, part])
    total /= num_parts
    return total


def _part_cosine(probes: Tile, gallery: Tile) -> Tile:
    # The mean over parts of the cosines is one product of the flattened unit vectors.
    cosines = _unit(probes).reshape(len(probes), -1) @ _unit(gallery).reshape(len(gallery), -1).T
    cosines /= -probes.shape[1]
    cosines += 1
    return cosines


def _euclidean(probes: Tile, gallery: Tile) -> Tile:
    """[b, F] and [g, F] to [b, g]; rounding may leave a tiny negative square where two vectors are equal."""
    squares = probes @ gallery.T
    squares *= -2
    squares += (probes * probes).sum(axis=1)[:, None]
    squares += (gallery * gallery).sum(axis=1)
    return squares.clip(min=0) ** 0.5


def _unit(features: Tile) -> Tile:
    """Each part [.., D] scaled to length 1."""
    lengths = (features * features).sum(axis=2) ** 0.5
    return features / lengths.clip(min=_SMALLEST_NORM)[:, :, None]


DISTANCES: dict[str, Callable[[Tile, Tile], Tile]] = {
    "l2": _l2,
    "l1": _l1,
    "part-l2": _part_l2,
    "part-cosine": _part_cosine,
}
CENTRED = frozenset({"l2", "part-l2"})
"""Those that a common offset does not change, and that are computed without it."""
