"""Looking a name up among the known ones: the only place that refuses an unknown name, and the only wording of it."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from attengait.errors import ParameterError

Entry = TypeVar("Entry")


def look_up(entries: Mapping[str, Entry], name: str, parameter: str) -> Entry:
    """Return the entry called `name`. Raises ParameterError as `check_name` does.

    >>> look_up({"l1": 1, "l2": 2}, "l2", "distance")
    2
    """
    check_name(entries, name, parameter)
    return entries[name]


def check_name(
    known: Iterable[str],
    name: object,
    parameter: str,
    *,
    aliases: Mapping[str, Iterable[str]] | None = None,
    known_in_words: str | None = None,
) -> None:
    """Raise ParameterError unless `name` is one of `known`.

    The error names the parameter, the value, what is known and, if there is one, the known name that is meant.

    Args:
        known: the accepted names, in the order in which they are shown.
        name: the value of a user.
        parameter: what the value is of, such as distance.
        aliases: names that users know from elsewhere, and what they are called here. They are suggested, not accepted.
        known_in_words: where to find the known names, where they are too many to show.
    """
    names = tuple(known)
    if name in names:
        return
    listed = known_in_words or ", ".join(names)
    raise ParameterError(f"{parameter} is {name!r}, but must be one of {listed}{_hint(names, name, aliases or {})}")


def _hint(names: tuple[str, ...], name: object, aliases: Mapping[str, Iterable[str]]) -> str:
    if not isinstance(name, str):
        return ""
    meant = tuple(aliases.get(name.lower(), ())) or get_close_matches(name.lower(), names, n=1)
    return f" (did you mean {' and '.join(repr(each) for each in meant)}?)" if meant else ""
