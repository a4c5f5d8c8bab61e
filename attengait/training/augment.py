"""Mixup and cutmix of a batch of clips, as the published recipe does them.

Both draw lambda per clip uniformly on (0, 1) (the original's Beta draw uses shape 1 whatever its alpha is) and a
partner by one permutation of the batch. Targets of the cross entropy mix with lambda; the triplet loss keeps the clip's
own label. Both treat every value alike, whatever the encoding. Nothing is mirrored, as published. Mirroring would
also have to replace u by 256 - u in the encodings uv and uvm (`attengait.kernels.pictures.encode`).

Shapes: N clips, T frames, H x W pixels, C channels, K classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from attengait.model.losses import send
from attengait.model.net import normalise
from attengait.training.config import OptimiserSettings


class Augmented(NamedTuple):
    """A batch ready for the model."""

    frames: Tensor
    """[N, T, H, W, C]: uint8 as they came, or floating in [-1, 1] where clips were mixed."""
    targets: Tensor
    """float32 [N, K]: (mixed) one-hot labels."""


def augment(frames: Tensor, targets: Tensor, settings: OptimiserSettings, generator: torch.Generator) -> Augmented:
    """Apply mixup, then cutmix, each with its probability.

    `frames` uint8 [N, T, H, W, C] and `targets` float32 [N, K] stay untouched. All draws come from `generator` (a CPU
    generator), in an order that does not depend on the device.
    """
    do_mixup, do_cutmix = torch.rand(2, generator=generator).tolist()
    if do_mixup < settings.mixup_probability:
        frames, targets = mixup(frames, targets, generator)
    if do_cutmix < settings.cutmix_probability:
        frames, targets = cutmix(frames, targets, generator)
    return Augmented(frames, targets)


def mixup(frames: Tensor, targets: Tensor, generator: torch.Generator) -> Augmented:
    """lambda * clip + (1 - lambda) * partner, in [-1, 1] (Zhang et al., mixup, 2018)."""
    lambdas, partner = _draw(frames, generator)
    frames = normalise(frames)
    weight = lambdas.view(-1, 1, 1, 1, 1)
    return Augmented(
        torch.lerp(frames[partner], frames, weight),  # [N, T, H, W, C]
        torch.lerp(targets[partner], targets, lambdas[:, None]),  # [N, K]
    )


def cutmix(frames: Tensor, targets: Tensor, generator: torch.Generator) -> Augmented:
    """Paste a square of the partner, the same in all frames of a clip (Yun et al., CutMix, 2019).

    Side sqrt(1 - lambda) of the picture's, centre uniform, clipped at the border; lambda becomes
    1 - side^2 / (H W), before clipping, as published.
    """
    height, width = frames.shape[2:4]
    lambdas, partner = _draw(frames, generator)
    centres = send(torch.rand(2, len(frames), generator=generator), frames.device)
    shares = (1.0 - lambdas).sqrt()  # the square's side as a share of the picture's, [N]
    inside, covered = [], torch.ones_like(lambdas)
    for centre, size in zip(centres, (height, width), strict=True):
        side = (shares * size).floor()
        first = (centre * size - side / 2).floor()[:, None]  # [N, 1]
        position = torch.arange(size, device=frames.device)[None]  # [1, size]
        inside.append((position >= first) & (position < first + side[:, None]))
        covered = covered * side / size
    square = inside[0][:, :, None] & inside[1][:, None, :]  # [N, H, W]
    return Augmented(
        torch.where(square[:, None, :, :, None], frames[partner], frames),
        torch.lerp(targets, targets[partner], covered[:, None]),
    )


def _draw(frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    lambdas = torch.rand(len(frames), generator=generator)
    partner = torch.randperm(len(frames), generator=generator)
    return send(lambdas, frames.device), send(partner, frames.device)
