"""How many frames per second are read and decoded, with their silhouettes, for a device that computes the rest.

By threads of one process, as where DALI decodes JPEG pictures for a GPU, and by processes into shared memory, as for
all else. All are started before anything is timed.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import cv2

from attengait.benchmarks.report import Report, measure_in_turns, results
from attengait.datasets import SourceSequence
from attengait.datasets.pictures import read_one_by_one
from attengait.pipelines.preprocess.reading import ReadSequence, read_sequence
from attengait.pipelines.preprocess.shared_pictures import SharedReaders
from attengait.preprocessing.flow import FlowRecipe


def measure_reading(sequences: Sequence[SourceSequence], readers: Sequence[int], *, repeats: int) -> list[Report]:
    """Frames/s of so many threads, and of so many processes, in turns."""
    read_here = partial(read_sequence, recipe=FlowRecipe(), read_grays=read_one_by_one)
    cv2_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ExitStack() as stack:
            runs: dict[str, Callable[[int], float]] = {}
            for number in readers:
                threads = stack.enter_context(ThreadPoolExecutor(number))
                runs[_name(number, "thread", "threads")] = partial(_read_all, threads, read_here, sequences)
                # The processes are stopped before the threads that wait for them.
                callers = stack.enter_context(ThreadPoolExecutor(number))
                processes = stack.enter_context(SharedReaders(read_here, num_sequences=number))
                runs[_name(number, "process", "processes")] = partial(_read_all, callers, processes, sequences)
            return results(measure_in_turns(runs, repeats=repeats), "frames_per_s")
    finally:
        cv2.setNumThreads(cv2_threads)


def _read_all(
    threads: Executor, read: Callable[[SourceSequence], ReadSequence], sequences: Sequence[SourceSequence], _: int
) -> int:
    """Frames read."""

    def count(sequence: SourceSequence) -> int:
        found = read(sequence)
        number = len(found.block.grays)
        found.give_back()
        return number

    return sum(threads.map(count, sequences))


def _name(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
