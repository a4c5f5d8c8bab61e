"""Everything that the command prints goes through here, so that names out of files cannot command the terminal.

A name may hold escape sequences, line ends, or what rich takes for markup (`[/x]`). See `attengait.system.printable`.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.text import Text

from attengait.system.printable import printable

MAX_LINE_LETTERS = 2000
"""Of a sentence or a line of a summary, which may hold several paths."""


def say(line: object) -> None:
    """Print one line to standard output."""
    print(_line(line), flush=True)


def say_lines(text: object) -> None:
    """Print text that has several lines of its own, such as a summary, to standard output."""
    for line in str(text).split("\n"):
        print(_line(line))
    sys.stdout.flush()


def say_json(text: str) -> None:
    """Print JSON to standard output as it is, whatever its length. Its own escapes stand for control characters."""
    print(text, flush=True)


def complain(sentence: object) -> None:
    """Print one line to standard error."""
    print(_line(sentence), file=sys.stderr, flush=True)


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


def keep_streams_open_to_all_letters() -> None:
    """Let standard output and error escape what their encoding lacks, instead of raising UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _line(text: object) -> str:
    return printable(text, max_letters=MAX_LINE_LETTERS)
