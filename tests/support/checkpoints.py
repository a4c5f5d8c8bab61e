"""What a checkpoint holds, and checkpoints as version 0.1.0 wrote them."""

from pathlib import Path
from typing import Any

import torch

from attengait.training.packing import unpack


def state_in(path: Path) -> dict[str, Any]:
    """All that a checkpoint holds, its checksums included."""
    state: dict[str, Any] = unpack(torch.load(path, weights_only=True))
    return state


def state_of_0_1_0(path: Path) -> dict[str, Any]:
    """What version 0.1.0 would have written: no checksums, and no record to which it belongs."""
    state = state_in(path)
    return {name: state[name] for name in ("step", "model", "optimiser", "scaler")}


def rewrite_as_0_1_0(path: Path) -> None:
    """Make a checkpoint one of version 0.1.0."""
    torch.save(state_of_0_1_0(path), path)
