"""Optimisers by name, and what is done with gradients before they are used.

adam      Adam, as published: betas 0.9 and 0.999, eps 1e-7, added after the bias correction as torch does
amsgrad   Adam whose second moment never falls (Reddi et al., 2018)
adamw     Adam with decoupled weight decay (Loshchilov & Hutter, 2019)
sgd       stochastic gradient descent with momentum
lamb      layer-wise rates for large batches (You et al., 2020), from the library pytorch-optimizer

The learning rate is set before each step, so an optimiser begins with 0.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from attengait.errors import AttenGaitError, how_to_install
from attengait.training.settings import UpdateSettings

_EPS = 1e-7
"""Keras's default, with which the published networks were trained."""


def make_optimiser(settings: UpdateSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that the settings name, with learning rate 0.

    Raises AttenGaitError where the library that has it is not installed.
    """
    adam: Any = partial(torch.optim.Adam, lr=0.0, eps=_EPS, fused=True)
    decay = settings.weight_decay
    if settings.optimiser == "adam":
        optimiser = adam(parameters)
    elif settings.optimiser == "amsgrad":
        optimiser = adam(parameters, amsgrad=True)
    elif settings.optimiser == "adamw":
        optimiser = torch.optim.AdamW(parameters, lr=0.0, eps=_EPS, weight_decay=decay, fused=True)
    elif settings.optimiser == "sgd":
        optimiser = torch.optim.SGD(parameters, lr=0.0, momentum=settings.momentum, fused=True)
        if settings.momentum:
            # torch makes these in the first step without writing them. Where the loss scaler skips that step, they
            # would hold whatever was in memory. From zeros, the first step is the same.
            for parameter in optimiser.param_groups[0]["params"]:
                optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    else:
        try:
            from pytorch_optimizer import Lamb
        except ImportError:
            raise AttenGaitError(
                f"the optimiser lamb needs the library pytorch-optimizer: {how_to_install('optimisers')}"
            ) from None
        optimiser = Lamb(parameters, lr=0.0, eps=_EPS, weight_decay=decay)
    return optimiser  # type: ignore[no-any-return]


def clip(parameters: Iterable[nn.Parameter], norm: torch.Tensor, max_norm: float) -> None:
    """Scale all gradients so that their norm together, which is `norm` now, is at most `max_norm`; 0: leave them."""
    if max_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
