"""Runs tasks in worker processes. They end when the parent ends, and print no traceback on Ctrl-C.

Workers are spawned (a fork after tensorstore or OpenCV has run is unsafe). Each waits, in a thread, for the end of a
pipe whose other end only the parent holds: when the parent stops, or is killed, the pipe ends and the worker exits at
once. A worker that is busy in a library may not come to that, so it is also killed: by the parent that stops, and by
Linux when the parent was killed. Workers ignore SIGINT, SIGTERM and SIGHUP, which a terminal or a batch system sends to
all processes: the parent decides what to do.

An exception is pickled on its way to another process. Not every exception survives that, so `call` and `unpack` take it
there, for any function that a process calls for another one.
"""

import ctypes
import functools
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection as waiting
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from attengait.errors import AttenGaitError, ParameterError

_POLL_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1

Task = TypeVar("Task")
Result = TypeVar("Result")

Answer = tuple[Result, None] | tuple[None, BaseException]
"""What a process sends back: the result or the exception of one call."""


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
    context = get_context("spawn")
    end_of_parent, held_by_parent = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(num_workers, context, _begin_worker, (end_of_parent,))
    ended = threading.Event()
    try:
        pending = _undisturbed(lambda: {executor.submit(call, function, task) for task in tasks}, ended)
        while pending:
            done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                on_result(unpack(future.result()))
            on_poll()
            if pending:
                _check_workers(executor)
    except BrokenProcessPool:
        _kill_workers(executor)
        raise AttenGaitError("a worker process died, perhaps for lack of memory") from None
    except BaseException:
        _kill_workers(executor)
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        ended.set()
        held_by_parent.close()
        end_of_parent.close()


def _check_workers(executor: ProcessPoolExecutor) -> None:
    """Raise BrokenProcessPool when a worker is dead: the pool does not notice it while another one never answers."""
    if waiting.wait([process.sentinel for process in list((executor._processes or {}).values())], timeout=0):
        raise BrokenProcessPool


def _kill_workers(executor: ProcessPoolExecutor) -> None:
    """The pool itself would wait for each worker's present task, which may never end."""
    for process in list((executor._processes or {}).values()):  # from Python 3.14 on: executor.kill_workers()
        process.kill()


def die_with_parent() -> None:
    """Let Linux kill this process when the thread that started it ends, by whatever cause; elsewhere do nothing."""
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _undisturbed(start: Callable[[], set[Future[Any]]], ended: threading.Event) -> set[Future[Any]]:
    """Start the workers in another thread, where no handler of a signal runs. The workers inherit its mask.

    The thread lives until `ended`: Linux kills workers whose starter ends (`die_with_parent`).

    An exception that a handler raises here is raised when they are started: a worker that its parent has not told what
    to do would print a traceback.
    """
    begun: Future[set[Future[Any]]] = Future()

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            begun.set_result(start())
        except BaseException as error:
            begun.set_exception(error)
        ended.wait()

    interruption: BaseException | None = None
    try:
        threading.Thread(target=run, daemon=True).start()
    except BaseException as error:
        interruption = error
    # Where the thread itself was not started, nothing comes.
    patience_seconds = None if interruption is None else 5.0
    while not begun.done():
        try:
            wait([begun], patience_seconds)
            break
        except BaseException as error:
            interruption = error
    if interruption is not None:
        raise interruption
    return begun.result()


def _begin_worker(end_of_parent: Connection) -> None:
    die_with_parent()
    threading.Thread(target=_exit_with_parent, args=(end_of_parent,), daemon=True).start()


def _exit_with_parent(end_of_parent: Connection) -> None:
    end_of_parent.poll(None)
    os._exit(1)


@functools.cache
def _use_one_thread() -> None:
    """Workers share the cores already."""
    import cv2

    cv2.setNumThreads(1)
