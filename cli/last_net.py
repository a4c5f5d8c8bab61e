"""What becomes of an exception that nobody foresaw: one sentence, and a file with the details.

With the environment variable ATTENGAIT_TRACEBACK=1 the traceback is shown instead.
"""

import contextlib
import os
import sys
import tempfile
import traceback

from attengait import __version__
from attengait.cli.output import complain
from attengait.system.printable import printable

TRACEBACK_VARIABLE = "ATTENGAIT_TRACEBACK"


def is_traceback_wanted() -> bool:
    """Whether the user asks for the traceback."""
    return os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0")


def say_unexpected(error: Exception) -> None:
    """Say in one sentence what happened, and where the details are; they are left out where no file can be written."""
    name = type(error).__name__
    what = printable(error, max_letters=400)
    said = f"attengait: unexpected error: {name}: {what}" if what else f"attengait: unexpected error: {name}"
    path = _write_details(error)
    complain(said if path is None else f"{said}; the details are in {path}")


def _write_details(error: Exception) -> str | None:
    path = None
    # No room, no folder, no memory: there is no third net.
    with contextlib.suppress(Exception):
        details = [f"attengait {__version__}, Python {sys.version}\n{sys.argv!r}\n", *traceback.format_exception(error)]
        descriptor, path = tempfile.mkstemp(prefix="attengait-error-", suffix=".log")
        with os.fdopen(descriptor, "w", errors="backslashreplace") as file:
            file.writelines(details)
        return path
    if path is not None:
        with contextlib.suppress(OSError):
            os.unlink(path)
    return None
