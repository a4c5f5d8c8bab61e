"""Waiting for a server within bounds: of time, and of memory for what it sends without being asked.

TensorStore has no deadline for a request, and keeps all that a server sends until its answer ends. So the wait is ended
here. What is still under way then goes on in the background until the process ends.

    ATTENGAIT_REQUEST_SECONDS       how long an answer may take (60), beside what its bytes take at 250 kB/s
    ATTENGAIT_REQUEST_SURPLUS_MB    by how much the memory of the process may grow during a wait (128), beside what
                                    was asked for; 0: it is not looked at
"""

import os
import time
from pathlib import Path
from typing import Any

from attengait.errors import AttenGaitError, ParameterError

REQUEST_SECONDS = 60.0
SURPLUS_MB = 128.0
SLOWEST_BYTES_PER_SECOND = 250_000
POLL_SECONDS = 0.02
COPIES = 8
"""How often what was asked for may lie in memory: received, unpacked, and for requests of other batches."""


class Wait:
    """A wait for some requests, from now on. Raises ParameterError for a setting that is no positive number."""

    def __init__(self, place: object, *, expected_bytes: int = 0, is_trusted: bool = False) -> None:
        self._place, self._expected_bytes = place, expected_bytes
        self._seconds = _setting("ATTENGAIT_REQUEST_SECONDS", REQUEST_SECONDS)
        self._seconds += expected_bytes / SLOWEST_BYTES_PER_SECOND
        self._deadline = time.monotonic() + self._seconds
        surplus_mb = 0.0 if is_trusted else _setting("ATTENGAIT_REQUEST_SURPLUS_MB", SURPLUS_MB)
        self._max_memory_bytes = (
            _memory_bytes() + COPIES * expected_bytes + int(surplus_mb * 2**20) if surplus_mb else None
        )

    def result(self, future: Any, place: object = None) -> Any:
        """What TensorStore's future gives or raises; AttenGaitError, naming the `place`, where it is not worth waiting
        any longer."""
        place = place or self._place
        while True:
            left_seconds = self._deadline - time.monotonic()
            try:
                return future.result(timeout=max(0.0, min(POLL_SECONDS, left_seconds)))
            except TimeoutError:
                if future.done():
                    continue
            if left_seconds <= 0:
                raise AttenGaitError(
                    f"{place} cannot be reached: no whole answer came within {self._seconds:.3g} seconds (more are "
                    "given by the environment variable ATTENGAIT_REQUEST_SECONDS)"
                )
            if self._max_memory_bytes is not None and _memory_bytes() > self._max_memory_bytes:
                raise AttenGaitError(
                    f"{place} cannot be read: while it was waited for, memory grew by more than the server was asked "
                    "for (ATTENGAIT_REQUEST_SURPLUS_MB says how much it may grow)"
                )


def _setting(name: str, default: float) -> float:
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ParameterError(f"{name} is {text!r}, but must be a number from 0 on")
    return value


def _memory_bytes() -> int:
    """Of this process, as it is resident; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
