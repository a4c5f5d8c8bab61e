"""Mixup and cutmix against slow, obvious twins."""

import numpy as np
import pytest
import torch

from attengait.training.augment import augment, cutmix, mixup
from attengait.training.config import OptimiserSettings


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 16, 16, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.eye(6)


def draws(num_clips: int, seed: int) -> tuple[torch.Generator, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lambdas = torch.rand(num_clips, generator=generator)
    partner = torch.randperm(num_clips, generator=generator)
    return generator, lambdas, partner


def test_mixup_equals_the_loop(clips: torch.Tensor, targets: torch.Tensor) -> None:
    _, lambdas, partner = draws(len(clips), 5)
    frames, mixed = mixup(clips, targets, torch.Generator().manual_seed(5))
    plain = 2 * (clips.double() / 255 - 0.5)
    for i, (weight, j) in enumerate(zip(lambdas.tolist(), partner.tolist(), strict=True)):
        torch.testing.assert_close(frames[i].double(), weight * plain[i] + (1 - weight) * plain[j], atol=1e-6, rtol=0)
        torch.testing.assert_close(mixed[i], weight * targets[i] + (1 - weight) * targets[j])


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_equals_the_loop(clips: torch.Tensor, targets: torch.Tensor, seed: int) -> None:
    generator, lambdas, partner = draws(len(clips), seed)
    centres = torch.rand(2, len(clips), generator=generator)
    frames, mixed = cutmix(clips, targets, torch.Generator().manual_seed(seed))
    for i, j in enumerate(partner.tolist()):
        side = int(16 * np.sqrt(np.float32(1) - lambdas[i].numpy()))
        share = side * side / 256
        torch.testing.assert_close(mixed[i], (1 - share) * targets[i] + share * targets[j])
        expected = clips[i].clone()
        top, left = (int(np.floor(np.float32(c) * 16 - np.float32(side) / 2)) for c in centres[:, i].numpy())
        rows, columns = slice(max(top, 0), max(top + side, 0)), slice(max(left, 0), max(left + side, 0))
        expected[:, rows, columns] = clips[j][:, rows, columns]
        assert torch.equal(frames[i], expected)
    assert frames.dtype == torch.uint8


def test_each_augmentation_happens_with_its_probability(clips: torch.Tensor, targets: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    config = OptimiserSettings(mixup_probability=0.25, cutmix_probability=0.5)
    kinds = []
    for _ in range(400):
        frames, _ = augment(clips, targets, config, generator)
        kinds.append((frames.dtype != torch.uint8, not torch.equal(frames, clips)))
    mixed, changed = np.mean(kinds, axis=0)
    assert abs(mixed - 0.25) < 0.08
    assert abs(changed - (1 - 0.75 * 0.5)) < 0.08


def test_without_augmentation_the_batch_is_untouched(clips: torch.Tensor, targets: torch.Tensor) -> None:
    config = OptimiserSettings(mixup_probability=0.0, cutmix_probability=0.0)
    frames, same = augment(clips, targets, config, torch.Generator())
    assert frames is clips
    assert same is targets
