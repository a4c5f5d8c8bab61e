"""What is known after each step of a training: its losses, how fast it was, and what is left."""

import math
import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attengait.sampling.plan import ClipBatch
from attengait.system.progress import duration

LOSS_SCALE = "loss_scale"
"""The name of the scale among the values of a step; NaN where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """How a run does, after each step."""

    step: int
    """Steps done."""
    num_steps: int
    learning_rate: float
    losses: dict[str, float]
    """total, triplet, cross_entropy (absent in the epochs without), l2, active_triplets (their share) and the
    gradient_norm (absent where the loss scaler skipped the step), of this step."""
    loss_scale: float | None
    """After this step; None where the precision is not fp16."""
    skipped_steps: int
    """Steps that the loss scaler skipped, since the value before that was logged."""
    clips_per_second: float
    """Over the last 20 steps."""
    data_wait_share: float
    """Share of that time spent waiting for the next batch."""
    remaining_seconds: float

    def __str__(self) -> str:
        shown = ("total", "triplet", "cross_entropy", "l2")
        losses = "  ".join(f"{name} {self.losses[name]:.3f}" for name in shown if name in self.losses)
        if self.loss_scale is not None:
            losses += f"  loss scale {self.loss_scale:,.6g}{'' if 'gradient_norm' in self.losses else ', step skipped'}"
        return (
            f"{losses}  {self.clips_per_second:.1f} clips/s  waiting for data {self.data_wait_share:.0%}  "
            f"{duration(self.remaining_seconds)} left"
        )

    @property
    def values(self) -> dict[str, float | None]:
        """For loggers, by name."""
        values: dict[str, float | None] = {f"train/{name}": value for name, value in self.losses.items()}
        values.setdefault("train/gradient_norm", None)
        values["train/learning_rate"] = self.learning_rate
        if self.loss_scale is not None:
            values |= {"train/loss_scale": self.loss_scale, "train/skipped_steps": self.skipped_steps}
        values["speed/clips_per_second"] = self.clips_per_second
        values["speed/data_wait_share"] = self.data_wait_share
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that was done, or begun on a GPU."""

    batch: ClipBatch
    rate: float
    waited_seconds: float
    names: tuple[str, ...]
    values: Tensor
    """Of the losses, float32 on the CPU; right after `done`."""
    done: Any
    """A CUDA event; None on a CPU."""

    def read(self) -> dict[str, float]:
        """Wait for the losses."""
        if self.done is not None:
            self.done.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))


class Meter:
    """Rates over the last steps, for the live line."""

    WINDOW_STEPS = 20

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.skipped_steps = 0
        self.history: list[tuple[float, int, float]] = [(time.perf_counter(), 0, 0.0)]  # time, clips, waited seconds

    def leave_out(self, seconds: float) -> None:
        """Do not count time in which nothing was trained."""
        self.history = [(moment + seconds, clips, waited) for moment, clips, waited in self.history]

    def update(
        self, step: int, num_clips: int, waited_seconds: float, losses: dict[str, float], rate: float, scale: float
    ) -> StepReport:
        if not math.isfinite(losses["gradient_norm"]):
            self.skipped_steps += 1
            del losses["gradient_norm"]
        _, clips, waited = self.history[-1]
        self.history.append((time.perf_counter(), clips + num_clips, waited + waited_seconds))
        del self.history[: -self.WINDOW_STEPS - 1]
        (start, clips_before, waited_before), (end, clips, waited) = self.history[0], self.history[-1]
        seconds = end - start
        return StepReport(
            step=step,
            num_steps=self.num_steps,
            learning_rate=rate,
            losses=losses,
            loss_scale=None if math.isnan(scale) else scale,
            skipped_steps=self.skipped_steps,
            clips_per_second=(clips - clips_before) / seconds,
            data_wait_share=(waited - waited_before) / seconds,
            remaining_seconds=(self.num_steps - step) * seconds / (len(self.history) - 1),
        )
