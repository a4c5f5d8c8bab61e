"""The losses of a step and their gradients: forward pass, losses and backward pass.

A CUDA graph may record all of it (`attengait.training.graphs`). So nothing here looks at a value of a tensor, or copies
one from the host: which clips form triplets is worked out before.

N clips of the batch of all processes, n of this process, T frames, C channels, P parts, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from attengait.model.losses import Pairs, cross_entropy, l2_penalty
from attengait.model.net import AttenGait
from attengait.model.precision import autocast
from attengait.training.config import OptimiserSettings
from attengait.training.hooked import Hooked
from attengait.training.margins import AdaptiveMargins
from attengait.training.ranks import Ranks
from attengait.training.triplets import triplet_term

PER_PART = "triplet_per_part"
"""Is with the losses of a step, and has a value for each part [P]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInputs:
    """What a step is computed from, on its device."""

    frames: Tensor
    """[n, T, 64, 64, C], uint8, or floating in [-1, 1]"""
    targets: Tensor
    """float32 [n, K]"""
    pairs: tuple[Pairs, ...]
    """Of each group of clips that form triplets."""
    with_classes: bool
    """Whether there is a cross entropy."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in one order."""
        return self.frames, self.targets, *(tensor for pairs in self.pairs for tensor in pairs)


Compute = Callable[[StepInputs, int | None], dict[str, Tensor]]
"""(inputs, seed) -> losses by their names, float32 and without gradients. The parameters then have their gradients.

The seed is that of dropout. Without one, the random state is left as it is, and no weight in half precision is kept.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLosses:
    """Computes the losses of steps (see `Compute`): total, triplet, l2, cross_entropy if there are classes,
    active_triplets, and `PER_PART`."""

    hooked: Hooked
    scaler: torch.amp.GradScaler
    margins: AdaptiveMargins | None
    precision: str
    settings: OptimiserSettings
    replicas: int
    ranks: Ranks

    def __call__(self, inputs: StepInputs, seed: int | None) -> dict[str, Tensor]:
        """Compute the losses; the gradients, of the scaled loss, are added to those that the parameters have."""

        @contextmanager
        def as_configured() -> Iterator[None]:
            if seed is not None:
                seed_random(seed, self.hooked.device)
            with autocast(self.hooked.device, self.precision, keeps_casts=seed is not None):
                yield

        outputs = self.hooked(inputs.frames, with_classes=inputs.with_classes, context=as_configured)
        triplets = triplet_term(
            outputs.embeddings.float(),
            inputs.pairs,
            self.settings,
            margins=self.margins,
            replicas=self.replicas,
            ranks=self.ranks,
        )
        losses = loss_terms(self.hooked.model, triplets.loss, outputs.logits, inputs.targets, self.settings)
        self.scaler.scale(losses["total"]).backward()  # type: ignore[no-untyped-call]
        outputs.finish()
        losses |= {"active_triplets": triplets.active, PER_PART: triplets.per_part}
        return {name: value.detach() for name, value in losses.items()}


def loss_terms(
    model: AttenGait, triplet: Tensor, logits: Tensor | None, targets: Tensor, settings: OptimiserSettings
) -> dict[str, Tensor]:
    """Return total, triplet, l2 and, where there are logits, cross_entropy, as float32 scalars.

    Of several processes, each has its own losses; their mean is the loss of the batch.

    logits [n, 62, K] or None, targets [n, K].
    """
    terms = {"triplet": triplet, "l2": l2_penalty(model, settings.l2_penalty)}
    if logits is not None:
        terms["cross_entropy"] = settings.cross_entropy_weight * cross_entropy(logits.float(), targets)
    return {"total": torch.stack(list(terms.values())).sum(), **terms}


def seed_random(seed: int, device: torch.device) -> None:
    """Seed torch's random numbers on the CPU and on one device; torch.manual_seed would seed every GPU."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
