"""A small network, and its steps with and without CUDA graphs."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attengait.model.losses import pairs_of
from attengait.model.net import AttenGait
from attengait.training.graphs import StepGraphs
from attengait.training.losses import StepInputs, StepLosses

CPU = torch.device("cpu")
NETWORK: dict[str, Any] = {"widths": (4, 4, 8), "part_width": 8, "embedding_size": 4}


@dataclass
class Job:
    """One small network, and what its steps are computed by."""

    graphs: StepGraphs
    compute: StepLosses
    model: AttenGait

    def inputs(self, step: int, labels: tuple[int, ...] = (0, 0, 1, 1), num_frames: int = 16) -> StepInputs:
        generator = torch.Generator().manual_seed(step)
        shape = (len(labels), num_frames, 64, 64, 3)
        return StepInputs(
            frames=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
            targets=torch.eye(3)[list(labels)],
            pairs=(pairs_of(torch.tensor(labels), CPU),),
            with_classes=True,
        )

    def step(self, step: int, inputs: StepInputs) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The losses and gradients, as copies; then the weights move, as an optimiser moves them."""
        losses = {name: value.clone() for name, value in self.graphs(inputs, seed=step).items()}
        gradients = [parameter.grad for parameter in self.model.parameters()]
        copies = [gradient.clone() for gradient in gradients if gradient is not None]
        with torch.no_grad():
            for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
                parameter.add_(gradient, alpha=-0.01)
        return losses, copies


def same_step(one: Job, other: Job, step: int, **options: Any) -> bool:
    (losses, gradients), (expected, expected_gradients) = (
        each.step(step, each.inputs(step, **options)) for each in (one, other)
    )
    return all(torch.equal(losses[name], expected[name]) for name in expected) and all(
        torch.equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True)
    )
