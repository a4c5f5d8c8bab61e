"""Which clips form triplets with each other where a batch is that of several replicas or processes.

The published program trains a replica on each GPU, and clips form triplets within their replica. So the batch of all
processes consists of groups of clips: one for each replica, or one in all. Which groups there are is a setting of the
run. How many processes share the work is not: it changes no loss.

N clips of the whole batch, n of this process, P parts, D features per part.
"""

import torch
from torch import Tensor

from attengait.model.losses import triplets_per_part
from attengait.training.config import OptimiserSettings
from attengait.training.margins import AdaptiveMargins
from attengait.training.ranks import Ranks


def triplet_term(
    embeddings: Tensor,
    labels: Tensor,
    settings: OptimiserSettings,
    *,
    margins: AdaptiveMargins | None = None,
    replicas: int,
    ranks: Ranks,
) -> tuple[Tensor, Tensor]:
    """The triplet loss of this process, and the share of its triplets that are above zero. The mean over the processes
    is that of the batch: the mean over the groups.

    Args:
        embeddings: of the clips of this process, [n, P, D].
        labels: of all clips, integers [N] on the CPU.
        settings: `triplets` and the settings of the loss.
        margins: if any, they are used instead of the settings', and may grow.
        replicas: into how many replicas the batch is divided.
        ranks: the processes.
    """
    groups, num_parts = 1 if settings.triplets == "global" else replicas, embeddings.shape[1]
    first, last, weight = 0, num_parts, 1.0
    if groups % ranks.world_size == 0:
        groups, labels = groups // ranks.world_size, ranks.own(labels)
    else:
        # Parts know nothing of each other, so each process takes the triplets of all clips for its share of the parts.
        embeddings = ranks.gather_with_gradients(embeddings)  # [N, P, D]
        first, last = (num_parts * rank // ranks.world_size for rank in (ranks.rank, ranks.rank + 1))
        weight = ranks.world_size
    found = [
        triplets_per_part(
            of_group,
            labels_of_group,
            margin=settings.margin if margins is None else margins.values[first:last],
            soft_margin=settings.soft_margin,
            normalised=settings.normalise_embeddings,
        )
        for of_group, labels_of_group in zip(embeddings[:, first:last].chunk(groups), labels.chunk(groups), strict=True)
    ]
    if margins is not None:
        # A part is idle where it is so in all groups and processes.
        per_part = torch.zeros(num_parts, device=embeddings.device)
        per_part[first:last] = sum(per_part.detach() for per_part, _ in found)
        margins.update(ranks.sum(per_part))
    loss = torch.stack([per_part.sum() / (len(embeddings) // groups) for per_part, _ in found]).mean()
    active = torch.stack([share for _, share in found]).mean() * ((last - first) / num_parts)
    return weight * loss, weight * active
