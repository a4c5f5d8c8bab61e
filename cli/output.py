"""All that the command prints goes through here: names and values of others reach the terminal without control
characters, and short.

Only this file prints. JSON keeps the exact names; its own escapes hold no control characters.
"""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from rich.console import Console, RenderableType
from rich.text import Text

from attengait.system.printable import printable

MAX_LINE_LETTERS = 2000
"""Of a sentence or a line, in which several names may stand."""


@runtime_checkable
class _ShownByTyper(Protocol):
    """An error that typer shows by itself. Its class lies in another package with each version of typer."""

    message: str

    def format_message(self) -> str: ...


def say(text: object) -> None:
    """Print lines to standard output."""
    print(lines(text), flush=True)


def say_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON, exact, to standard output."""
    say_exact(json.dumps(value, indent=indent))


def say_exact(text: str) -> None:
    """Print JSON as it is to standard output."""
    print(text, flush=True)


def show_table(what: RenderableType) -> None:
    """Print a table whose texts are all made by `cell` or `block`."""
    Console().print(what)


def complain(text: object) -> None:
    """Print one line to standard error."""
    print(sentence(text), file=sys.stderr, flush=True)


def cell(text: object) -> Text:
    """A text of one line for rich: square brackets in it are no markup."""
    return Text(sentence(text))


def block(text: object) -> Text:
    """A text of several lines for rich; see `lines`."""
    return Text(lines(text))


@contextmanager
def shown_usage_errors() -> Iterator[None]:
    """Make the words printable that typer repeats in its own messages about usage."""
    try:
        yield
    except Exception as error:
        if isinstance(error, _ShownByTyper):
            error.message = lines(error.message)
        raise


def write_any_letter() -> None:
    """Let both streams escape letters that their encoding does not have, where they would raise UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def lines(text: object) -> str:
    """A text of several lines, each made printable. A name with a line end must be made printable before."""
    return "\n".join(printable(line, max_letters=MAX_LINE_LETTERS) for line in str(text).split("\n"))


def sentence(text: object) -> str:
    """A text in one line, made printable."""
    return printable(text, max_letters=MAX_LINE_LETTERS)
