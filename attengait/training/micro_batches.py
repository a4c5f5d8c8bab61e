"""The gradients of a whole batch from parts of it that go through the network one after the other.

Only the network's activations are large, so only the network sees the parts. The triplet loss is no sum over clips: it
compares every two clips of the batch, and divides by the number of triplets above zero. So no loss of a part would do.
Instead there are two passes over the parts (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory
Limited Setup", 2021):

1. embeddings of all parts, without gradients -> losses of the whole batch -> their gradient by the embeddings
2. each part again, with gradients, from the gradient of its own embeddings on

The network treats every clip by itself, and dropout drops patches for all clips of a batch alike. So with the same
random numbers in each part, the sum of the parts' gradients is that of the whole batch but for the order of sums. It
costs a second forward pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Embed = Callable[[Tensor], Tensor]
"""Frames [n, T, 64, 64, C] -> embeddings float32 [n, 62, D], every time with the same random numbers."""


class MicroBatches:
    """One batch on its way through the network in `num_parts` parts; with one part there is one pass, as usual."""

    def __init__(self, embed: Embed, frames: Tensor, num_parts: int) -> None:
        self._embed = embed
        self._parts = torch.chunk(frames, num_parts) if num_parts > 1 else ()
        self.embeddings = embed(frames) if num_parts == 1 else self._leaf()
        """float32 [N, 62, D]: what the losses are computed from."""

    def _leaf(self) -> Tensor:
        with torch.no_grad():
            embeddings = torch.cat([self._embed(part) for part in self._parts])
        return embeddings.requires_grad_()

    def backward(self) -> None:
        """The second pass. Call it after the losses' own backward pass, which has given the embeddings' gradient."""
        if not self._parts:
            return
        gradient = self.embeddings.grad
        assert gradient is not None
        gradients = torch.split(gradient, [len(part) for part in self._parts])
        for part, of_part in zip(self._parts, gradients, strict=True):
            self._embed(part).backward(of_part)  # type: ignore[no-untyped-call]
