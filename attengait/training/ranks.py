"""The processes that work together, as on one run: which one this is, what all agree on, and what they exchange.

torchrun starts the processes, on one machine or several, and tells each its number (its rank) in the environment. A
batch belongs to all of them: rank r has the r-th of equal slices. What is small and lies on the CPU travels by gloo.
What lies on a GPU travels by NCCL. A process that ends closes its connections, so that each exchange by gloo fails at
once where another process has died; an exchange on a GPU may wait for ever, so that every step begins with one by gloo.

N clips of the batch of all processes, n = N / processes of one.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from attengait.errors import AttenGaitError, ParameterError
from attengait.system.torchrun import is_started_by_torchrun

_T = TypeVar("_T")

PATIENCE = timedelta(hours=24)
"""How long a process waits for others that live: the first may validate for hours, or load a large store. Of one that
has died the others hear at once, since its connections close."""


class OtherProcessError(AttenGaitError):
    """Another process has failed."""

    def __init__(self, message: str, *, is_explained: bool = False) -> None:
        super().__init__(message)
        self.is_explained = is_explained
        """Whether the other process lives and raises what was wrong. Else it may have been killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those that train together; by default it is alone."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Its number on its machine."""
    local_world_size: int = 1
    """Processes on its machine."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes and says what is written and said once."""
        return self.rank == 0

    @property
    def first_of_machine(self) -> int:
        """The first process of this machine: torchrun numbers those of a machine one after the other."""
        return self.rank - self.local_rank

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.world_size == 1

    def device(self, device: str) -> str:
        """The device of this process where the settings say `device`: each process of a machine has a GPU of its own.

        Raises ParameterError for a GPU by its number, AttenGaitError where a machine has fewer GPUs than processes.
        """
        if self.is_alone or device == "cpu":
            return device
        if device not in ("auto", "cuda"):
            raise ParameterError(
                f"device is {device!r}, but must be auto, cpu or cuda for several processes: each takes the GPU of its "
                "own number"
            )
        num_gpus = torch.cuda.device_count()
        if device == "auto" and num_gpus == 0:
            return "cpu"
        if self.local_world_size > num_gpus:
            raise AttenGaitError(
                f"{self.local_world_size} processes run on this machine, but torch sees {num_gpus} GPUs: start one "
                "process for each GPU, or use the CPU (--device cpu; in training --set device=cpu)"
            )
        return f"cuda:{self.local_rank}"

    def own(self, values: Tensor) -> Tensor:
        """This process's slice of values for the whole batch: [N, ...] -> [n, ...]."""
        if self.is_alone:
            return values
        share = len(values) // self.world_size
        return values[self.rank * share : (self.rank + 1) * share]

    def rows(self, values: Tensor, index: Tensor) -> Tensor:
        """Rows of a tensor of which each process has its slice [n, ...], on the same device: [n, ...].

        `index` [N] says for each clip of the whole batch which row of the whole is wanted.
        """
        return self.gather(values)[self.own(index)]

    def gather(self, values: Tensor) -> Tensor:
        """The slices of all processes, one after the other: [n, ...] -> [N, ...]; without gradients."""
        if self.is_alone:
            return values
        values = values.detach().contiguous()
        whole = values.new_empty(self.world_size * len(values), *values.shape[1:])
        with _others_may_die():
            dist.all_gather(list(whole.chunk(self.world_size)), values)
        return whole

    def send_to_first(self, values: Tensor) -> None:
        """Give values on the CPU to the first process, which is to call `receive`."""
        with _others_may_die():
            dist.send(values.contiguous(), 0)

    def receive(self, values: Tensor, source: int) -> None:
        """Fill values on the CPU with those that process `source` sends to this one."""
        with _others_may_die():
            dist.recv(values, source)

    def gather_with_gradients(self, values: Tensor) -> Tensor:
        """As `gather`. The gradient of a slice is the sum of those that all processes have for it."""
        return _gather(values, self)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes of each value."""
        if self.is_alone:
            return values
        values = values / self.world_size
        with _others_may_die():
            dist.all_reduce(values)
        return values

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes of each value."""
        if self.is_alone:
            return values
        values = values.contiguous().clone()
        with _others_may_die():
            dist.all_reduce(values)
        return values

    @torch.no_grad()
    def take_first(self, tensors: Iterable[Tensor]) -> None:
        """Let all processes have the values that the first one has."""
        for tensor in () if self.is_alone else tensors:
            values = tensor.detach().contiguous()
            with _others_may_die():
                dist.broadcast(values, 0)
            tensor.copy_(values)

    def largest(self, number: int) -> int:
        """The largest of the whole numbers of all processes."""
        if self.is_alone:
            return number
        largest = torch.tensor(number)
        with _others_may_die():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def any_stops(self, signal_number: int | None, *, is_over: bool) -> tuple[int | None, bool]:
        """Whether a signal came to one of the processes, and which, and whether one of them says that it is over.

        Where one has a signal and another says that it is over, the signal is told: it is heard only once.
        """
        code = self.largest(2 * (signal_number or 0) + is_over)
        return code // 2 or None, bool(code % 2)

    def exchange(self, value: _T) -> list[_T]:
        """The small values of all processes, by rank."""
        if self.is_alone:
            return [value]
        values: list[Any] = [None] * self.world_size
        with _others_may_die():
            dist.all_gather_object(values, value)
        return values

    def check_same(self, what: str, value: str) -> None:
        """Raise AttenGaitError where another process has another value."""
        values = self.exchange(value)
        if (other := next((rank for rank, each in enumerate(values) if each != values[0]), None)) is not None:
            raise AttenGaitError(
                f"{what} of process {other} is another than that of process 0: all machines need the same files at "
                "the same paths, and the same kind of device"
            )

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """What each does before they exchange anything: where one raises, the others raise OtherProcessError."""
        try:
            yield
        except Exception:
            self.largest(1)
            raise
        if self.largest(0):
            raise OtherProcessError("another process could not begin", is_explained=True)

    def hooked(self, module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
        """A module whose gradients are, after each backward pass, the mean of those of all processes.

        Only parameters that require a gradient now are hooked, and each must get one in each backward pass.
        """
        if self.is_alone:
            return module
        from torch.nn.parallel import DistributedDataParallel

        with _others_may_die():
            return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)


