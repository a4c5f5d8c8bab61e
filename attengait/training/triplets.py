"""Which clips form triplets with each other where a batch is that of several replicas or processes.

The published program trains a replica on each GPU, and clips form triplets within their replica. So the batch of all
processes consists of groups of clips: one for each replica, or one in all. Which groups there are is a setting of the
run. How many processes share the work is not: it changes no loss.

N clips of the whole batch, n of this process, P parts, D features per part.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from attengait.model.losses import Pairs, pairs_of, triplets_per_part
from attengait.training.config import OptimiserSettings
from attengait.training.margins import AdaptiveMargins
from attengait.training.ranks import Ranks


class Triplets(NamedTuple):
    """The triplet loss of one process. The mean over the processes is that of the batch: the mean over the groups."""

    loss: Tensor
    active: Tensor
    """The share of its triplets that are above zero."""
    per_part: Tensor
    """[P]: the sum over the groups of the loss of each part; 0 for the parts of other processes; without gradients."""


def pairs_of_groups(
    labels: Tensor, settings: OptimiserSettings, *, replicas: int, ranks: Ranks, device: torch.device
) -> tuple[Pairs, ...]:
    """The pairs of each group whose triplets this process takes, on `device`.

    Args:
        labels: of all clips, integers [N] on the CPU.
        settings: `triplets`.
        replicas: into how many replicas the batch is divided.
        ranks: the processes.
        device: where the embeddings are.
    """
    groups = _num_groups(settings, replicas)
    if _has_whole_groups(groups, ranks):
        groups, labels = groups // ranks.world_size, ranks.own(labels)
    return tuple(pairs_of(of_group, device) for of_group in labels.chunk(groups))


def triplet_term(
    embeddings: Tensor,
    pairs: tuple[Pairs, ...],
    settings: OptimiserSettings,
    *,
    margins: AdaptiveMargins | None = None,
    replicas: int,
    ranks: Ranks,
) -> Triplets:
    """The triplets of this process. Nothing in it looks at a value of a tensor.

    Args:
        embeddings: of the clips of this process, [n, P, D].
        pairs: what `pairs_of_groups` returned.
        settings: `triplets` and the settings of the loss.
        margins: if any, they are used instead of the settings'.
        replicas: into how many replicas the batch is divided.
        ranks: the processes.
    """
    groups, num_parts = len(pairs), embeddings.shape[1]
    first, last, weight = 0, num_parts, 1.0
    if not _has_whole_groups(_num_groups(settings, replicas), ranks):
        # Parts know nothing of each other, so each process takes the triplets of all clips for its share of the parts.
        embeddings = ranks.gather_with_gradients(embeddings)  # [N, P, D]
        first, last = (num_parts * rank // ranks.world_size for rank in (ranks.rank, ranks.rank + 1))
        weight = ranks.world_size
    found = [
        triplets_per_part(
            of_group,
            pairs_of_group,
            margin=settings.margin if margins is None else margins.values[first:last],
            soft_margin=settings.soft_margin,
            normalised=settings.normalise_embeddings,
        )
        for of_group, pairs_of_group in zip(embeddings[:, first:last].chunk(groups), pairs, strict=True)
    ]
    per_part = torch.zeros(num_parts, device=embeddings.device)
    per_part[first:last] = sum(of_group.detach() for of_group, _ in found)
    loss = torch.stack([of_group.sum() / (len(embeddings) // groups) for of_group, _ in found]).mean()
    active = torch.stack([share for _, share in found]).mean() * ((last - first) / num_parts)
    return Triplets(weight * loss, weight * active, per_part)


def _num_groups(settings: OptimiserSettings, replicas: int) -> int:
    """Groups of the whole batch."""
    return 1 if settings.triplets == "global" else replicas


def _has_whole_groups(groups: int, ranks: Ranks) -> bool:
    """Whether each process has groups of its own. Else all share the parts of each group."""
    return groups % ranks.world_size == 0
