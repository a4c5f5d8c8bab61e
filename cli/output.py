"""Everything that the command prints goes through here, so that names out of files cannot command the terminal.

A name may hold escape sequences, line ends, or what rich takes for markup (`[/x]`). See `attengait.system.printable`.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from attengait.system.printable import printable

MAX_LINE_LETTERS = 2000
"""Of a sentence or a line of a summary, which may hold several paths."""


_lost: list[OSError] = []
"""Why words did not reach standard output or error."""


def say(line: object) -> None:
    """Print one line to standard output."""
    _print(_line(line))


def say_lines(text: object) -> None:
    """Print text that has several lines of its own, such as a summary, to standard output."""
    _print("\n".join(map(_line, str(text).split("\n"))))


def say_json(text: str) -> None:
    """Print JSON to standard output as it is, whatever its length. Its own escapes stand for control characters."""
    _print(text)


def say_table(table: RenderableType) -> None:
    """Print a table of `cell`s to standard output, as wide as the terminal."""
    with _going_on(sys.stdout):
        console = Console()
        with console.capture() as captured:  # rich would end the command where nobody reads
            console.print(table, markup=False)
        print(captured.get(), end="", flush=True)


def complain(sentence: object) -> None:
    """Print one line to standard error."""
    _print(_line(sentence), sys.stderr)


def check_all_was_said() -> None:
    """Raise OSError where words did not reach standard output or error. Called when the command has done its work."""
    if _lost:
        error = _lost[0]
        _lost.clear()
        raise error


def cell(text: object) -> Text:
    """A cell, title or heading of a table, without markup. A word that is too long goes on in the next line."""
    return Text(printable(text), overflow="fold")


def cell_of_lines(lines: Iterable[object]) -> Text:
    """A cell that has a line for each of `lines`."""
    return Text("\n", overflow="fold").join(map(cell, lines))


@contextmanager
def printable_usage_errors() -> Iterator[None]:
    """Make the user's words printable that typer repeats in its own messages about usage."""
    try:
        yield
    except Exception as error:
        # The class of these errors lies in another package with each version of typer.
        if hasattr(error, "format_message") and hasattr(error, "message"):
            error.message = "\n".join(map(_line, str(error.message).split("\n")))
        raise


def open_streams() -> None:
    """Let standard output and error escape what their encoding lacks, and let closed ones take what nobody reads."""
    _lost.clear()
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _going_on(stream: TextIO) -> Iterator[None]:
    """Go on where standard output or error takes nothing, because its reader is gone or the disk is full.

    The work of a command must not be lost with its words. `check_all_was_said` makes it fail at its end.
    """
    try:
        yield
    except OSError as error:
        name = "standard error" if stream is sys.stderr else "standard output"
        _lost.append(OSError(error.errno, error.strerror, name))
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print(text: str, stream: TextIO | None = None) -> None:
    stream = stream or sys.stdout
    with _going_on(stream):
        print(text, file=stream, flush=True)


def _line(text: object) -> str:
    return printable(text, max_letters=MAX_LINE_LETTERS)
