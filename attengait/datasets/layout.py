"""A layout: a pattern of paths with fields, such as `{subject}/{walk}/{view}/{frame}.png`.

A field stands for one or more characters of one folder's or file's name, `{frame}` for digits. A field that is repeated
must have the same value everywhere. A path is read only where there is one way to read it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from attengait.datasets.casia_b import SUFFIXES, VIDEO_SUFFIXES
from attengait.errors import ParameterError, require
from attengait.store.sequences import DTYPES

KEYS = ("subject", "walk", "view")
FRAME = "frame"
_FIELD = re.compile(r"\{(\w*)\}")
_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,29}", re.ASCII)


class AmbiguousError(Exception):
    """A path that can be read in two ways; it says both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A layout that was checked."""

    pattern: str
    constants: Mapping[str, str]
    """Fields that no path has, and their values."""
    fields: tuple[str, ...]
    """Those of the paths, each once."""
    depth: int
    """How many names a path has."""
    shortest: re.Pattern[str]
    """Reads a path; of several ways that with the shortest values first."""
    longest: re.Pattern[str]
    """The same with the longest values first."""

    @property
    def is_video(self) -> bool:
        """Whether each file is a whole sequence."""
        return FRAME not in self.fields

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that are neither of a sequence nor of a frame."""
        return tuple(name for name in (*self.fields, *self.constants) if name not in (*KEYS, FRAME))

    def read(self, path: str) -> dict[str, str] | None:
        """The fields of a relative path, with the constants; None where it does not fit. Raises AmbiguousError."""
        match = self.shortest.fullmatch(path)
        if match is None:
            return None
        values, other = match.groupdict(), self.longest.fullmatch(path)
        assert other is not None  # both take the same paths
        if other.groupdict() != values:
            ways = (", ".join(f"{key} {value}" for key, value in each.groupdict().items()) for each in (match, other))
            raise AmbiguousError(" or ".join(ways))
        return {**values, **self.constants}


def parse_layout(pattern: str, constants: Mapping[str, str], parameter: str = "layout") -> Layout:
    """Check a layout. Raises ParameterError, which names `parameter`, in one sentence.

    >>> parse_layout("{subject}/{walk}_{view}.mp4", {}).read("7/fast_left.mp4")
    {'subject': '7', 'walk': 'fast', 'view': 'left'}
    """

    def refuse(what: str) -> ParameterError:
        return ParameterError(f"{parameter} is {pattern!r}, but must {what}")

    parts = pattern.split("/")
    if not pattern or any(part in ("", ".", "..") for part in parts):
        raise refuse("be names with / between them, such as {subject}/{walk}/{view}/{frame}.png")
    fields = tuple(dict.fromkeys(_FIELD.findall(pattern)))
    if rest := re.search(r"[{}]", _FIELD.sub("", pattern)):
        raise refuse(f"have no {rest.group()} but those of fields such as {{subject}}")
    if match := re.search(r"\{(\w*)\}\{(\w*)\}", pattern):
        raise refuse(f"have something between {{{match[1]}}} and {{{match[2]}}}: else nobody knows where one ends")
    for name in (*fields, *constants):
        if not _COLUMN.fullmatch(name) or (name in DTYPES and name not in KEYS):
            raise refuse(f"have fields of small letters, digits and _ that are no columns of every store, not {name!r}")
    for name in (name for name in fields if name in constants):
        raise refuse(f"be without the field {{{name}}} where constant gives its value")
    for name in (name for name in KEYS if name not in fields and name not in constants):
        hint = "" if name == "subject" else f", or be given as a constant such as {name}=1"
        raise refuse(f"have the field {{{name}}}{hint}")
    if FRAME in constants or any(f"{{{FRAME}}}" in part for part in parts[:-1]):
        raise refuse("have {frame} in the name of the file, and nowhere else")
    suffixes = SUFFIXES if FRAME in fields else VIDEO_SUFFIXES
    if not pattern.lower().endswith(suffixes):
        kind = "with {frame}, pictures" if FRAME in fields else "without {frame}, videos"
        raise refuse(f"end in one of {', '.join(suffixes)} ({kind})")
    return Layout(
        pattern=pattern,
        constants=dict(constants),
        fields=fields,
        depth=len(parts),
        shortest=_regex(pattern, "+?"),
        longest=_regex(pattern, "+"),
    )


def parse_constants(words: tuple[str, ...]) -> dict[str, str]:
    """From `view=090` and the like to values by name; raises ParameterError."""
    constants: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        is_sound = bool(name) and bool(value) and "/" not in value and name not in constants
        require(is_sound, "constant", word, "NAME=VALUE without /, each name once, such as view=090")
        constants[name] = value
    return constants


def _regex(pattern: str, many: str) -> re.Pattern[str]:
    parts, seen = [], set()
    for i, text in enumerate(_FIELD.split(pattern)):
        if i % 2 == 0:
            parts.append(re.escape(text))
        elif text in seen:
            parts.append(f"(?P={text})")
        else:
            seen.add(text)
            parts.append(f"(?P<{text}>{'[0-9]{1,18}' if text == FRAME else f'[^/]{many}'})")
    return re.compile("".join(parts), re.DOTALL)
