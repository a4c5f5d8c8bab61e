"""The model as a training step calls it: in all processes of a run, the same gradients are left in the end.

n clips of this process, D features per part, K classes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attengait.model.net import AttenGait
from attengait.training.micro_batches import MicroBatches
from attengait.training.ranks import Ranks


class _Both(nn.Module):
    """Embeddings and logits by one call, because what synchronises gradients hooks one call of one module."""

    def __init__(self, model: AttenGait) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, *, with_classes: bool) -> tuple[Tensor, Tensor | None]:
        embeddings = self.model(frames)
        return embeddings, self.model.classify(embeddings) if with_classes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What the losses of a step are computed from."""

    embeddings: Tensor
    """[n, 62, D]"""
    logits: Tensor | None
    """[n, 62, K]"""
    finish: Callable[[], None]
    """Call it after the losses' backward pass: then all gradients are there."""


class Hooked:
    """The model, called so that each step leaves the same gradients in all processes: the mean of those of each."""

    def __init__(self, model: AttenGait, device: torch.device, ranks: Ranks, *, num_parts: int = 1) -> None:
        self.model, self.device, self._ranks = model, device, ranks
        self._num_parts = num_parts
        """Parts in which the clips of this process go through the network."""
        if num_parts > 1:  # else torch does so when it hooks the module
            ranks.take_first(model.parameters())
        self._module: nn.Module | None = None
        self._with_classes: bool | None = None

    def close(self) -> None:
        """Let go of the hooks. What outlives its group of processes may wait for ever when it is freed."""
        self._module = self._with_classes = None

    def __call__(
        self, frames: Tensor, *, with_classes: bool, context: Callable[[], AbstractContextManager[None]]
    ) -> Outputs:
        """Embeddings and, `with_classes`, logits of clips [n, T, 64, 64, C]. The network runs within `context()`."""
        if self._num_parts == 1:
            with context():
                embeddings, logits = self._hooked(with_classes)(frames, with_classes=with_classes)
            return Outputs(embeddings=embeddings, logits=logits, finish=lambda: None)

        def embed(part: Tensor) -> Tensor:
            with context():
                embeddings: Tensor = self.model(part)
            return embeddings

        whole = MicroBatches(embed, frames, self._num_parts)
        logits = self.model.classify(whole.embeddings) if with_classes else None

        def finish() -> None:
            whole.backward()
            self._average_gradients()

        return Outputs(embeddings=whole.embeddings, logits=logits, finish=finish)

    def _hooked(self, with_classes: bool) -> nn.Module:
        if self._module is None or with_classes != self._with_classes:
            # The classifiers get no gradient in the epochs without cross entropy, and must not be waited for then.
            if self.model.classifier is not None:
                self.model.classifier.requires_grad_(with_classes)
            self._module = None  # its hooks go before new ones come
            self._module = self._ranks.hooked(_Both(self.model), self.device)
            self._with_classes = with_classes
        return self._module

    def _average_gradients(self) -> None:
        """Once for all parts. The hooks would do it after each part."""
        if self._ranks.is_alone:
            return
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        mean = self._ranks.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, values in zip(gradients, torch.split(mean, [each.numel() for each in gradients]), strict=True):
            gradient.copy_(values.view(gradient.shape))
