"""Text that others wrote, made fit to be shown: one short line without control characters.

Names of files, subjects and walks, and values out of a file, can hold anything: escape sequences that a terminal obeys,
line ends, marks that turn the direction of writing, or thousands of letters.
"""

import unicodedata

MAX_LETTERS = 300
"""Of one name or value; a path may have more than 200."""

_SHOWN_AS_THEY_ARE = frozenset("LMNPSZ")
"""First letters of Unicode's categories: letters, marks, numbers, punctuation, symbols, spaces."""

_MAX_MARKS = 4
"""Marks (accents) on one letter. More of them cover the lines above and below."""


def printable(text: object, *, max_letters: int = MAX_LETTERS) -> str:
    r"""The text in one line: what is no letter, number, sign or space is escaped.

    The middle of a text of more than `max_letters` is left out.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    whole = str(text)
    if len(whole) > max_letters:
        half = max_letters // 2
        return f"{_escaped(whole[:half])} ... {_escaped(whole[-half:])} ({len(whole):,} letters)"
    return _escaped(whole)


def _escaped(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    shown, marks = [], 0
    for letter in text:
        category = unicodedata.category(letter)
        marks = marks + 1 if category.startswith("M") else 0
        # Separators of lines and paragraphs are Zl and Zp.
        is_shown = category[0] in _SHOWN_AS_THEY_ARE and category not in ("Zl", "Zp") and marks <= _MAX_MARKS
        shown.append(letter if is_shown else letter.encode("unicode_escape").decode())
    return "".join(shown)
