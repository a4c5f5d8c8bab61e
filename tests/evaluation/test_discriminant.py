"""The linear discriminant against the same computed plainly, and what it can and cannot see."""

import numpy as np
import pytest

from attengait.errors import ParameterError
from attengait.evaluation.discriminant import LinearDiscriminant, mean_and_spread


def people(num: int, walks: int, features: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [num * walks, features]: identity is in feature 0, hidden below much larger variation of the others."""
    random = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(num), walks)
    x = random.normal(size=(num * walks, features)) * np.linspace(0.2, 6, features)
    x[:, 0] = 4 * subjects + 0.1 * random.normal(size=num * walks)
    return x, np.array([f"{subject:03d}" for subject in subjects])


def ledoit_wolf(x: np.ndarray) -> tuple[float, np.ndarray]:
    """As their paper writes it (2004, lemmas 3.2 to 3.4): shrinkage and shrunken covariance of centred x [n, F]."""
    n, size = x.shape
    sample = sum(np.outer(row, row) for row in x) / n
    even = np.trace(sample) / size * np.eye(size)
    distance = np.linalg.norm(sample - even) ** 2
    noise = min(sum(np.linalg.norm(np.outer(row, row) - sample) ** 2 for row in x) / n**2, distance)
    return noise / distance, noise / distance * even + (1 - noise / distance) * sample


@pytest.mark.parametrize("features", [6, 40])  # fewer and more than there are sequences
def test_it_is_fishers_discriminant_with_the_covariance_of_ledoit_and_wolf(features: int) -> None:
    x, subjects = people(5, 4, features, seed=1)
    fitted = LinearDiscriminant.fit(x, subjects)
    centres = np.stack([x[subjects == name].mean(0) for name in np.unique(subjects)])
    shrinkage, covariance = ledoit_wolf(x - np.repeat(centres, 4, axis=0))
    assert fitted.shrinkage == pytest.approx(shrinkage, rel=1e-9)
    # Between the subjects' means all Mahalanobis distances are kept: the directions hold all that tells them apart.
    projected = fitted.project(centres)
    assert projected.shape == (5, 4)
    for a in range(5):
        for b in range(a):
            way = centres[a] - centres[b]
            expected = np.sqrt(way @ np.linalg.solve(covariance, way))
            assert np.linalg.norm(projected[a] - projected[b]) == pytest.approx(expected, rel=1e-4)


def test_it_finds_what_tells_unseen_people_apart_below_larger_variation() -> None:
    x, subjects = people(30, 6, 12, seed=2)
    is_seen = subjects < "020"
    fitted = LinearDiscriminant.fit(x[is_seen], subjects[is_seen])

    def rank1(features: np.ndarray) -> float:
        unseen = subjects[~is_seen]
        away = np.linalg.norm(features[:, None] - features[None], axis=-1) + np.diag([np.inf] * len(features))
        return float((unseen[away.argmin(1)] == unseen).mean())

    assert rank1(x[~is_seen]) < 0.5 < 0.9 < rank1(fitted.project(x[~is_seen]))


def test_mean_and_spread_do_not_depend_on_the_order_of_frames_but_on_the_frames() -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (20, 4, 4, 3), np.uint8)
    still = mean_and_spread(frames)
    assert still.shape == (2 * 4 * 4 * 3,)
    np.testing.assert_allclose(still[0], frames[:, 0, 0, 0].mean() / 255, rtol=1e-5)
    np.testing.assert_allclose(still[48], frames[:, 0, 0, 0].std() / 255, rtol=1e-5)
    np.testing.assert_allclose(mean_and_spread(frames[random.permutation(20)]), still, atol=1e-6)
    assert np.abs(mean_and_spread(frames[:10]) - still).max() > 0.01


@pytest.mark.parametrize(
    ("names", "says"), [(["001", "001"], "1 of 2 sequences"), (["001", "002"], "2 of 2 sequences")]
)
def test_too_few_people_or_sequences_are_refused(names: list[str], says: str) -> None:
    with pytest.raises(ParameterError, match=f"subjects is '{says}', but must be two or more"):
        LinearDiscriminant.fit(np.eye(2), np.array(names))
