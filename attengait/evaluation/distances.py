"""Distances between probe and gallery embeddings, by name.

They are computed in float64: in float32, |a|^2 + |b|^2 - 2ab can give a wrong nearest item when embeddings share a
large offset. They are computed block by block. So the memory beside the result, and one copy of it and of the
embeddings, stays near `BLOCK_BYTES` for each of: a block of probes, a block of gallery items, and a few tables between
the two.

The last bits of a matrix product depend on where a row stands in it. Here each different embedding is computed once,
in an order that depends on the values alone. So the same embedding has the same distances wherever it stands, and the
order of the rows changes no bit of the result.

Shapes: n probes, m gallery items, P parts (62), D features per part; in a block, b probes and g gallery items.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError
from attengait.system.lookup import look_up

Float64 = NDArray[np.float64]

BLOCK_BYTES = 32 * 2**20
_BLOCK_ROWS = 1024
_L1_ROWS = 64  # gallery rows whose differences to one probe stay in the processor's cache
_SMALLEST_NORM = 1e-12


def distance(probes: NDArray[np.floating], gallery: NDArray[np.floating], name: str) -> Float64:
    """Distances float64 [n, m] of `probes` [n, P, D] to `gallery` [m, P, D], finite, by the distance called `name`.

    `l2`: Euclidean on the flattened vector (AttenGait's paper). `l1`: sum of absolute differences (what its shipped
    code computes). `part-l2`, `part-cosine`: mean over the parts of the Euclidean distance and of 1 - cosine
    (OpenGait's "euc" and "cos"; a part of length 0 has cosine 0 with everything).

    Raises ParameterError for an unknown name, or shapes that do not fit together.
    """
    between_blocks = look_up(DISTANCES, name, "distance")
    if probes.ndim != 3 or gallery.ndim != 3 or probes.shape[1:] != gallery.shape[1:]:
        raise ParameterError(
            f"gallery is {list(gallery.shape)} and probes is {list(probes.shape)}, but must be [m, parts, D] and "
            "[n, parts, D]"
        )
    if not len(probes) or not len(gallery):
        return np.empty((len(probes), len(gallery)))
    probes, of_probe = _distinct_rows(probes)
    gallery, of_item = _distinct_rows(gallery)
    centre = _centre(gallery) if name in _CENTRED else np.zeros(gallery.shape[1:])
    rows = max(1, min(_BLOCK_ROWS, BLOCK_BYTES // (8 * max(1, centre.size))))
    result = np.empty((len(probes), len(gallery)))
    for i in range(0, len(probes), rows):
        block = probes[i : i + rows] - centre
        for j in range(0, len(gallery), rows):
            result[i : i + rows, j : j + rows] = between_blocks(block, gallery[j : j + rows] - centre)
    return result[np.ix_(of_probe, of_item)]


def _distinct_rows(features: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """The different rows of [n, P, D] in an order that depends on their values alone, and which of them each row is."""
    features = np.ascontiguousarray(features) + 0.0  # -0.0 becomes 0.0, so that equal values are equal bytes
    order = np.argsort(_as_bytes(features), kind="stable")
    features = features[order]
    as_bytes = _as_bytes(features)
    is_new = np.ones(len(order), bool)
    is_new[1:] = as_bytes[1:] != as_bytes[:-1]
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(is_new) - 1
    return features if is_new.all() else features[is_new], place


def _as_bytes(features: NDArray[np.floating]) -> NDArray[np.void]:
    """The bytes of each row [n] of contiguous features [n, P, D], to be sorted and compared as one value."""
    return features.reshape(len(features), -1).view(np.dtype((np.void, features[0].nbytes)))[:, 0]


def _centre(gallery: NDArray[np.floating]) -> Float64:
    """About the middle [P, D]. A common offset changes no difference, but its square would swamp theirs.

    Each value is a multiple of a power of two below the spread there. So where the features are small whole numbers or
    the like, the squares stay exact, and equal distances stay equal.
    """
    lowest, highest = gallery.min(axis=0).astype(np.float64), gallery.max(axis=0).astype(np.float64)
    _, exponent = np.frexp(highest - lowest)
    step = np.ldexp(0.25, exponent)
    centre: Float64 = np.where(lowest < highest, np.round((lowest + highest) / 2 / step) * step, lowest)
    return centre


def _l2(probes: Float64, gallery: Float64) -> Float64:
    return _euclidean(probes.reshape(len(probes), -1), gallery.reshape(len(gallery), -1))


def _l1(probes: Float64, gallery: Float64) -> Float64:
    result = np.empty((len(probes), len(gallery)))
    for j in range(0, len(gallery), _L1_ROWS):
        few = gallery[j : j + _L1_ROWS]
        difference = np.empty_like(few)
        for i, probe in enumerate(probes):
            np.subtract(few, probe, out=difference)
            np.abs(difference, out=difference)
            result[i, j : j + _L1_ROWS] = difference.sum(axis=(1, 2))
    return result


def _part_l2(probes: Float64, gallery: Float64) -> Float64:
    num_parts = probes.shape[1]
    total = np.zeros((len(probes), len(gallery)))
    for part in range(num_parts):
        total += _euclidean(probes[:, part], gallery[:, part])
    total /= num_parts
    return total


def _part_cosine(probes: Float64, gallery: Float64) -> Float64:
    # The mean over parts of the cosines is one product of the flattened unit vectors.
    cosines: Float64 = _unit(probes).reshape(len(probes), -1) @ _unit(gallery).reshape(len(gallery), -1).T
    cosines /= probes.shape[1]
    return 1 - cosines


def _euclidean(probes: Float64, gallery: Float64) -> Float64:
    """[b, F] and [g, F] to [b, g]; rounding may leave a tiny negative square where two vectors are equal."""
    squares: Float64 = probes @ gallery.T
    squares *= -2
    squares += np.square(probes).sum(axis=1)[:, None]
    squares += np.square(gallery).sum(axis=1)
    np.maximum(squares, 0, out=squares)
    np.sqrt(squares, out=squares)
    return squares


def _unit(features: Float64) -> Float64:
    """Each part [.., D] scaled to length 1."""
    lengths: Float64 = np.linalg.norm(features, axis=2, keepdims=True)
    return features / np.maximum(lengths, _SMALLEST_NORM)


DISTANCES: dict[str, Callable[[Float64, Float64], Float64]] = {
    "l2": _l2,
    "l1": _l1,
    "part-l2": _part_l2,
    "part-cosine": _part_cosine,
}
_CENTRED = frozenset({"l2", "part-l2"})
