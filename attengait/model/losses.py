"""The published recipe's three losses: triplets of embeddings, cross entropy of the classifiers, L2 of the weights.

All are computed in float32, whatever precision the network ran in.

N clips of a batch, P parts, D features per part, K classes; A pairs of an anchor with a positive.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from attengait.model.net import AttenGait

L2_FACTOR = 1e-5
PROBABILITY_FLOOR = 1e-7


class Pairs(NamedTuple):
    """Which clips form triplets, on the device of their embeddings."""

    anchor: Tensor
    """int64 [A]"""
    positive: Tensor
    """int64 [A]: each anchor pairs every clip of its label, itself included."""
    same: Tensor
    """bool [N, N]: whether two clips have one label. All others are negatives of each other."""


def pairs_of(labels: Tensor, device: torch.device) -> Pairs:
    """The pairs of clips with these labels, integers [N].

    Labels on the CPU are worked on there. So nothing waits for a GPU.
    """
    same = labels[:, None] == labels[None, :]
    anchor, positive = same.nonzero(as_tuple=True)
    return Pairs(*(send(tensor, device) for tensor in (anchor, positive, same)))


def triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float | Tensor = 0.2,
    normalised: bool = False,
    soft_margin: bool = False,
) -> Tensor:
    """Batch-all triplet loss as the original reports it: sum over the parts / number of clips.

    Args:
        embeddings: [N, P, D].
        labels: integers [N], best on the CPU; clips of one label are positives of each other.
        margin: how much farther a negative must be than a positive (Euclidean distance), or [P], one for each part.
        normalised: first scale every feature of every part to length 1 over the clips of the batch. So does the
            published code, which normalises [P, N, D] along its middle axis (and leaves the option off).
        soft_margin: log(1 + exp(d_ap - d_an)) instead of max(0, margin + d_ap - d_an).
    """
    per_part = triplet_loss_per_part(embeddings, labels, margin=margin, normalised=normalised, soft_margin=soft_margin)
    return per_part.sum() / len(embeddings)


def triplet_loss_per_part(
    embeddings: Tensor, labels: Tensor, *, margin: float | Tensor, normalised: bool, soft_margin: bool
) -> Tensor:
    """[P]: the mean over the triplets whose term is above zero; 0 where there is none.

    Every anchor pairs every positive, itself included, with every negative.
    """
    pairs = pairs_of(labels, embeddings.device)
    return triplets_per_part(embeddings, pairs, margin=margin, normalised=normalised, soft_margin=soft_margin)[0]


def triplets_per_part(
    embeddings: Tensor, pairs: Pairs, *, margin: float | Tensor, normalised: bool, soft_margin: bool
) -> tuple[Tensor, Tensor]:
    """[P] as `triplet_loss_per_part`, and the share of the triplets of all parts whose term is above zero.

    The loss is a mean over these only. So it says little about how many there are left to learn from. The share does.
    """
    # Autocast leaves float32 operands of these operations alone.
    x = embeddings.float().transpose(0, 1).contiguous()  # [P, N, D]
    if normalised:
        x = functional.normalize(x, dim=1)
    # Differences, not the expanded square: a clip's distance to itself is exactly 0, with gradient 0.
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")  # [P, N, N]
    anchor, positive, same = pairs
    excess = distances[:, anchor, positive, None] - distances[:, anchor]  # [P, A, N]
    margin = margin[:, None, None] if isinstance(margin, Tensor) else margin
    terms = functional.softplus(excess) if soft_margin else functional.relu(margin + excess)
    terms = terms.masked_fill(same[anchor], 0)
    num_active = (terms > 0).sum((1, 2))  # [P]
    num_triplets = len(x) * (~same[anchor]).sum()
    share = num_active.sum() / num_triplets.clamp(min=1)
    return terms.sum((1, 2)) / num_active.clamp(min=1), share


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU to a device without waiting for the device."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over parts and clips of -sum(target * log(clipped softmax)).

    Args:
        logits: [N, P, K], or [N, 1, K] of one classifier for all parts.
        targets: rows that sum to 1, [N, K]; mixed where clips are mixed.
    """
    probabilities = torch.softmax(logits.float(), -1).clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return -(targets.float()[:, None] * probabilities.log()).sum(-1).mean()


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """Targets [N, K] of which a share is spread over all classes alike (Szegedy et al., 2016)."""
    return targets if smoothing == 0 else targets * (1 - smoothing) + smoothing / targets.shape[-1]


def l2_penalty(model: AttenGait, factor: float = L2_FACTOR) -> Tensor:
    """factor * sum(w^2) over the penalised weights; a part of the loss, not decoupled weight decay."""
    norms = torch._foreach_norm(list(penalised_weights(model).values()))  # few operations for many tensors
    return torch.stack(norms).square().sum() * factor


def penalised_weights(model: AttenGait) -> dict[str, nn.Parameter]:
    """Names and tensors under the L2 penalty: convolutions, pyramids, part-linear layers and attention.

    Not the classifiers, and no gain or bias.
    """
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if not name.startswith("classifier.") and not name.endswith((".gain", ".bias"))
    }
