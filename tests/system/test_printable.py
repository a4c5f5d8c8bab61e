"""Text of others is shown in one short line that a terminal does not obey."""

import pytest

from attengait.system.printable import MAX_LETTERS, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("walker 001/nm-01", "walker 001/nm-01"),
        ("Åsa, 日本, 50 €", "Åsa, 日本, 50 €"),
        ("[/x]", "[/x]"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J", r"\x9b2J"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("a\u2028b", r"a\u2028b"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
        ("e" + "\u0301" * 6, "e" + "\u0301" * 4 + r"\u0301\u0301"),
        (12, "12"),
    ],
)
def test_controls_are_escaped_and_letters_stay(text: object, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_keeps_its_ends_and_says_its_length() -> None:
    shown = printable("a" + "x" * 4998 + "z")
    assert shown == "a" + "x" * 149 + " ... " + "x" * 149 + "z (5,000 letters)"
    assert printable("x" * MAX_LETTERS) == "x" * MAX_LETTERS
    assert len(printable("\x1b" * 5000)) < 5 * MAX_LETTERS
