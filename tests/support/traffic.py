"""Counts what the operations of a training step read and write, on torch's meta device, which computes nothing."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attengait.model.config import ModelConfig
from attengait.model.losses import cross_entropy, l2_penalty, triplet_loss
from attengait.model.net import AttenGait

FREE = ("view", "reshape", "permute", "transpose", "t", "expand", "detach", "slice", "select", "split", "unsqueeze")
FREE += (
    "alias",
    "squeeze",
    "as_strided",
    "unbind",
    "split_with_sizes",
    "_unsafe_view",
    "empty",
    "empty_like",
    "new_empty",
)
"""They move nothing."""


class Traffic(TorchDispatchMode):
    """Bytes of what each operation takes and returns, and how many operations there were."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = operation(*arguments, **(named or {}))
        name = operation.name().split("::")[1].split(".")[0]
        if name not in FREE:
            tensors = [leaf for leaf in tree_leaves((arguments, named or {}, result)) if isinstance(leaf, Tensor)]
            self.bytes[name] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.operations[name] += 1
        return result


def training_step(size: str, clips: int, frames: int) -> Traffic:
    """The traffic of one step of a network whose maps are bfloat16, with all losses, without the optimiser."""
    labels = torch.arange(clips) // 8
    with torch.device("meta"):
        model = AttenGait(ModelConfig.of_size(size, num_classes=74)).train()
        for convolution in model.backbone.convolutions:
            convolution.to(torch.bfloat16)
        images = torch.empty(clips, frames, 64, 64, 3, dtype=torch.bfloat16)
        targets = torch.empty(clips, 74)
        with Traffic() as traffic:
            embeddings = model(images)
            loss = cross_entropy(model.classify(embeddings), targets) + l2_penalty(model)
            loss = loss + triplet_loss(embeddings, labels)
            loss.backward()
    return traffic


if __name__ == "__main__":
    counted = training_step("small", 64, 30)
    print(f"{sum(counted.bytes.values()) / 1e9:.1f} GB, {sum(counted.operations.values())} operations")
    for name, size in counted.bytes.most_common(14):
        print(f"{size / 1e9:8.2f} GB {counted.operations[name]:5d} {name}")
