"""Text that others wrote, made fit to be shown: one short line without control characters.

Names of files, subjects and walks, and values out of a file, can hold anything: escape sequences that a terminal obeys,
line ends, marks that turn the direction of writing, bytes that are not UTF-8, or thousands of letters.
"""

MAX_LETTERS = 300
"""Of one name or value; a path may have more than 200."""


def printable(text: object, *, max_letters: int = MAX_LETTERS) -> str:
    r"""The text in one line: letters that cannot be printed are escaped, and the middle of a long text is left out.

    >>> print(printable("a\x1b[2J\nb"))
    a\x1b[2J\nb
    """
    whole = str(text)
    if len(whole) > max_letters:
        half = max_letters // 2
        return f"{_escaped(whole[:half])} ... {_escaped(whole[-half:])} ({len(whole):,} letters)"
    return _escaped(whole)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
