"""The model as a training step calls it: in all processes of a run, each backward pass leaves the same gradients.

n clips of this process, D features per part, K classes.
"""

import torch
from torch import Tensor, nn

from attengait.model.net import AttenGait
from attengait.training.ranks import Ranks


class _Both(nn.Module):
    """Embeddings and logits by one call, because what synchronises gradients hooks one call of one module."""

    def __init__(self, model: AttenGait) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, *, with_classes: bool) -> tuple[Tensor, Tensor | None]:
        embeddings = self.model(frames)
        return embeddings, self.model.classify(embeddings) if with_classes else None


class Hooked:
    """The model, called so that each backward pass leaves the same gradients in all processes."""

    def __init__(self, model: AttenGait, device: torch.device, ranks: Ranks) -> None:
        self.model, self.device, self._ranks = model, device, ranks
        self._module: nn.Module | None = None
        self._with_classes: bool | None = None

    def close(self) -> None:
        """Let go of the hooks. What outlives its group of processes may wait for ever when it is freed."""
        self._module = self._with_classes = None

    def __call__(self, frames: Tensor, *, with_classes: bool) -> tuple[Tensor, Tensor | None]:
        """Embeddings [n, 62, D] and, `with_classes`, logits [n, 62, K] of clips [n, T, 64, 64, C]."""
        if with_classes != self._with_classes:
            # The classifiers get no gradient in the epochs without cross entropy, and must not be waited for then.
            if self.model.classifier is not None:
                self.model.classifier.requires_grad_(with_classes)
            self._module = None  # its hooks go before new ones come
            self._module = self._ranks.hooked(_Both(self.model), self.device)
            self._with_classes = with_classes
        assert self._module is not None
        outputs: tuple[Tensor, Tensor | None] = self._module(frames, with_classes=with_classes)
        return outputs
