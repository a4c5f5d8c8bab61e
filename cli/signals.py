"""What Ctrl-C, SIGTERM and SIGHUP do to a command: one sentence, and exit status 128 + the signal's number.

While the command line is imported, nothing is to be cleaned up, and the command ends at once. Later the first signal
raises KeyboardInterrupt, or a subclass that names the signal. Where a module is being imported, it does so when that is
done. Further signals are heard only after a while: they must not disturb the cleaning up, and whoever waits too long
can end it. A signal that was ignored when the command began stays ignored, as under nohup or in the background of a
script.
"""

import _thread
import contextlib
import os
import signal
import sys
import time
import warnings
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SENTENCE = "attengait: stopped"

_REPEAT_SECONDS = 0.05
_PATIENCE_SECONDS = 1.0
_LONGEST_STOP_SECONDS = 10.0


class Terminated(KeyboardInterrupt):
    """SIGTERM: a batch system wants what Ctrl-C wants, and cleaning up after both is the same."""


class HungUp(KeyboardInterrupt):
    """SIGHUP: the terminal is gone."""


_RAISED: dict[int, type[KeyboardInterrupt]] = {signal.SIGTERM: Terminated, signal.SIGHUP: HungUp}


def number_of(stop: KeyboardInterrupt) -> int:
    """The signal that an exception stands for."""
    return next((number for number, kind in _RAISED.items() if isinstance(stop, kind)), signal.SIGINT)


class Signals:
    """The signals of one command."""

    def __init__(self) -> None:
        self.stopped_by: int | None = None
        """The first signal that was heard."""
        self._is_raised = False
        self._is_said = False
        self._heard_seconds = 0.0

    def end_at_once(self) -> None:
        """From now on a signal ends the process at once: there is nothing to clean up."""
        _handle(lambda number, frame: self._end(number))

    def interrupt(self) -> None:
        """From now on a signal interrupts what is being done."""
        _handle(self._interrupt)

    def repeat_dropped(self) -> None:
        """Raise a signal once more where Python drops what it raised, as in a destructor or callback."""
        before = sys.unraisablehook

        def again(unraisable: Any) -> None:
            if self.stopped_by is not None and issubclass(unraisable.exc_type, KeyboardInterrupt):
                self._is_raised = False
            else:
                before(unraisable)

        sys.unraisablehook = again

    def finish(self) -> None:
        """End a command that was stopped; of another one, ignore signals from now on.

        To be called last of all. Python would write tracebacks for a signal that comes while it ends. And after a
        KeyboardInterrupt that went through `exec`, as in the making of a dataclass, it kills itself with SIGINT.
        """
        if self.stopped_by is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(128 + self.stopped_by)
        _handle(signal.SIG_IGN)

    def say(self, text: str = "") -> None:
        """Say once that the command was stopped, and what is kept."""
        if not self._is_said:
            from attengait.cli.output import complain

            self._is_said = True
            warnings.simplefilter("ignore")  # of what was left unfinished
            complain(f"attengait: {text}" if text else SENTENCE)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.stopped_by is None:
            self.stopped_by, self._heard_seconds = number, now
            # Not a Thread: the lock of threading may be held by what is interrupted here.
            _thread.start_new_thread(self._see_to_it, (_thread.get_ident(),))
        if self._is_raised:
            if now - self._heard_seconds > _PATIENCE_SECONDS:
                self._end(self.stopped_by)
        elif not _is_importing(frame):
            self._is_raised = True
            raise _RAISED.get(self.stopped_by, KeyboardInterrupt)

    def _see_to_it(self, main_thread: int) -> None:
        """Send the signal again until it is raised; end the process if it takes too long to stop."""
        while time.monotonic() - self._heard_seconds < _LONGEST_STOP_SECONDS:
            time.sleep(_REPEAT_SECONDS)
            if self.stopped_by is not None and not self._is_raised:
                signal.pthread_kill(main_thread, self.stopped_by)
        if self.stopped_by is not None:
            self._end(self.stopped_by)

    def _end(self, number: int) -> None:
        if not self._is_said:
            self._is_said = True
            os.write(2, f"{SENTENCE}\n".encode())
        os._exit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported. Libraries in C++ abort, or print tracebacks, where that is interrupted."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _handle(handler: Any) -> None:
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
