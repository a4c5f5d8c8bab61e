"""The learning rate over a run: a linear warm-up, then half a cosine down to zero, or no change."""

import math


def learning_rate(step: int, base: float, warmup: int, total: int, *, schedule: str = "cosine") -> float:
    """The rate of one step, by specs of the published recipe.

    Args:
        step: from 0.
        base: the rate at the end of the warm-up.
        warmup: steps of the linear warm-up; 0 starts at `base`.
        total: steps of the whole run, warm-up included.
        schedule: after the warm-up, "cosine" falls to 0 at `total`, "constant" stays at `base`.
    """
    if step < warmup:
        return base * step / warmup
    if schedule == "constant":
        return base
    return base / 2 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
