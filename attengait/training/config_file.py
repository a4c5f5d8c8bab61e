"""Settings in a TOML file of one's own: the same flat keys as those of a preset.

    train_subjects = ["001-074"]
    learning_rate = 1e-3

What is wrong in it is said with the file's name and, where it can be found, the line.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from attengait.errors import AttenGaitError, ParameterError
from attengait.training.config import check_setting


def read_settings(path: str | Path) -> dict[str, Any]:
    """Return the settings in a file by their flat keys.

    Raises AttenGaitError for a file that cannot be read or is no TOML, and ParameterError for an unknown key or a value
    of the wrong type.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        settings = tomllib.loads(text)
    except OSError as error:
        raise AttenGaitError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise AttenGaitError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise AttenGaitError(f"{path} is not TOML: {error}") from None
    for key, value in settings.items():
        try:
            check_setting(key, value)
        except ParameterError as error:
            table = "; settings stand in no table" if isinstance(value, dict) else ""
            raise type(error)(f"{path}{_line_of(key, text)}: {error}{table}") from None
    return settings


def _line_of(key: str, text: str) -> str:
    """Where a key is written, such as `, line 3`; empty where it cannot be found."""
    written = re.compile(rf"""\s*\[?\s*(["']?){re.escape(key)}\1\s*[=.\]]""")
    lines = (number for number, line in enumerate(text.splitlines(), 1) if written.match(line))
    number = next(lines, None)
    return "" if number is None else f", line {number}"
