"""Tasks on worker processes that never outlive the parent and never print a traceback for a Ctrl-C.

Workers are spawned (a fork after tensorstore or OpenCV has run is unsafe). Each waits, in a thread, for the end of a
pipe whose other end only the parent holds: when the parent stops, or is killed, the pipe ends and the worker exits at
once. Workers do not hear SIGINT and SIGTERM, which a terminal or a batch system sends to the whole group: the parent
decides.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

from attengait.errors import AttenGaitError

_POLL_SECONDS = 0.2

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_in_workers(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    num_workers: int,
    on_result: Callable[[Result], None] = lambda result: None,
    on_poll: Callable[[], None] = lambda: None,
) -> None:
    """Call the picklable `function` with every task, `on_result` with what it returns, as the tasks end.

    `on_poll` is called a few times a second meanwhile.

    The first exception of a task stops all workers and is raised here; so does one raised in the parent, such as
    KeyboardInterrupt. Raises AttenGaitError when a worker dies.
    """
    context = get_context("spawn")
    end_of_parent, held_by_parent = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(num_workers, context, _begin_worker, (end_of_parent,))
    try:
        # The workers, started within submit, inherit the mask.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            pending = {executor.submit(function, task) for task in tasks}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        while pending:
            done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                on_result(future.result())
            on_poll()
    except BrokenProcessPool:
        held_by_parent.close()
        raise AttenGaitError("a worker process died, perhaps for lack of memory") from None
    except BaseException:
        held_by_parent.close()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        held_by_parent.close()
        end_of_parent.close()


def _begin_worker(end_of_parent: Connection) -> None:
    import cv2

    cv2.setNumThreads(1)
    threading.Thread(target=_exit_with_parent, args=(end_of_parent,), daemon=True).start()


def _exit_with_parent(end_of_parent: Connection) -> None:
    end_of_parent.poll(None)
    os._exit(1)
