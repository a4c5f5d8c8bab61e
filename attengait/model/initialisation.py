"""How a new network starts: Keras's Glorot uniform, with the fans that Keras counts.

Keras reads the last two axes of a kernel as (in, out) and all others as its receptive field. A depthwise kernel is
stored with one input channel, and a part-linear kernel [P, in, out] counts its P parts as a receptive field.
"""

import math

import torch
from torch import Tensor, nn


def glorot_limit(receptive_field: int, inputs: int, outputs: int) -> float:
    """Bound of Glorot's uniform distribution: sqrt(6 / (fan_in + fan_out)).

    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010, eq. 16.
    """
    return math.sqrt(6 / (receptive_field * (inputs + outputs)))


@torch.no_grad()
def initialise_convolution(kernel: Tensor) -> None:
    """Fill a convolution kernel [out, in, kh, kw]."""
    outputs, inputs, height, width = kernel.shape
    _fill(kernel, glorot_limit(height * width, inputs, outputs))


@torch.no_grad()
def initialise_window(kernel: Tensor) -> None:
    """Fill a pyramid's depthwise kernel [..., C]: one input channel, C output channels."""
    window = kernel[..., 0].numel()
    _fill(kernel, glorot_limit(window, 1, kernel.shape[-1]))


@torch.no_grad()
def initialise_part_linear(kernel: Tensor) -> None:
    """Fill a part-wise linear kernel [P, in, out]."""
    _fill(kernel, glorot_limit(*kernel.shape))


@torch.no_grad()
def initialise_classifier(kernel: Tensor) -> None:
    """Fill the classifiers' kernels [P, D, K]: each part is a dense layer of its own."""
    _fill(kernel, glorot_limit(1, *kernel.shape[1:]))


def _fill(kernel: Tensor, limit: float) -> None:
    nn.init.uniform_(kernel, -limit, limit)
