"""What the command says of an error that nobody foresaw: one sentence, and a file with the details.

The exit status is 1, as for every error that is not the command line's. With ATTENGAIT_DEBUG=1 in the environment the
traceback is printed instead of being kept.
"""

import contextlib
import os
import platform
import sys
import tempfile
import threading
import traceback
from pathlib import Path

from attengait import __version__
from attengait.cli.output import complain
from attengait.system.printable import printable

DEBUG = "ATTENGAIT_DEBUG"
_MAX_WHAT_LETTERS = 500


def explain(error: Exception) -> None:
    """Print one sentence about an unexpected error, and where its details are, if they can be kept anywhere."""
    if os.environ.get(DEBUG, "") not in ("", "0"):
        traceback.print_exception(error)
        kept = None
    else:
        kept = keep_details(error)
    complain(f"attengait: {_what(error)}" + (f"; the details are in {kept}" if kept is not None else ""))


def explain_in_thread(arguments: threading.ExceptHookArgs) -> None:
    """As `explain`, for an error that ended a thread, such as TensorBoard's writer on a full disk. The command goes
    on."""
    error = arguments.exc_value
    if os.environ.get(DEBUG, "") not in ("", "0"):
        traceback.print_exception(error)
    if isinstance(error, Exception):
        complain(f"attengait: a thread has ended in the background: {type(error).__name__}: {_shown(error)}")


def keep_details(error: Exception) -> Path | None:
    """Write the traceback and the versions into a new file of the temporary folder; None where that is impossible."""
    path: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix="attengait-error-", suffix=".log")
        path = Path(name)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"attengait {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
            file.write(f"{sys.argv!r}\n\n{''.join(traceback.format_exception(error))}")
    except (OSError, MemoryError, RecursionError):
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()
        return None
    return path


def _shown(error: Exception) -> str:
    return printable(error, max_letters=_MAX_WHAT_LETTERS)


def _what(error: Exception) -> str:
    text = _shown(error)
    if isinstance(error, MemoryError):
        return f"the memory is not enough{f': {text}' if text else ''}"
    if isinstance(error, UnicodeEncodeError):
        return f"a name is not UTF-8, but must be: {printable(error.object)}"
    return f"unexpected error: {type(error).__name__}{f': {text}' if text else ''}"
