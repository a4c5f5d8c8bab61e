"""Looking a name up among the known ones, with a refusal that says what would be accepted."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

from attengait.errors import ParameterError

Entry = TypeVar("Entry")


def look_up(entries: Mapping[str, Entry], name: str, parameter: str) -> Entry:
    """The entry called `name`; ParameterError with the known names, and the nearest one, if there is none."""
    if name in entries:
        return entries[name]
    nearest = get_close_matches(name, entries, n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    raise ParameterError(f"{parameter} {name!r} is not known{hint}; accepted: {', '.join(entries)}")
