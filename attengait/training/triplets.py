"""Which clips form triplets with each other where a batch is that of several replicas or processes.

The published program trains a replica on each GPU, and clips form triplets within their replica. So the batch of all
processes consists of groups of clips: one for each replica, or one in all. Which groups there are is a setting of the
run. How many processes share the work is not: it changes no loss.

N clips of the whole batch, n of this process, P parts, D features per part.
"""

import torch
from torch import Tensor

from attengait.model.losses import triplet_loss
from attengait.training.config import OptimiserSettings
from attengait.training.ranks import Ranks


def triplet_term(
    embeddings: Tensor, labels: Tensor, settings: OptimiserSettings, *, replicas: int, ranks: Ranks
) -> Tensor:
    """The triplet loss of this process. Its mean over the processes is that of the batch: the mean over the groups.

    Args:
        embeddings: of the clips of this process, [n, P, D].
        labels: of all clips, integers [N] on the CPU.
        settings: `triplets` and the settings of the loss.
        replicas: into how many replicas the batch is divided.
        ranks: the processes.
    """
    groups = 1 if settings.triplets == "global" else replicas
    if groups % ranks.world_size == 0:
        return _mean_loss(embeddings, ranks.own(labels), settings, groups // ranks.world_size)
    # Parts know nothing of each other, so each process takes the triplets of all clips for its share of the parts.
    whole = ranks.gather_with_gradients(embeddings)  # [N, P, D]
    first, last = (whole.shape[1] * rank // ranks.world_size for rank in (ranks.rank, ranks.rank + 1))
    return ranks.world_size * _mean_loss(whole[:, first:last], labels, settings, groups)


def _mean_loss(embeddings: Tensor, labels: Tensor, settings: OptimiserSettings, groups: int) -> Tensor:
    losses = [
        triplet_loss(
            of_group,
            labels_of_group,
            margin=settings.margin,
            soft_margin=settings.soft_margin,
            normalised=settings.normalise_embeddings,
        )
        for of_group, labels_of_group in zip(embeddings.chunk(groups), labels.chunk(groups), strict=True)
    ]
    return torch.stack(losses).mean()
