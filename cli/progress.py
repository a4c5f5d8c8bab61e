"""What a long command shows: one live line on a terminal, elsewhere (a log file, a batch system) a plain line now and
then; and what the library logs, as plain sentences."""

import logging
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as LiveProgress

from attengait.cli.output import complain, say
from attengait.system.printable import printable
from attengait.system.progress import Progress, duration

PLAIN_LINE_EVERY_SECONDS = 10.0


class ProgressLine(Progress):
    """Shows how much of a task is done, its rate and the time left, on standard error; a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=False)
        self._live: LiveProgress | None = None
        self._task: str | None = None
        self._bar: TaskID | None = None
        self._start = (0.0, 0)
        self._last_plain_seconds = time.monotonic()

    def __enter__(self) -> Self:
        # rich also takes for a terminal what FORCE_COLOR names one. A log file cannot move its cursor.
        if self._console.is_interactive and self._console.file.isatty():
            before, after = (TextColumn(field, markup=False) for field in ("{task.description}", "{task.fields[text]}"))
            columns = (before, BarColumn(bar_width=24), after)
            self._live = LiveProgress(*columns, console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, task: str, done: int, total: int, *, unit: str, detail: object = None) -> None:
        """See Progress."""
        now = time.monotonic()
        if task != self._task:
            self._begin(task, now, done)
        rest = self._rate_text(now, done, total, unit) if detail is None else f"  {detail}"
        task, text = printable(task), printable(f"{done:,} of {total:,} {unit}{rest}")
        if self._live is not None:
            if self._bar is None:
                self._bar = self._live.add_task(task, total=total, text=text)
            self._live.update(self._bar, completed=done, total=total, text=text)
        elif now - self._last_plain_seconds >= PLAIN_LINE_EVERY_SECONDS:
            self._last_plain_seconds = now
            complain(f"{task}: {text}")

    def _begin(self, task: str, now: float, done: int) -> None:
        if self._live is not None and self._bar is not None:
            self._live.remove_task(self._bar)
        self._task, self._bar, self._start = task, None, (now, done)

    def _rate_text(self, now: float, done: int, total: int, unit: str) -> str:
        started_seconds, done_before = self._start
        if done <= done_before or now <= started_seconds:
            return ""
        rate = (done - done_before) / (now - started_seconds)
        return f", {rate:,.0f} {unit}/s, {duration((total - done) / rate)} left"


def show_log() -> None:
    """Print what the library logs: warnings to standard error, notes to standard output."""
    log = logging.getLogger("attengait")
    log.setLevel(logging.INFO)
    log.propagate = False
    if not any(isinstance(handler, _Sentences) for handler in log.handlers):
        log.addHandler(_Sentences())


class _Sentences(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # The streams are looked up at each record, since tests and users replace them.
        if record.levelno >= logging.WARNING:
            complain(f"warning: {record.getMessage()}")
        else:
            say(record.getMessage())