ALONE = Ranks()


class _Gather(torch.autograd.Function):
    """`gather`, and its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.gather(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.own(ctx.ranks.sum(gradient)), None


def _gather(values: Tensor, ranks: Ranks) -> Tensor:
    whole: Tensor = values if ranks.is_alone else _Gather.apply(values, ranks)  # type: ignore[no-untyped-call]
    return whole


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started with this one; without torchrun, this process is alone.

    Who has called `torch.distributed.init_process_group` before keeps that group.
    """
    if not is_started_by_torchrun() or not dist.is_available():
        yield ALONE
        return
    is_new = not dist.is_initialized()
    if is_new:
        # An optimiser would load it later. Default arguments of functions that it loads keep the group of that moment
        # for ever: its connections would not close, and a program may end by SIGABRT.
        import torch._dynamo

        with _others_may_die():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    yield Ranks(
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        local_rank=int(os.environ["LOCAL_RANK"]),
        local_world_size=int(os.environ["LOCAL_WORLD_SIZE"]),
    )
    if is_new:  # after an error there may be nobody to say good-bye to
        dist.destroy_process_group()


@contextmanager
def _others_may_die() -> Iterator[None]:
    """Turn torch's errors of a lost connection into one sentence."""
    try:
        yield
    except RuntimeError as error:
        raise lost(error) or error from None


def lost(error: RuntimeError) -> OtherProcessError | None:
    """What to say of an error, if it is that another process is gone."""
    text = str(error)
    if not (isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text):
        return None
    return OtherProcessError("another process has ended")
