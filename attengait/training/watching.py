"""Whoever looks on while a run trains: its loggers, validations, early stopping, kept checkpoints and the profiler.

The trainer calls a `Watch` between its steps. Nothing here changes a number of the training. With several processes
only the first one watches; `is_on` is False in the others.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.model.net import AttenGait
from attengait.sampling.plan import ClipBatch
from attengait.training.best import Best, Validation, save_best
from attengait.training.config import RunSettings
from attengait.training.environment import note_end, note_start
from attengait.training.graphs import StepGraphs
from attengait.training.kept import forget_later, keep_checkpoint
from attengait.training.loggers import Loggers
from attengait.training.memory_use import memory_values
from attengait.training.run_files import MetricsFile, TextLog
from attengait.training.tracing import Tracer

Validate = Callable[[AttenGait], Validation | None]
"""Recognises the held-out subjects with a network; None where it was asked to stop."""
Draw = Callable[[ClipBatch], NDArray[np.uint8]]
"""Draws the clips of a batch: uint8 [height, width, 3]. Raises AttenGaitError for clips that cannot be shown."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Watch:
    """Looks on at one run. Made before the checkpoint is loaded, which fills `best`."""

    run: Path
    settings: RunSettings
    num_steps: int
    """Of the whole run."""
    device: torch.device
    record_sha256: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    """The summary of the run."""
    validate: Validate | None = None
    draw: Draw | None = None
    is_on: bool = True
    best: Best = field(default_factory=Best)
    stopped_by: int | None = None
    """The signal that stopped the run, whichever of its processes heard it."""
    graphs: StepGraphs | None = field(init=False, default=None)
    """What computes the steps."""
    _loggers: Loggers = field(init=False)
    _tracer: Tracer = field(init=False)
    _step: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._loggers = Loggers({"metrics": MetricsFile, "log": TextLog}, self.settings.loggers if self.is_on else ())
        self._tracer = Tracer(self.run, self.settings.profile_steps if self.is_on else 0, self.device)

    @property
    def is_over(self) -> bool:
        """Whether validations say that it is time to stop."""
        patience = self.settings.early_stopping_validations
        return bool(patience) and self.best.since >= patience

    @contextmanager
    def watching(self, first_step: int) -> Iterator[None]:
        """Log a training that goes on after `first_step` steps, and how it ends."""
        self._step = first_step
        if not self.is_on:
            yield
            return
        forget_later(self.run, first_step)
        note_start(self.run, self.about, first_step)
        self._loggers.start(self.run, self.about, first_step)
        how = "failed"
        try:
            yield
            how = self._how_it_ended()
        except AttenGaitError as error:
            how = f"failed: {error}"
            raise
        except BaseException as error:
            how = f"failed: {type(error).__name__}"
            raise
        finally:
            self._tracer.stop()
            self._loggers.finish(how)
            note_end(self.run, self._step, how, self.graphs.record() if self.graphs else None)

    def see(self, batch: ClipBatch) -> None:
        """A step begins."""
        self._tracer.step()
        if self.is_on and batch.step == 0 and self.draw is not None:
            try:
                self._loggers.image("clips/first_batch", 0, self.draw(batch))
            except AttenGaitError as error:
                _log.warning("there is no picture of the first batch: %s", error)

    def hear(self, step: int, values: Mapping[str, float | None], *, is_logged: bool) -> None:
        """A step is done and read."""
        self._step = step
        if is_logged and self.is_on:
            graph_bytes = self.graphs.idle_bytes if self.graphs else 0
            self._loggers.scalars(step, {**values, **memory_values(self.device, graph_bytes)})

    def is_due(self, step: int) -> bool:
        """Whether there is a validation after so many steps."""
        every = self.settings.validate_every_steps
        return every > 0 and step > 0 and (step % every == 0 or step == self.num_steps)

    def is_missed(self, step: int) -> bool:
        """Whether a validation after so many steps is due and was not done, or was asked to stop."""
        return self.validate is not None and self.is_due(step) and self.best.last_step < step

    def look(self, network: AttenGait, step: int) -> float:
        """Validate after so many steps, unless that was done; returns the seconds that it took.

        The weights of the best validation are written.
        """
        if not self.is_on or self.validate is None or not self.is_missed(step):
            return 0.0
        started = time.perf_counter()
        try:
            found = self.validate(network)
        except torch.OutOfMemoryError:
            if self.graphs is None or not self.graphs.make_room("a validation"):
                raise
            found = self.validate(network)
        seconds = time.perf_counter() - started
        if found is None:
            return seconds
        is_better = self.best.hear(found.rank1, step)
        if is_better:
            save_best(self.run, network, self.record_sha256)
        figures = {"rank1": found.rank1, **found.more, "best_rank1": self.best.rank1, "seconds": seconds}
        self._loggers.scalars(step, {f"validation/{name}": value for name, value in figures.items()})
        _log.info(
            "step %s: validation rank-1 %.1f %% (%s, %s subjects, %s probes); %s",
            f"{step:,}",
            100 * found.rank1,
            found.protocol,
            f"{found.num_subjects:,}",
            f"{found.num_probes:,}",
            "the best so far" if is_better else f"the best is {100 * self.best.rank1:.1f} % at step {self.best.step:,}",
        )
        return seconds

    def keep(self, step: int) -> None:
        """A checkpoint was written after so many steps."""
        if self.is_on:
            keep_checkpoint(self.run, step, self.settings.keep_checkpoints)

    def _how_it_ended(self) -> str:
        if self.stopped_by is not None:
            return f"stopped: {signal.Signals(self.stopped_by).name}"
        if self._step >= self.num_steps:
            return "finished"
        if self.is_over:
            return "stopped early"
        return "stopped: stop_after_steps"
