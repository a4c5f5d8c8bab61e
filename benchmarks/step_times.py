"""When each part of a training step begins and ends, on the device, seen from outside of the trainer.

The trainer is not changed for this: a stream of batches, and torch's hooks for modules, tensors and optimisers, say
when a part begins. On a GPU the times are those of events on its current stream, so that what is measured is the GPU's
time and nothing waits; on a CPU they are the clock's.

The parts of a step, one after the other, which add up to the step:

    data          waiting for the next batch
    augmentation  labels to the device, mixup and cutmix
    forward       the network, up to the embeddings
    losses        classifiers and losses, forward and backward
    backward      the network's gradients, and their norm
    optimiser     the step of Adam
    rest          what the trainer writes and reports
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimisers

from attengait.model.net import AttenGait

PARTS = ("data", "augmentation", "forward", "losses", "backward", "optimiser", "rest")


class StepTimes:
    """Notes the moments at which the parts of each step begin. `begin_step` begins a step and ends the one before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: list[dict[str, Any]] = []

    def begin_step(self) -> None:
        """Call this when the trainer asks for a batch."""
        self._steps.append({})
        self.begin("data")

    def begin(self, part: str) -> None:
        """Note that a part of the present step begins; not while a CUDA graph is recorded, as nothing is computed."""
        is_recorded = self._device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        if self._steps and not is_recorded:
            self._steps[-1].setdefault(part, self._now())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note the parts that torch's hooks tell of: all but `data` and `augmentation`."""

        def before_network(module: torch.nn.Module, _: object) -> None:
            if isinstance(module, AttenGait):
                self.begin("forward")

        def after_network(module: torch.nn.Module, _: object, output: Any) -> None:
            if isinstance(module, AttenGait):
                self.begin("losses")
                if output.requires_grad:
                    output.register_hook(lambda gradient: self.begin("backward"))

        hooks = (
            modules.register_module_forward_pre_hook(before_network),
            modules.register_module_forward_hook(after_network),
            optimisers.register_optimizer_step_pre_hook(lambda *_: self.begin("optimiser")),
            optimisers.register_optimizer_step_post_hook(lambda *_: self.begin("rest")),
        )
        with ExitStack() as stack:
            for hook in hooks:
                stack.callback(hook.remove)
            yield

    def milliseconds(self) -> tuple[list[float], dict[str, list[float]]]:
        """The time of each step that has ended, and of each part of the steps in which all parts were seen.

        Parts are not seen where the loss scaler leaves a step out, or where a step is one CUDA graph.
        """
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        pairs = list(zip(self._steps, self._steps[1:], strict=False))
        whole = [self._between(step["data"], following["data"]) for step, following in pairs]
        parts: dict[str, list[float]] = {part: [] for part in PARTS}
        for step, following in pairs:
            moments = [step.get(part) for part in PARTS]
            if None not in moments:
                for part, start, end in zip(PARTS, moments, [*moments[1:], following["data"]], strict=True):
                    parts[part].append(self._between(start, end))
        return whole, parts

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between(self, start: Any, end: Any) -> float:
        if self._device.type != "cuda":
            return float(1000 * (end - start))
        return float(start.elapsed_time(end))
