"""Whatever others wrote becomes one short line that a terminal only shows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.system.printable import MAX_LETTERS, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("001/nm-01/090", "001/nm-01/090"),
        ("Zo\u00eb \u6b65\u614b \u05d0", "Zo\u00eb \u6b65\u614b \u05d0"),
        ("\x1b]0;owned\x07\x1b[2J", r"\x1b]0;owned\x07\x1b[2J"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x9b31m\u202eleft", r"\x9b31m\u202eleft"),
        ("\udcff.png", r"\udcff.png"),
        (12, "12"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: object, shown: str) -> None:
    assert printable(text) == shown


def test_the_middle_of_a_long_text_is_left_out() -> None:
    assert printable("a" * 3000 + "b" * 2000, max_letters=6) == "aaa ... bbb (5,000 letters)"
    assert printable("a" * MAX_LETTERS) == "a" * MAX_LETTERS


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.text(st.characters(), max_size=2 * MAX_LETTERS))
def test_any_text_becomes_one_line_that_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
