"""How much more several processes stream together than one: each takes its slice of one plan, and none talks.

The global batch grows with the number of processes, as it does with GPUs. Each process keeps to one core, unless told
otherwise: DALI's and TensorStore's threads as well.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from attengait.benchmarks.defaults import BATCH_SIZE, CLIP_FRAMES
from attengait.benchmarks.loader import PACKAGES, about_store, check_positive, clip_plan
from attengait.benchmarks.report import Report, format_results, machine, measure_in_turns, results, versions
from attengait.errors import AttenGaitError, ParameterError
from attengait.store import open_store
from attengait.system.memory import keep_freed_memory

_context = get_context("spawn")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rank:
    """What a process is told."""

    store: str
    rank: int
    world_size: int
    batch_size: int
    """Of each process."""
    clip_frames: int
    core: int | None
    """The one core to run on, None for all."""


def benchmark_ranks(
    store_path: str | Path,
    *,
    processes: Sequence[int] = (1, 2),
    one_core_each: bool = True,
    batch_size: int = BATCH_SIZE,
    clip_frames: int = CLIP_FRAMES,
    num_batches: int = 40,
    repeats: int = 5,
    on_repeat: Callable[[int], None] = lambda repeat: None,
) -> Report:
    """Clips/s of all processes together, for each number of `processes`: median, least and most of `repeats`.

    Raises ParameterError for a parameter out of range; AttenGaitError when no sequence is long enough, or a process
    dies.
    """
    check_positive(batch_size=batch_size, clip_frames=clip_frames, num_batches=num_batches, repeats=repeats)
    if not processes or min(processes) < 1 or len(set(processes)) < len(processes):
        raise ParameterError(f"processes is {list(processes)}, but must be different numbers from 1 on")
    store = open_store(store_path)
    for number in processes:
        # What does not fit is said before any process starts.
        clip_plan(store, store.sequences, number * batch_size, clip_frames, world_size=number)
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        runs = {}
        for number in processes:
            ranks = [
                _Rank(
                    store=str(store_path),
                    rank=rank,
                    world_size=number,
                    batch_size=batch_size,
                    clip_frames=clip_frames,
                    core=cores[rank % len(cores)] if one_core_each else None,
                )
                for rank in range(number)
            ]
            group = stack.enter_context(closing(_Group(ranks)))
            runs[f"{number} process{'' if number == 1 else 'es'}"] = partial(group.stream, num_batches)
        rates = measure_in_turns(runs, repeats=repeats, on_repeat=on_repeat)
    return {
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "store": {
            **about_store(store),
            "batch_size": batch_size,
            "clip_frames": clip_frames,
            "num_batches": num_batches,
            "repeats": repeats,
            "one_core_each": one_core_each,
        },
        "results": results(rates, "clips_per_s"),
    }


def format_table(report: Report) -> str:
    """The report for people."""
    about = report["store"]
    head = (
        f"{about['path']} (codec {about['codec']}): batches of {about['batch_size']} clips of {about['clip_frames']} "
        f"frames in each process, on {'one core each' if about['one_core_each'] else 'all cores'}; median of "
        f"{about['repeats']}"
    )
    return f"{head}\n{format_results(report, 'clips_per_s', relative_to=report['results'][0]['name'])}"


class _Group:
    """Processes that stream at the same time."""

    def __init__(self, ranks: Sequence[_Rank]) -> None:
        self._connections: list[Connection] = []
        for rank in ranks:
            ours, theirs = _context.Pipe()
            _context.Process(target=_serve, args=(rank, theirs), daemon=True).start()
            theirs.close()
            self._connections.append(ours)

    def stream(self, num_batches: int, _: int) -> int:
        """Have each stream so many batches; returns the clips of all."""
        try:
            for connection in self._connections:
                connection.send(num_batches)
            return sum(connection.recv() for connection in self._connections)
        except (EOFError, ConnectionError):
            raise AttenGaitError("a process that streams died, perhaps for lack of memory") from None

    def close(self) -> None:
        """The processes end with their pipes."""
        for connection in self._connections:
            connection.close()


def _serve(rank: _Rank, connection: Connection) -> None:
    """Stream as many batches as asked for, again and again, and say how many clips they were."""
    if rank.core is not None:
        os.sched_setaffinity(0, {rank.core})
    keep_freed_memory()  # as the command line does, before any library has threads
    import torch

    from attengait.pipelines.stream import ClipStream

    torch.set_num_threads(1)
    store = open_store(rank.store)
    size = rank.world_size
    plan = clip_plan(store, store.sequences, size * rank.batch_size, rank.clip_frames, world_size=size)
    step = 0
    with store.reader() as reader:
        while True:
            try:
                count = connection.recv()
                # Nothing is read ahead while others are measured.
                with ClipStream(
                    reader, plan, start_step=step, num_steps=count, rank=rank.rank, world_size=size
                ) as stream:
                    connection.send(sum(len(batch.clips) for batch in stream))
                step += count
            except (EOFError, ConnectionError):
                return
