"""Mixup and cutmix of a batch of clips, as the published recipe does them.

Both draw lambda per clip uniformly on (0, 1) (the original's Beta draw uses shape 1 whatever its alpha is) and a
partner by one permutation of the batch. Targets of the cross entropy mix with lambda; the triplet loss keeps the clip's
own label. Both treat every value alike, whatever the encoding. Nothing is mirrored, as published. Mirroring would
also have to replace u by 256 - u in the encodings uv and uvm (`attengait.kernels.pictures.encode`).

Where several processes share a batch, all draw the numbers for the whole batch, and each mixes its own clips. A partner
may be a clip of another process.

Shapes: N clips of the batch, n of them in this process, T frames, H x W pixels, C channels, K classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from attengait.model.losses import send
from attengait.model.net import normalise
from attengait.training.config import OptimiserSettings
from attengait.training.ranks import ALONE, Ranks


class Augmented(NamedTuple):
    """A batch ready for the model."""

    frames: Tensor
    """[n, T, H, W, C]: uint8 as they came, or floating in [-1, 1] where clips were mixed."""
    targets: Tensor
    """float32 [n, K]: (mixed) one-hot labels."""


def augment(
    frames: Tensor,
    targets: Tensor,
    settings: OptimiserSettings,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> Augmented:
    """Apply mixup, then cutmix, each with its probability.

    `frames` uint8 [n, T, H, W, C] and `targets` float32 [n, K] are those of this process and stay untouched. All draws
    come from `generator` (a CPU generator), in an order that does not depend on the device.
    """
    do_mixup, do_cutmix = torch.rand(2, generator=generator).tolist()
    if do_mixup < settings.mixup_probability:
        frames, targets = mixup(frames, targets, generator, ranks)
    if do_cutmix < settings.cutmix_probability:
        frames, targets = cutmix(frames, targets, generator, ranks)
    return Augmented(frames, targets)


def mixup(frames: Tensor, targets: Tensor, generator: torch.Generator, ranks: Ranks = ALONE) -> Augmented:
    """lambda * clip + (1 - lambda) * partner, in [-1, 1] (Zhang et al., mixup, 2018)."""
    lambdas, partner = _draw(frames, generator, ranks)
    weight = lambdas.view(-1, 1, 1, 1, 1)
    return Augmented(
        torch.lerp(normalise(ranks.rows(frames, partner)), normalise(frames), weight),  # [n, T, H, W, C]
        torch.lerp(ranks.rows(targets, partner), targets, lambdas[:, None]),  # [n, K]
    )


def cutmix(frames: Tensor, targets: Tensor, generator: torch.Generator, ranks: Ranks = ALONE) -> Augmented:
    """Paste a square of the partner, the same in all frames of a clip (Yun et al., CutMix, 2019).

    Side sqrt(1 - lambda) of the picture's, centre uniform, clipped at the border; lambda becomes
    1 - side^2 / (H W), before clipping, as published.
    """
    height, width = frames.shape[2:4]
    lambdas, partner = _draw(frames, generator, ranks)
    centres = torch.rand(2, len(partner), generator=generator)  # [2, N]
    centres = send(torch.stack([ranks.own(centre) for centre in centres]), frames.device)
    shares = (1.0 - lambdas).sqrt()  # the square's side as a share of the picture's, [n]
    inside, covered = [], torch.ones_like(lambdas)
    for centre, size in zip(centres, (height, width), strict=True):
        side = (shares * size).floor()
        first = (centre * size - side / 2).floor()[:, None]  # [n, 1]
        position = torch.arange(size, device=frames.device)[None]  # [1, size]
        inside.append((position >= first) & (position < first + side[:, None]))
        covered = covered * side / size
    square = inside[0][:, :, None] & inside[1][:, None, :]  # [n, H, W]
    return Augmented(
        torch.where(square[:, None, :, :, None], ranks.rows(frames, partner), frames),
        torch.lerp(targets, ranks.rows(targets, partner), covered[:, None]),
    )


def _draw(frames: Tensor, generator: torch.Generator, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Lambda of each clip of this process [n], and the partner of each clip of the batch [N]."""
    num_clips = len(frames) * ranks.world_size
    lambdas = torch.rand(num_clips, generator=generator)
    partner = torch.randperm(num_clips, generator=generator)
    return send(ranks.own(lambdas), frames.device), send(partner, frames.device)
