"""What Ctrl-C, SIGTERM and SIGHUP do to a command: one sentence, and exit status 128 + the signal's number.

While the command line is imported, nothing is to be cleaned up, and the command ends at once. Later the first signal
raises KeyboardInterrupt, or a subclass that names the signal; during an import, when the import is done. Further ones
are heard only after a while: they must not disturb the cleaning up, and whoever waits too long can end it. A signal
that was ignored when the command began stays ignored, as under nohup or in the background of a script.
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

_PATIENCE_SECONDS = 1.0
_LONGEST_STOP_SECONDS = 10.0
_LONGEST_IMPORT_SECONDS = 3.0
_POSTPONED_BY_SECONDS = 0.02


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
        self._is_said = False
        self._heard_seconds = 0.0
        self._postponed_seconds = 0.0
        self._is_coming_again = False

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
                number, self.stopped_by = self.stopped_by, None
                self._send_again(number)
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
            self._is_said = True
            warnings.simplefilter("ignore")  # of what was left unfinished
            print(f"attengait: {text}" if text else SENTENCE, file=sys.stderr, flush=True)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._is_coming_again:
            return
        if self.stopped_by is None and _is_importing(frame):
            # Libraries in C++ abort, or say something else, when what they import is interrupted.
            self._postponed_seconds = self._postponed_seconds or now
            if now - self._postponed_seconds > _LONGEST_IMPORT_SECONDS:
                self._end(number)
            self._send_again(number)
        elif self.stopped_by is None:
            self.stopped_by, self._heard_seconds = number, now
            # Not a Thread: the lock of threading may be held by what is interrupted here.
            _thread.start_new_thread(self._end_later, ())
            raise _RAISED.get(number, KeyboardInterrupt)
        elif now - self._heard_seconds > _PATIENCE_SECONDS:
            self._end(self.stopped_by)

    def _send_again(self, number: int) -> None:
        """Let the signal come once more, a little later."""

        def send() -> None:
            time.sleep(_POSTPONED_BY_SECONDS)
            self._is_coming_again = False
            os.kill(os.getpid(), number)

        self._is_coming_again = True
        _thread.start_new_thread(send, ())

    def _end_later(self) -> None:
        time.sleep(_LONGEST_STOP_SECONDS)
        if self.stopped_by is not None:
            self._end(self.stopped_by)

    def _end(self, number: int) -> None:
        if not self._is_said:
            self._is_said = True
            os.write(2, f"{SENTENCE}\n".encode())
        os._exit(128 + number)


def _handle(handler: Any) -> None:
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether what is interrupted is part of an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
