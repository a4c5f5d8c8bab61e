"""Threads call a function, and each thread has its own process that executes it.

For functions that cannot run twice at a time in one process, however many threads call them. A pool of processes would
do, but for one thing: where a process dies while it sends a large result, the pool waits for the rest for ever. Here
each process has a pipe that ends with it.
"""

import pickle
import threading
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Self, TypeVar

from attengait.errors import AttenGaitError
from attengait.system.workers import Answer, call, die_with_parent, sendable, unpack

Argument = TypeVar("Argument")
Result = TypeVar("Result")

_context = get_context("spawn")


class InOwnProcess(Generic[Argument, Result]):
    """Calls the picklable `function` in the calling thread's own process; a context manager.

    A process begins with the first call from its thread. It ends when its parent closes this, or dies.
    """

    def __init__(self, function: Callable[[Argument], Result]) -> None:
        self._function = function
        self._own = threading.local()
        self._lock = threading.Lock()
        self._started: list[tuple[Connection, BaseProcess]] = []
        self._is_over = False

    def __call__(self, argument: Argument) -> Result:
        """Return or raise what the function does; AttenGaitError when the process dies."""
        if not hasattr(self._own, "connection"):
            self._own.connection = self._start()
        try:
            # As bytes: Python 3.13 complains of the buffer of send() where the process at the other end is dead.
            self._own.connection.send_bytes(pickle.dumps(argument))
            answer: Answer[Result] = self._own.connection.recv()
        except (EOFError, ConnectionError):
            raise AttenGaitError("a process that reads died, perhaps for lack of memory") from None
        return unpack(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """End all processes. After an exception they are killed, and calls that wait for them raise AttenGaitError."""
        with self._lock:
            self._is_over = True
        for connection, process in self._started:
            if kind is None:
                connection.close()
            else:
                process.kill()  # its end of the pipe goes with it, which a thread that waits at ours hears
        for _, process in self._started:
            process.join()

    def _start(self) -> Connection:
        ours, theirs = _context.Pipe()
        process = _context.Process(target=_serve, args=(self._function, theirs))
        # What multiprocessing notes of its processes is not guarded against threads.
        with self._lock:
            if self._is_over:
                raise AttenGaitError("what reads was stopped")
            process.start()
            theirs.close()
            self._started.append((ours, process))
        return ours


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    die_with_parent()
    while True:
        try:
            argument = connection.recv()
        except (EOFError, ConnectionError):
            return
        answer = call(function, argument)
        try:
            _send(connection, answer)
        except ConnectionError:
            return


def _send(connection: Connection, answer: Answer[Any]) -> None:
    try:
        connection.send(answer)
    except ConnectionError:
        raise
    except Exception as error:  # a result that cannot be pickled; nothing of it was sent
        connection.send((None, sendable(error)))
