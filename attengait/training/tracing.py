"""A trace of some steps by torch's profiler, for Perfetto, chrome://tracing and TensorBoard.

RUN/profile.json.gz    what the CPU, and the GPU if there is one, did in each of these steps
"""

import logging
from pathlib import Path
from typing import Any

import torch

TRACE_NAME = "profile.json.gz"
WARM_UP_STEPS = 3
"""Steps that are not recorded: in the first ones kernels are compiled and algorithms chosen."""

_log = logging.getLogger(__name__)


class Tracer:
    """Records `num_steps` steps after a warm-up; nothing where it is 0."""

    def __init__(self, run: Path, num_steps: int, device: torch.device) -> None:
        self._path, self._num_steps, self._device = run / TRACE_NAME, num_steps, device
        self._profiler: Any = None
        self._steps_seen = 0

    def step(self) -> None:
        """Call this before each step."""
        if not self._num_steps:
            return
        if self._steps_seen == WARM_UP_STEPS:
            activity = torch.profiler.ProfilerActivity
            on_gpu = [activity.CUDA] if self._device.type == "cuda" else []
            self._profiler = torch.profiler.profile(activities=[activity.CPU, *on_gpu])
            self._profiler.start()
        elif self._profiler is not None and self._steps_seen < WARM_UP_STEPS + self._num_steps:
            self._profiler.step()  # which marks where a step begins
        elif self._profiler is not None:
            self.stop()
        self._steps_seen += 1

    def stop(self) -> None:
        """Write the trace of the steps so far. Call this at the end, too: a run may end before all are recorded."""
        if self._profiler is not None:
            profiler, self._profiler = self._profiler, None
            num_steps = min(self._steps_seen - WARM_UP_STEPS, self._num_steps)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            profiler.stop()
            try:
                profiler.export_chrome_trace(str(self._path))
            except OSError as error:  # which is no reason to end the training
                _log.warning("there is no trace: %s cannot be written: %s", self._path, error.strerror or error)
                return
            _log.info("%s holds a trace of %s steps", self._path.name, num_steps)
        elif self._num_steps and self._steps_seen <= WARM_UP_STEPS:
            _log.warning("there is no trace: the run ended within the %s steps of warm-up", WARM_UP_STEPS)
