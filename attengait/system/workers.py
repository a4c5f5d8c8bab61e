"""Runs tasks in worker processes. They end when the parent ends, and print no traceback on Ctrl-C.

Workers are spawned (a fork after tensorstore or OpenCV has run is unsafe). Each waits, in a thread, for the end of a
pipe whose other end only the parent holds: when the parent stops, or is killed, the pipe ends and the worker exits at
once. Workers ignore SIGINT and SIGTERM, which a terminal or a batch system sends to all processes: the parent
decides what to do. A worker in an endless call of a library does not hear of the end of the pipe, so a parent that
stops also kills its workers.

An exception is pickled on its way to another process. Not every exception survives that, so `call` and `unpack` take it
there, for any function that a process calls for another one.
"""

import functools
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection as waiting
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from attengait.errors import AttenGaitError, ParameterError

_POLL_SECONDS = 0.2

Task = TypeVar("Task")
Result = TypeVar("Result")

Answer = tuple[Result, None] | tuple[None, BaseException]
"""What a process sends back: the result or the exception of one call."""


class _Context(SpawnContext):
    """Spawns the workers of one pool, and knows them."""

    def __init__(self) -> None:
        self.workers: list[SpawnProcess] = []

    def Process(self, *arguments: Any, **named: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802
        worker = SpawnProcess(*arguments, **named)
        self.workers.append(worker)
        return worker

    def check(self) -> None:
        """Raise BrokenProcessPool when a worker is dead: the pool does not notice it while another one is in a call."""
        if waiting.wait([worker.sentinel for worker in self.workers], timeout=0):
            raise BrokenProcessPool

    def kill(self) -> None:
        """End every worker, whatever it does."""
        for worker in self.workers:
            if worker.pid is not None:
                worker.kill()


class WorkerError(RuntimeError):
    """An exception of another process that cannot be sent as it is; the message begins with its type."""


def call(function: Callable[[Task], Result], task: Task) -> Answer[Result]:
    """Call `function` in a process that works for another one; `unpack` there returns the result or raises."""
    try:
        _use_one_thread()
        return function(task), None
    except BaseException as error:
        return None, sendable(error)


def unpack(answer: Answer[Result]) -> Result:
    """Return the result that `call` sent, or raise the exception."""
    result, error = answer
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # mypy does not connect the two


def sendable(error: BaseException) -> BaseException:
    """An exception that says in another process what `error` says here.

    It is `error` itself where that can be pickled and unpickled, else AttenGaitError or ParameterError where it is one
    of them, else WorkerError. A note holds the traceback, which cannot be sent.
    """
    note = f"In the other process:\n{''.join(traceback.format_exception(error))}"
    if not _survives(error):
        if isinstance(error, AttenGaitError):
            kind = ParameterError if isinstance(error, ParameterError) else AttenGaitError
            error = kind(str(error))
        else:
            error = WorkerError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error


def _survives(error: BaseException) -> bool:
    """Whether an exception is the same after it was sent."""
    try:
        arrived = pickle.loads(pickle.dumps(error))
        return type(arrived) is type(error) and str(arrived) == str(error)
    except Exception:  # pickling calls the exception's own code
        return False


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
    context = _Context()
    end_of_parent, held_by_parent = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(num_workers, context, _begin_worker, (end_of_parent,))
    try:
        # The workers, started within submit, inherit the mask.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            pending = {executor.submit(call, function, task) for task in tasks}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        while pending:
            done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                on_result(unpack(future.result()))
            on_poll()
            if pending:
                context.check()
    except BrokenProcessPool:
        context.kill()
        raise AttenGaitError("a worker process died, perhaps for lack of memory") from None
    except BaseException:
        context.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        held_by_parent.close()
        end_of_parent.close()


def _begin_worker(end_of_parent: Connection) -> None:
    threading.Thread(target=_exit_with_parent, args=(end_of_parent,), daemon=True).start()


def _exit_with_parent(end_of_parent: Connection) -> None:
    end_of_parent.poll(None)
    os._exit(1)


@functools.cache
def _use_one_thread() -> None:
    """Workers share the cores already."""
    import cv2

    cv2.setNumThreads(1)
