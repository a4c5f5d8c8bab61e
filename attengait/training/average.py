"""An exponential moving average of the weights (Polyak & Juditsky, 1992), which often recognises better than the last.

After step t (from 1) the average keeps min(decay, (1 + t) / (10 + t)) of itself and takes the rest from the weights.
So the first steps, whose weights are hardly trained, do not stay in it for long.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of a model's parameters, on their device. It begins with the weights that the model has now."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step` steps, at least 1."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.weights.values()), list(model.parameters()), share)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Let the model compute with the average for a while; afterwards it has its own weights again."""
        own = {name: parameter.data for name, parameter in model.named_parameters()}
        try:
            for name, parameter in model.named_parameters():
                parameter.data = self.weights[name]
            yield
        finally:
            for name, parameter in model.named_parameters():
                parameter.data = own[name]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the average of each parameter by its name. Loading writes into these tensors."""
        return self.weights
