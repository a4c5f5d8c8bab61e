"""Choosing subjects and views: "001-074", "00001-10305/2" (every second one), "100", "*train", or any name the data set
has; and walks: nm-01, or all of their kind, nm.

If several stores are trained on together, a subject's name begins with the name of its store: casia-b:001.
"""

import contextlib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError
from attengait.system.lookup import check_name

Spec = str | int | Iterable[str | int]
"""What asks for subjects, views or walks: a text, a number, or several, such as "001-074", 5 or range(75, 125)."""

STORE_MARK = ":"
"""Between the name of a store and that of a subject in it."""

UNLABELLED = "probe"
"""The subject of a challenge's probes, whose labels it keeps, as in OpenGait's layout. Their view is a video's name."""
DISTRACTOR = "distractor"
"""The subject of all sequences that only make a gallery larger. They show many people, and none of the others."""
PART, TRAIN = "part", "train"
"""The column in which a data set says which part of it a sequence belongs to, and its value for what is trained on."""

_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})(?:/(\d{1,18}))?", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_PATTERN = re.compile(r"[*?[]")
_WALK = re.compile(r"(.+)-\d+", re.ASCII)
_NUM_EXAMPLES = 5
_NUM_CHOICES = 20


def parse_subjects(spec: Spec, available: Sequence[str], *, what: str = "subjects") -> list[str]:
    """The subjects that `spec` asks for, each once, in the order of `available`; an empty `spec` asks for all.

    Each text holds one or more of these, separated by commas: a name as it stands in `available`; a number, which
    matches names made of digits by value ("5" is "005"); a range with both ends included, "/2" for every second number
    counted from its beginning; a pattern, in which "*" stands for any text and "?" for any letter ("*train").
    A name that looks like a range or a pattern, or that has commas, is taken as a name. With several stores, each piece
    begins with the name of its store, casia-b:001-074. The store's name alone, casia-b:, asks for all of its subjects.
    A number of Python is the same as its text.

    Raises ParameterError for a piece that is not understood or that matches no subject.
    """
    return _chosen(what, spec, available)


def subjects_among(spec: Spec, available: Sequence[str]) -> set[str]:
    """The subjects that `spec` asks for. Here, a piece that matches nobody is not an error."""
    names = _Names("subjects", available)
    found: set[str] = set()
    for piece in _pieces("subjects", spec, names.names):
        # A name there may look like a range that goes nowhere here.
        with contextlib.suppress(ParameterError):
            found |= names.matching(piece)
    return found


def parse_views(spec: Spec, available: Sequence[str], *, what: str = "train_views") -> list[str]:
    """The views that `spec` asks for: names, numbers, ranges and patterns, as for subjects (90, 090, 000-090).

    Raises ParameterError for a piece that is not understood or that matches no view.
    """
    return _chosen(what, spec, available)


def parse_walks(spec: Spec, available: Sequence[str], *, what: str = "train_walks") -> list[str]:
    """The walks that `spec` asks for, by name or kind; an empty `spec` asks for none.

    Raises ParameterError for a piece that matches no walk.
    """
    names = list(dict.fromkeys(available))
    kinds = walk_kinds(names)
    known = list(dict.fromkeys([*kinds, *names]))
    pieces = _pieces(what, spec, known)
    for piece in pieces:
        check_name(known, piece, what, known_in_words=some_of(known, _NUM_CHOICES))
    return [name for name, kind in zip(names, kinds, strict=True) if name in pieces or kind in pieces]


def walk_kinds(walks: Iterable[str]) -> list[str]:
    """The kind of each walk: its name without the number, nm for nm-01. A name without a number is its own kind."""
    return [match[1] if (match := _WALK.fullmatch(walk)) else walk for walk in walks]


def distinct(column: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The distinct texts of a column [n] in order, and the index [n] of each entry's.

    Sorting texts takes most of the time. Equal texts are mostly neighbours, so only the first of equal neighbours is
    sorted.
    """
    is_first = np.ones(len(column), bool)
    is_first[1:] = column[1:] != column[:-1]
    firsts = np.flatnonzero(is_first)
    names, codes = np.unique(column[firsts], return_inverse=True)
    return names, np.repeat(codes.astype(np.int64), np.diff(np.append(firsts, len(column))))


def some_of(names: Sequence[str], most: int = _NUM_EXAMPLES) -> str:
    """At most so many names, such as: 001, 002, ..."""
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])


class _Names:
    """Names of one sort, to be asked for by name, number or range."""

    def __init__(self, what: str, available: Sequence[str]) -> None:
        self.what = what
        self.names = list(dict.fromkeys(available))
        self._known = set(self.names)
        self._stores: dict[str, None] = {}  # an ordered set
        self._by_value: dict[str, dict[int, list[str]]] = {}
        for name in self.names:
            store, mark, rest = name.rpartition(STORE_MARK)
            if mark:
                self._stores[store + mark] = None
            if _NUMBER.fullmatch(rest):
                self._by_value.setdefault(store, {}).setdefault(int(rest), []).append(name)

    def matching(self, piece: str) -> set[str]:
        """The names that one piece asks for. Raises ParameterError for an empty range."""
        if piece in self._known:
            return {piece}
        store, _, wanted = piece.rpartition(STORE_MARK)
        if store and not wanted:
            return {name for name in self.names if name.startswith(piece)}
        if _PATTERN.search(piece):
            return {name for name in self.names if fnmatchcase(name, piece)}
        by_value = self._by_value.get(store, {})
        if _NUMBER.fullmatch(wanted):
            return set(by_value.get(int(wanted), ()))
        if not (match := _RANGE.fullmatch(wanted)):
            return set()
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if last < first or step < 1:
            raise ParameterError(
                f"{self.what} is {piece!r}, but must be a range that goes upwards, in steps of at least 1"
            )
        values = (value for value in by_value if first <= value <= last and (value - first) % step == 0)
        return {name for value in values for name in by_value[value]}

    def refuse(self, piece: str) -> None:
        """Raise ParameterError for a piece that matches no name: which names there are, and how to write them."""
        if not self.what.endswith("subjects"):
            return check_name(self.names, piece, self.what, known_in_words=some_of(self.names, _NUM_CHOICES))
        if self._stores:
            stores = list(self._stores)
            examples = (
                f" (such as {some_of(self.names, 2)} of the stores {some_of(stores)}; a range is written "
                f"{stores[0]}001-074, all subjects of a store {stores[0]})"
            )
        elif self.names:
            examples = f" (such as {some_of(self.names)}; a range is written 001-074 or 001-074/2, a pattern *train)"
        else:
            examples = ""
        raise ParameterError(
            f"{self.what} is {piece!r}, but must be among the {len(self.names)} subjects that there are{examples}"
        )


def _chosen(what: str, spec: Spec, available: Sequence[str]) -> list[str]:
    names = _Names(what, available)
    pieces = _pieces(what, spec, names.names)
    if not pieces:
        return names.names
    chosen: set[str] = set()
    for piece in pieces:
        found = names.matching(piece)
        if not found:
            names.refuse(piece)
        chosen |= found
    return [name for name in names.names if name in chosen]


def _pieces(what: str, spec: Spec, available: Iterable[str]) -> list[str]:
    """The pieces of a spec. What is available as it stands is one piece: a name may have commas and blanks."""
    known = set(available)
    texts = spec if isinstance(spec, Iterable) and not isinstance(spec, (str, bytes)) else [spec]
    pieces: list[str] = []
    for text in texts:
        if isinstance(text, bool) or not isinstance(text, (str, int, np.integer)):
            raise ParameterError(f"{what} is {text!r}, but must be a text or a number, such as '001-074', or several")
        whole = str(text)
        pieces += [whole] if whole in known else [piece.strip() for piece in whole.split(",")]
    return pieces
