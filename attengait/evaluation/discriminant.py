"""A linear discriminant on two still pictures of a sequence: what recognises people without a network and without time.

The two pictures are the mean and the spread of a sequence's frames. They do not depend on the order of the frames. A
model that is no better than this needs neither depth nor time.

n sequences, F = 2 * H * W * C features, k <= n directions in which the sequences differ, K training subjects.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from attengait.errors import require

Float64 = NDArray[np.float64]

_LEAST_SCALE = 1e-6
"""Directions in which the sequences differ less than this, relative to the first one, are rounding."""


def mean_and_spread(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean and the standard deviation over time of frames [T, H, W, C], one after the other: float32 [F]."""
    pixels = frames.astype(np.float32) / 255
    features: NDArray[np.float32] = np.concatenate([pixels.mean(0).ravel(), pixels.std(0).ravel()])
    return features


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearDiscriminant:
    """Fisher's discriminant with the shrunken covariance of Ledoit and Wolf (2004), which has nothing to choose."""

    mean: Float64
    """[F], of the training sequences."""
    directions: Float64
    """[F, at most K - 1]: along each, sequences of one training subject have about unit variance."""
    shrinkage: float
    """Share of the covariance within subjects that is replaced by a multiple of the unit matrix."""

    @classmethod
    def fit(cls, features: NDArray[Any], subjects: NDArray[Any]) -> Self:
        """Fit it on features [n, F] of training sequences and their subjects [n].

        Raises ParameterError for fewer than two subjects, or where no subject has two sequences.
        """
        names, who = np.unique(subjects, return_inverse=True)
        is_accepted = 2 <= len(names) < len(who)
        require(is_accepted, "subjects", f"{len(names)} of {len(who)} sequences", "two or more, with several sequences")
        mean = features.mean(0, dtype=np.float64)
        # All is computed along the k directions of the data, exactly: a covariance [F, F] would be gigabytes.
        _, scales, axes = np.linalg.svd(features - mean, full_matrices=False)
        axes = axes[scales > _LEAST_SCALE * scales[0]]
        x = (features - mean) @ axes.T  # [n, k]
        centres = np.stack([x[who == subject].mean(0) for subject in range(len(names))])
        within = x - centres[who]
        covariance = within.T @ within / len(x)
        shrinkage, even = _ledoit_wolf(within, covariance, features.shape[1])
        shrunken = (1 - shrinkage) * covariance + shrinkage * even * np.eye(len(axes))
        variances, turn = np.linalg.eigh(shrunken)
        whiten = turn / np.sqrt(variances)
        _, spread, between = np.linalg.svd((centres - centres.mean(0)) @ whiten, full_matrices=False)
        kept = spread > _LEAST_SCALE * spread[0]
        return cls(mean=mean, directions=axes.T @ whiten @ between[kept].T, shrinkage=shrinkage)

    def project(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Features [n, F] along the directions, [n, at most K - 1]. Euclidean distances between these count."""
        projected: NDArray[np.float32] = ((features - self.mean) @ self.directions).astype(np.float32)
        return projected


def _ledoit_wolf(x: Float64, covariance: Float64, dimensions: int) -> tuple[float, float]:
    """The shrinkage for centred samples [n, k], which have no other variance in all `dimensions`; and the mean of the
    variances."""
    even = float(np.trace(covariance)) / dimensions
    total = float((covariance**2).sum())
    distance = total - dimensions * even**2
    noise = (float(((x**2).sum(1) ** 2).sum()) / len(x) - total) / len(x)
    return (min(max(noise, 0.0), distance) / distance if distance > 0 else 1.0), even
