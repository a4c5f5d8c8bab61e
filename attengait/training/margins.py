"""Margins of the triplet loss that grow, part by part, where nothing is left to learn.

The published option `adaptative_triplet_loss`: a part that had no triplet above zero in more than 100 batches gets a
margin that is 0.1 larger, and its count starts anew. (The published program means to do so. As its TensorFlow code is
traced once, whether the new margins are used there depends on the way it is run.)
"""

import torch
from torch import Tensor

IDLE_BATCHES = 100
"""A margin grows when its part was idle in more batches than these."""
GROWTH = 0.1


class AdaptiveMargins:
    """The margin of each part, float32 [P]. Nothing here waits for a GPU."""

    def __init__(self, margin: float, num_parts: int, device: torch.device) -> None:
        self.values = torch.full((num_parts,), margin, device=device)
        """[P]"""
        self.idle_batches = torch.zeros(num_parts, device=device)
        """Batches [P] without a triplet above zero since the margin grew last."""

    @torch.no_grad()
    def update(self, triplet_per_part: Tensor) -> None:
        """Count the parts whose triplet loss [P] over a whole batch is zero: then none of their triplets is above."""
        self.idle_batches += triplet_per_part == 0
        grown = self.idle_batches > IDLE_BATCHES
        self.values += GROWTH * grown
        self.idle_batches *= ~grown

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps. Loading writes into these tensors."""
        return {"margins": self.values, "idle_batches": self.idle_batches}
