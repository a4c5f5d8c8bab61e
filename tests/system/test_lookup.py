"""Names looked up: what is found, what is refused and what is suggested."""

import pytest

from attengait.errors import ParameterError
from attengait.system.lookup import check_name, look_up

ENTRIES = {"l1": 1, "l2": 2, "part-cosine": 3}


def refusal(name: object, **words: object) -> str:
    with pytest.raises(ParameterError) as caught:
        check_name(ENTRIES, name, "distance", **words)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_known_name_gives_its_entry():
    assert [look_up(ENTRIES, name, "distance") for name in ENTRIES] == [1, 2, 3]
    with pytest.raises(ParameterError, match="distance is 'l3', but must be one of l1, l2, part-cosine"):
        look_up(ENTRIES, "l3", "distance")


@pytest.mark.parametrize("name", ["partcosine", "Part-Cosine", "part_cosine"])
def test_a_name_like_a_known_one_is_answered_with_that(name: str):
    expected = f"distance is '{name}', but must be one of l1, l2, part-cosine (did you mean 'part-cosine'?)"
    assert refusal(name) == expected


@pytest.mark.parametrize("name", ["hamming", "", None, 7, ["l1"]])
def test_a_name_like_nothing_and_what_is_no_name_get_no_suggestion(name: object):
    assert refusal(name) == f"distance is {name!r}, but must be one of l1, l2, part-cosine"


def test_an_alias_is_suggested_before_the_nearest_name():
    aliases = {"cosine": ("part-cosine", "l2")}
    assert refusal("cosine", aliases=aliases).endswith("(did you mean 'part-cosine' and 'l2'?)")


def test_too_many_names_to_show_are_named_by_where_they_are():
    found = refusal("l9x", known_in_words="those that --all prints")
    assert found == "distance is 'l9x', but must be one of those that --all prints"
