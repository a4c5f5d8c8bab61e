"""One live line on a terminal; elsewhere (a log file, a batch system) a plain line now and then."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

PLAIN_LINE_EVERY_SECONDS = 10.0


class ProgressLine:
    """Show how much of a job is done, its rate and the time left, on standard error.

    `unit` is what is counted, in the plural. A caller that knows better (a trainer) passes its own text.
    """

    def __init__(self, title: str, unit: str) -> None:
        self.title = title
        self.unit = unit
        self._console = Console(stderr=True, soft_wrap=False)
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._start: tuple[float, int] | None = None
        self._last_plain_seconds = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
            self._live = Progress(*columns, console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, done: int, total: int, text: str | None = None) -> None:
        """Say that `done` of `total` units are done."""
        now = time.monotonic()
        if self._start is None:
            self._start = (now, done)
        if text is None:
            text = self._rate_text(now, done, total)
        text = f"{done:,} of {total:,} {self.unit}{text}"
        if self._live is not None:
            if self._task is None:
                self._task = self._live.add_task(self.title, total=total, text=text)
            self._live.update(self._task, completed=done, total=total, text=text)
        elif now - self._last_plain_seconds >= PLAIN_LINE_EVERY_SECONDS:
            self._last_plain_seconds = now
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)

    def _rate_text(self, now: float, done: int, total: int) -> str:
        assert self._start is not None
        started_seconds, done_before = self._start
        if done <= done_before or now <= started_seconds:
            return ""
        rate = (done - done_before) / (now - started_seconds)
        return f", {rate:,.0f} {self.unit}/s, {duration((total - done) / rate)} left"


def duration(seconds: float) -> str:
    """Write a time as a person would: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
