"""CUDA graphs: the forward pass, the losses and the backward pass of a step, started by one call.

Python starts the kernels of a step one by one, and a fast GPU may wait for it. A CUDA graph is a recording of these
starts, with the addresses that they read and write. To replay it costs Python one call. So

- what changes from step to step is copied to fixed addresses first. The weights and the loss scale stay where they are;
- losses and gradients come out at fixed addresses, and the next replay overwrites them;
- what is recorded must not look at a value of a tensor. Python would not look again;
- dropout follows the seed that is set before each replay.

A wrong recording would train wrong weights without a word. So the first replays of each graph, and a few later ones,
are compared with the same step without it, to the bit. After anything that is wrong, the run goes on without graphs,
and says why.

There is a graph for each shape of the inputs, when it comes for the second time. All graphs share the memory of what is
computed between inputs and gradients, as only one of them runs at a time.
"""

import gc
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from attengait.model.losses import Pairs
from attengait.model.net import normalise
from attengait.training.config import TrainingConfig
from attengait.training.losses import Compute, StepInputs, seed_random
from attengait.training.ranks import Ranks

DEVICES = ("cuda",)
"""Types of devices that have graphs."""
MAX_GRAPHS = 4
"""Batches of further shapes are computed without a graph."""
CHECKED_REPLAYS = 2
"""Of each graph. The second one has other clips, other weights and another seed than those that were recorded."""
LATER_CHECKS = frozenset(10**n for n in range(2, 8))
"""Replays of each graph that are compared, too: by then, weights, margins and the loss scale are others, which at first
hardly change while the learning rate warms up."""
_CLOSE = 10.0
"""Where a step without a graph does not repeat itself to the bit, a graph's result may differ from it so many times as
much as it does from itself: the losses together, and the gradient of each parameter."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Graph:
    """A recording, and the fixed addresses that it reads and writes."""

    recording: Any
    inputs: StepInputs
    losses: dict[str, Tensor]
    gradients: list[Tensor | None]
    """Of each parameter."""
    weights: list[int]
    """The address of each parameter."""
    replays: int = 0
    checked: int = 0
    """Replays that were compared."""
    is_exact: bool = True
    """Whether all of these gave the same bits as the step without the graph."""


@dataclass(slots=True, kw_only=True)
class StepGraphs:
    """Computes steps by CUDA graphs, where they work. To be closed."""

    compute: Compute
    parameters: Sequence[nn.Parameter]
    device: torch.device
    why_not: str | None
    """Why there are no graphs, as part of a sentence."""
    idle_bytes: int = field(init=False, default=0)
    """Memory of the graphs that torch counts as reserved only, as none of its tensors lie there between two replays."""
    most_bytes: int = field(init=False, default=0)
    """The most that this was."""
    num_proven: int = field(init=False, default=0)
    """Graphs whose first results were right."""
    _graphs: dict[object, _Graph] = field(init=False, default_factory=dict)
    _seen: set[object] = field(init=False, default_factory=set)
    _with_classes: bool | None = field(init=False, default=None)
    _room: Any = field(init=False, default=None)
    """The pool of memory of all graphs, and the stream on which they are recorded."""

    def __call__(self, inputs: StepInputs, seed: int) -> dict[str, Tensor]:
        """The losses of a step; its gradients are left in the parameters. All are right until the next step."""
        if self.why_not is None:
            try:
                losses = self._by_graph(inputs, seed)
            except Exception as error:  # whatever it is: the step can be computed without
                self._give_up(f"a graph could not be recorded or checked ({_first_line(error)})")
            else:
                if losses is not None:
                    return losses
        if self._graphs:
            try:
                return self._without(inputs, seed)
            except torch.OutOfMemoryError:
                self.make_room("steps of other shapes")
        return self._without(inputs, seed)

    def make_room(self, what: str) -> bool:
        """Do without graphs from now on, where the memory did not suffice for `what` beside them. False: there are
        none."""
        if self._graphs:
            self._give_up(f"the memory does not suffice for the graphs and for {what}")
            return True
        return False

    def record(self) -> dict[str, Any]:
        """How many graphs computed steps, their memory, and why there are none (any more), as values of JSON."""
        return {"graphs": self.num_proven, "bytes": self.most_bytes, "why_not": self.why_not}

    def close(self) -> None:
        """Let go of the graphs and their memory, after their last replay."""
        if self._graphs:
            torch.cuda.synchronize(self.device)
        self._graphs.clear()
        self._seen.clear()
        self._room = None  # a pool that was let go of cannot be used again
        self.idle_bytes = 0

    def _by_graph(self, inputs: StepInputs, seed: int) -> dict[str, Tensor] | None:
        """The losses, or None where there is no graph for these inputs."""
        if inputs.with_classes != self._with_classes:
            self.close()  # the epochs with classifiers are over
            self._with_classes = inputs.with_classes
        shapes = tuple(tuple(tensor.shape) for tensor in inputs.tensors)
        graph = self._graphs.get(shapes)
        if graph is not None and graph.weights != self._addresses():
            raise RuntimeError("the weights have moved")
        if graph is None:
            # The first step of a shape is computed as usual. So kernels are compiled and algorithms chosen by then.
            if shapes not in self._seen or len(self._graphs) == MAX_GRAPHS:
                self._seen.add(shapes)
                return None
            graph = self._graphs[shapes] = self._record(inputs, seed)
        _write(graph.inputs, inputs)
        seed_random(seed, self.device)
        graph.recording.replay()
        graph.replays += 1
        if graph.checked < CHECKED_REPLAYS or graph.replays in LATER_CHECKS:
            return self._checked(graph, inputs, seed)
        for parameter, gradient in zip(self.parameters, graph.gradients, strict=True):
            parameter.grad = gradient
        return dict(graph.losses)

    def _without(self, inputs: StepInputs, seed: int) -> dict[str, Tensor]:
        self._forget_gradients()
        return self.compute(inputs, seed)

    def _record(self, inputs: StepInputs, seed: int) -> _Graph:
        fixed = _room_for(inputs)
        _write(fixed, inputs)
        if self._room is None:
            self._room = torch.cuda.graph_pool_handle(), torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        pool, stream = self._room
        # Where there are no gradients, the backward pass makes them instead of adding to them: in the graph's memory.
        self._forget_gradients()
        seed_random(seed, self.device)
        # Autograd's nodes of an earlier step belong to another stream, which would be recorded, too.
        gc.collect()
        torch.cuda.empty_cache()
        idle_bytes = self._idle_bytes()
        current, recording = torch.cuda.current_stream(self.device), torch.cuda.CUDAGraph()
        try:
            # In this mode, the threads of DALI may go on.
            with torch.cuda.graph(recording, pool=pool, stream=stream, capture_error_mode="thread_local"):
                losses = self.compute(fixed, None)
        except BaseException:
            _mend(self.device, current, pool)
            raise
        gc.collect()  # nor should steps without the graph find nodes of its stream
        self.idle_bytes += self._idle_bytes() - idle_bytes
        self.most_bytes = max(self.most_bytes, self.idle_bytes)
        return _Graph(
            recording=recording,
            inputs=fixed,
            losses=losses,
            gradients=self._gradients(),
            weights=self._addresses(),
        )

    def _checked(self, graph: _Graph, inputs: StepInputs, seed: int) -> dict[str, Tensor]:
        """The losses of the same step without the graph, which has been replayed, and whose result is compared."""
        losses = self._without(inputs, seed)
        ours, theirs = _results(graph.losses, graph.gradients), _results(losses, self._gradients())
        if not all(map(_is_finite, theirs.values())):
            return losses  # the loss scaler skips this step: the next one is compared
        graph.checked += 1
        differing = [what for what in ours if not _equal(ours[what], theirs[what])]
        if differing:
            # Perhaps the step does not repeat itself: on a GPU, the order of a sum may change.
            again = _results(self._without(inputs, seed), self._gradients())
            graph.is_exact = False
        for what in differing:
            repeats = _equal(theirs[what], again[what])
            if repeats or not _is_close(ours[what], theirs[what], again[what]):
                away = _distances(ours[what], theirs[what]).norm()
                why = f"a graph gave other {what} than the same step without it, {away:.3g} away from these"
                is_late = graph.checked > CHECKED_REPLAYS
                late = f"; its first results were right, but {graph.replays - 1} steps used it, and may be wrong"
                self._give_up(why + late * is_late)
                return losses
        if graph.checked == CHECKED_REPLAYS:
            self.num_proven += 1
            exact = "equal to the bit to those without it"
            close = "as close to those without it as these are to each other"
            _log.info(
                "a CUDA graph computes the steps of %s frames: its first results were %s",
                " x ".join(map(str, inputs.frames.shape[:2])),
                exact if graph.is_exact else close,
            )
        return losses

    def _give_up(self, why: str) -> None:
        self.why_not = why
        self.close()
        _log.warning("steps are computed without CUDA graphs from now on: %s", why)

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _gradients(self) -> list[Tensor | None]:
        return [parameter.grad for parameter in self.parameters]

    def _addresses(self) -> list[int]:
        return [parameter.data_ptr() for parameter in self.parameters]

    def _idle_bytes(self) -> int:
        return torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)


def why_without(config: TrainingConfig, device: torch.device, ranks: Ranks) -> str | None:
    """Why a run has no CUDA graphs, as part of a sentence; None where they are tried."""
    update = config.update
    reasons = {
        "cuda_graphs is false": not config.run.cuda_graphs,
        f"the device is {device}": device.type not in DEVICES,
        f"{ranks.world_size} processes train together": not ranks.is_alone,
        f"accumulate_steps is {update.accumulate_steps}": update.accumulate_steps > 1,
        f"recompute_frames is {update.recompute_frames}": update.recompute_frames > 0,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _room_for(inputs: StepInputs) -> StepInputs:
    """Room for inputs of these shapes. Its frames are floating, so that mixed clips and others have one graph."""
    return replace(
        inputs,
        frames=torch.empty(inputs.frames.shape, device=inputs.frames.device),
        targets=torch.empty_like(inputs.targets),
        pairs=tuple(Pairs(*map(torch.empty_like, pairs)) for pairs in inputs.pairs),
    )


def _write(room: StepInputs, inputs: StepInputs) -> None:
    for own, new in zip(room.tensors, replace(inputs, frames=normalise(inputs.frames)).tensors, strict=True):
        own.copy_(new)


def _results(losses: dict[str, Tensor], gradients: list[Tensor | None]) -> dict[str, Sequence[Tensor | None]]:
    return {"losses": [torch.cat([loss.flatten() for loss in losses.values()])], "gradients": gradients}


def _equal(ours: Sequence[Tensor | None], theirs: Sequence[Tensor | None]) -> bool:
    """Whether float32 tensors are equal to the bit. NaN is equal to itself."""
    return all(
        a is b if a is None or b is None else torch.equal(a.view(torch.int32), b.view(torch.int32))
        for a, b in zip(ours, theirs, strict=True)
    )


def _is_finite(tensors: Sequence[Tensor | None]) -> bool:
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors if tensor is not None]).all())


def _is_close(ours: Sequence[Tensor | None], theirs: Sequence[Tensor | None], again: Sequence[Tensor | None]) -> bool:
    """Whether each tensor of ours is about as close to theirs as theirs are to those of the same step again.

    A tensor may by chance be the same again. So it may also differ by the share by which all of them together do.
    """
    if any((a is None) != (b is None) for a, b in zip(ours, theirs, strict=True)):
        return False
    apart, sizes = _distances(theirs, again), torch.stack([each.norm() for each in theirs if each is not None])
    allowed = _CLOSE * (apart + sizes * apart.norm() / sizes.norm())
    return bool((_distances(ours, theirs) <= allowed).all())


def _distances(ours: Sequence[Tensor | None], theirs: Sequence[Tensor | None]) -> Tensor:
    """The norm of the difference of each tensor."""
    pairs = zip(ours, theirs, strict=True)
    return torch.stack([(a - b).norm() for a, b in pairs if a is not None and b is not None])


def _mend(device: torch.device, stream: torch.cuda.Stream, pool: Any) -> None:
    """Undo what torch leaves undone where CUDA refuses a recording: the current stream is still the recorded one, its
    memory is still taken from the pool, and the random state still belongs to it."""
    torch.cuda.set_stream(stream)
    with suppress(Exception):  # these are not there in each version of torch, and fail where all is well
        torch._C._cuda_endAllocateToPool(device.index, pool)
        torch._C._cuda_releasePool(device.index, pool)
    with suppress(Exception):
        generator = torch.cuda.default_generators[device.index]
        generator.graphsafe_set_state(generator.clone_state())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
