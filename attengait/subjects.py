"""Choosing subjects: "001-074", "00001-10305/2" (every second one), "100", or any name the data set has."""

import re
from collections.abc import Sequence

from attengait.errors import ParameterError

_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})(?:/(\d{1,18}))?", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_NUM_EXAMPLES = 5


def parse_subjects(spec: Sequence[str], available: Sequence[str]) -> list[str]:
    """The subjects that `spec` asks for, each once, in the order of `available`; an empty `spec` asks for all.

    Each string holds one or more of these, separated by commas: a name as it stands in `available`; a number, which
    matches names made of digits by value ("5" is "005"); a range with both ends included, "/2" for every second number
    counted from its beginning. A name that happens to look like a range is taken as a name.

    Raises ParameterError for a piece that is not understood or that matches no subject.
    """
    names = list(dict.fromkeys(available))
    if not spec:
        return names
    known = set(names)
    numbers = {name: int(name) for name in names if _NUMBER.fullmatch(name)}
    chosen: set[str] = set()
    for piece in (piece.strip() for text in spec for piece in text.split(",")):
        found = {piece} if piece in known else _by_number(piece, numbers)
        if not found:
            raise ParameterError(f"subjects {piece!r} matches none of the {len(names)} subjects{_examples(names)}")
        chosen |= found
    return [name for name in names if name in chosen]


def _by_number(piece: str, numbers: dict[str, int]) -> set[str]:
    """The names whose value lies in the number or range `piece`; none if it is neither."""
    if _NUMBER.fullmatch(piece):
        first, last, step = int(piece), int(piece), 1
    elif match := _RANGE.fullmatch(piece):
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if last < first or step < 1:
            raise ParameterError(f"subjects {piece!r} is empty: a range goes upwards and its step is at least 1")
    else:
        return set()
    return {name for name, value in numbers.items() if first <= value <= last and (value - first) % step == 0}


def _examples(names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join([*names[:_NUM_EXAMPLES], *(["..."] if len(names) > _NUM_EXAMPLES else [])])
    return f" (there are {shown}; ranges are written 001-074 or 001-074/2)"
