"""Which pixels of a row each pixel of a longer or shorter row is made of, as tables for farneback.cu.

Positions and weights take 64-bit arithmetic, which is slow on many GPUs, so they are computed here, once for a size. A
table is int32: indices, and the bits of float32 weights.
"""

import functools

import numpy as np
from numpy.typing import NDArray


@functools.lru_cache(maxsize=256)
def bilinear_taps(size: int, source_size: int) -> NDArray[np.int32]:
    """Where each of `size` pixels looks in a row of `source_size` pixels under bilinear resizing with half-pixel
    centres.

    Returns int32 [size, 2]: the index of the first of two neighbours, and the bits of the second one's share, float32.
    """
    # OpenCV rounds to float32 only here.
    centres = ((np.arange(size) + 0.5) * (source_size / size) - 0.5).astype(np.float32)
    indices = np.floor(centres)
    shares = centres - indices
    shares[(indices < 0) | (indices >= source_size - 1)] = 0
    indices = indices.clip(0, source_size - 1)
    return np.stack([indices.astype(np.int32), shares.view(np.int32)], axis=1)


@functools.lru_cache(maxsize=256)
def shrink_taps(size: int, source_size: int, blur: tuple[float, ...], num_taps: int) -> NDArray[np.int32]:
    """Which pixels of a row, blurred (border reflected) and resized as `bilinear_taps` does, each pixel is made of.

    Returns int32 [1 + num_taps, size]: the first of `num_taps` neighbours, all inside the row, then the bits of their
    weights, float32. What is reflected is added to the weight of the pixel that it falls on.
    """
    first, bits = bilinear_taps(size, source_size).T
    share = bits.view(np.float32).astype(np.float64)
    radius = len(blur) // 2
    begin = (first - radius).clip(0, source_size - num_taps)
    weights = np.zeros((num_taps, size))
    for i, weight in enumerate(blur):
        for offset, part in ((0, 1 - share), (1, share)):
            position = np.abs(first + i - radius + offset)
            position = np.minimum(position, 2 * (source_size - 1) - position)
            # Where the second neighbour lies outside, its share is 0.
            np.add.at(weights, (np.clip(position - begin, 0, num_taps - 1), np.arange(size)), weight * part)
    return np.concatenate([begin[None].astype(np.int32), weights.astype(np.float32).view(np.int32)])
