"""Several processes that work together: `--gpus` starts torchrun's launcher, and they speak as one."""

import contextlib
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from attengait.cli.output import complain
from attengait.cli.signals import Terminated, number_of
from attengait.errors import AttenGaitError, ParameterError
from attengait.system.machine import usable_cores
from attengait.system.torchrun import is_started_by_torchrun
from attengait.system.workers import die_with_parent

if TYPE_CHECKING:
    from attengait.training.ranks import Ranks

KEPT_BY_TRAINING = "the last checkpoint is kept, continue with --resume"
_LAUNCHED = "ATTENGAIT_LAUNCHED"
"""Tells a process that its launcher says what became of the others."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_SHUTDOWN = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
_SHUTDOWN_SECONDS = 50
"""How long torchrun waits for processes that it has told to stop: for the end of a step and a checkpoint."""


def use_gpus(gpus: Sequence[int], device: str) -> None:
    """Let the processes to be launched see these GPUs of this machine alone.

    Raises ParameterError where there are no such GPUs, and where they are not what is to be used.
    """
    import torch

    shown, number = ",".join(map(str, gpus)), torch.cuda.device_count()
    if is_started_by_torchrun():
        raise ParameterError(f"gpus is {shown!r}, but must be left out under torchrun, which starts the processes")
    if device not in ("auto", "cuda"):
        raise ParameterError(f"gpus is {shown!r}, but must be left out where device is {device!r}")
    if number == 0:
        raise ParameterError(
            f"gpus is {shown!r}, but must be left out here: torch sees no GPU; processes on CPUs are started by "
            "torchrun --nproc-per-node N -m attengait ..."
        )
    if max(gpus) >= number or len(set(gpus)) < len(gpus):
        raise ParameterError(f"gpus is {shown!r}, but must be different ones of 0 to {number - 1}")
    visible = [name for name in os.environ.get(_VISIBLE, "").split(",") if name]
    os.environ[_VISIBLE] = ",".join(visible[gpu] if visible else str(gpu) for gpu in gpus)


def without_gpus(words: Sequence[str]) -> list[str]:
    """The words of a command line without the option --gpus and its value."""
    kept = [word for word in words if not word.startswith("--gpus=")]
    while "--gpus" in kept:
        place = kept.index("--gpus")
        del kept[place : place + 2]
    return kept


def launch(words: Sequence[str], num_processes: int, *, kept: str = KEPT_BY_TRAINING) -> int:
    """Run `attengait WORDS` in so many processes that work together. Returns the exit status.

    A process says itself what is wrong. Only of one that was killed it is said here, and what is `kept` then.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # torchrun's report for programmers
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // num_processes)))
    os.environ.setdefault(_SHUTDOWN, str(_SHUTDOWN_SECONDS))
    os.environ[_LAUNCHED] = "1"
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "attengait", *words)
    except SignalException as stop:
        return 128 + stop.sigval
    except ChildFailedError as failed:
        codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
        # The first is killed by whatever it is, and its launcher ends the others with SIGTERM.
        killed = {rank: -code for rank, code in codes.items() if code < 0 and -code != 15}
        for rank, number in killed.items():
            complain(
                f"attengait: process {rank} of {num_processes} was killed by signal {number}, perhaps for lack of "
                f"memory, and the others were stopped: {kept}"
            )
            return 1
        return next((code for code in codes.values() if code > 0), 1)
    return 0


def refuse_several(what: str) -> None:
    """Raise ParameterError, once for all, where torchrun has started several processes for what one does: each would do
    the whole work."""
    if is_started_by_torchrun():
        with one_voice():
            number = os.environ["WORLD_SIZE"]
            raise ParameterError(f"{what} was started by torchrun, {number} times, but must be started once")


@contextmanager
def one_voice(kept: str = KEPT_BY_TRAINING) -> Iterator["Ranks"]:
    """Join the processes of this command. What concerns all of them is said once.

    The first says how it goes. An error is said by the process that has it or, where all have it, by one. Where a
    process is gone, it is said what is `kept`.
    """
    from attengait.training.ranks import OtherProcessError, joined_ranks

    if not is_started_by_torchrun():
        with joined_ranks() as ranks:
            yield ranks
        return
    die_with_parent()
    is_first = os.environ["RANK"] == "0"
    if not is_first:
        logging.getLogger("attengait").setLevel(logging.CRITICAL)
    try:
        with joined_ranks() as ranks:
            yield ranks
    except OtherProcessError as error:
        if not error.is_explained and _LAUNCHED not in os.environ and _is_first_to_say():
            complain(f"attengait: {error}: {kept}")
        _leave(error.exit_status)
    except AttenGaitError as error:
        if _is_first_to_say():
            complain(f"attengait: {error}")
        _leave(error.exit_status)
    except KeyboardInterrupt as stop:
        # A launcher ends the others so when one has died, and says that itself.
        if is_first and not (isinstance(stop, Terminated) and _LAUNCHED in os.environ):
            raise
        _leave(128 + number_of(stop))
    except typer.Exit as end:
        _leave(end.exit_code)


def _is_first_to_say() -> bool:
    """Whether no other process of this command has said what is wrong."""
    import torch.distributed

    distributed: Any = torch.distributed  # not all of it is known to a type checker
    try:
        store = distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        attempt = f"{os.environ.get('TORCHELASTIC_RUN_ID')}/{os.environ.get('TORCHELASTIC_RESTART_COUNT')}"
        return bool(store.add(f"attengait/{attempt}/said", 1) == 1)
    except RuntimeError:
        return True  # whoever has kept the numbers is gone


def _leave(status: int) -> NoReturn:
    """End without a farewell to the others: some may be gone, and the end of NCCL would wait for them."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
