"""Specifications of subjects: ranges, steps, numbers, names, and what is refused."""

import numpy as np
import pytest

from attengait.errors import ParameterError
from attengait.sampling.selection import distinct, parse_subjects, parse_views, parse_walks, subjects_among, walk_kinds

CASIA_B = [f"{number:03d}" for number in range(1, 125)]


def test_an_empty_specification_asks_for_all_in_order_and_once():
    assert parse_subjects([], ["b", "a", "b"]) == ["b", "a"]


def test_a_range_includes_both_ends():
    assert parse_subjects(["001-074"], CASIA_B) == CASIA_B[:74]


def test_a_step_counts_numbers_from_the_beginning_of_the_range_not_the_subjects_present():
    available = ["00001", "00002", "00004", "00005", "00009", "00011"]
    assert parse_subjects(["1-9/2"], available) == ["00001", "00005", "00009"]


def test_pieces_are_joined_by_commas_or_given_apart_and_keep_the_order_of_the_data():
    assert parse_subjects(["100, 003", "001-002"], CASIA_B) == ["001", "002", "003", "100"]


def test_numbers_match_by_value():
    assert parse_subjects(["5"], CASIA_B) == ["005"]


def test_texts_numbers_and_columns_of_a_store_are_taken_alone_or_together():
    column = np.array(["003", "001", "003"], np.dtypes.StringDType())
    for spec in ("1,3", [1, "003"], (number for number in (3, 1)), np.array([1, 3]), column, range(1, 4, 2)):
        assert parse_subjects(spec, CASIA_B) == ["001", "003"]
    assert parse_subjects(5, CASIA_B) == ["005"]
    assert parse_subjects(range(0), CASIA_B) == CASIA_B
    assert parse_views(90, ["000", "090"]) == ["090"]
    assert parse_walks("nm", ["nm-01", "bg-01"]) == ["nm-01"]


@pytest.mark.parametrize("spec", [None, 1.5, True, ["001", None], b"1"])
def test_what_is_no_text_and_no_number_is_refused(spec: object):
    with pytest.raises(ParameterError, match=r"^subjects is \S+, but must be a text or a number, such as '001-074'"):
        parse_subjects(spec, CASIA_B)


def test_overlapping_pieces_give_each_subject_once():
    assert parse_subjects(["001-003", "002-004"], CASIA_B) == CASIA_B[:4]


def test_a_name_wins_over_the_range_it_looks_like():
    assert parse_subjects(["1-2"], ["1", "1-2", "2", "anna"]) == ["1-2"]
    assert parse_subjects(["anna"], ["1", "1-2", "2", "anna"]) == ["anna"]


def test_a_name_may_have_commas_and_blanks():
    available = ["003", "Doe, Jane", "Smith, John", " x"]
    for spec in ("Doe, Jane", ["Doe, Jane"], np.array(["Doe, Jane"])):
        assert parse_subjects(spec, available) == ["Doe, Jane"]
        assert subjects_among(spec, available) == {"Doe, Jane"}
    assert parse_subjects(available, available) == available
    assert parse_views(["left, far"], ["left, far", "left"]) == ["left, far"]
    assert parse_walks(["up, down"], ["up, down-01", "up-01"]) == ["up, down-01"]
    with pytest.raises(ParameterError, match=r"^subjects is 'Doe', but must be among the 4 subjects"):
        parse_subjects("Doe, Jane, 003", available)


@pytest.mark.parametrize("piece", ["200", "200-300", "anna", "001,", "", "1-", "001-074/x"])
def test_a_piece_that_matches_nothing_is_refused_with_examples(piece: str):
    with pytest.raises(ParameterError, match=r"but must be among the 124 subjects that there are \(such as 001, 002, "):
        parse_subjects([piece], CASIA_B)


@pytest.mark.parametrize("piece", ["074-001", "001-074/0"])
def test_an_empty_range_is_refused(piece: str):
    with pytest.raises(ParameterError, match=f"subjects is '{piece}', but must be a range that goes upwards"):
        parse_subjects([piece], CASIA_B)


def test_nothing_available_matches_nothing():
    with pytest.raises(ParameterError, match=r"subjects is '001', but must be among the 0 subjects that there are$"):
        parse_subjects(["001"], [])


JOINED = ["casia-b:001", "casia-b:002", "casia-b:010", "own:001", "own:anna"]


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (["casia-b:001-074"], ["casia-b:001", "casia-b:002", "casia-b:010"]),
        (["casia-b:2-10/8", "own:"], ["casia-b:002", "casia-b:010", "own:001", "own:anna"]),
        (["own:1"], ["own:001"]),
        (["own:anna,casia-b:1"], ["casia-b:001", "own:anna"]),
        ([], JOINED),
    ],
)
def test_subjects_of_several_stores_are_asked_for_by_store(spec: list[str], found: list[str]):
    assert parse_subjects(spec, JOINED) == found


@pytest.mark.parametrize("piece", ["001-074", "1", "casia:001", "casia:", ":", "own:1-", "anna"])
def test_a_subject_without_its_store_is_refused_with_the_stores(piece: str):
    with pytest.raises(
        ParameterError, match=r"the 5 subjects that there are \(such as casia-b:001, .* casia-b:, own:; a"
    ):
        parse_subjects([piece], JOINED)


def test_subjects_that_are_not_there_are_no_mistake_where_one_asks_who_is():
    assert subjects_among(["5", "200-300,001-002", "074-001", "anna"], CASIA_B) == {"001", "002", "005"}
    assert subjects_among([], CASIA_B) == set()


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("*train", ["001train", "002train"]),
        ("?01*", ["001", "001train"]),
        ("00[2-9]*", ["002train"]),
        ("*", ["001", "001train", "002train", "a*", "probe"]),
        ("a*", ["a*"]),
        ("*train,probe", ["001train", "002train", "probe"]),
    ],
)
def test_a_pattern_finds_names_and_a_name_wins_over_it(spec: str, found: list[str]) -> None:
    assert parse_subjects(spec, ["001", "001train", "002train", "a*", "probe"]) == found


def test_a_pattern_may_name_a_store_and_one_that_finds_nobody_is_refused() -> None:
    available = ["grew:001train", "grew:001", "own:001train"]
    assert parse_subjects("grew:*train", available) == ["grew:001train"]
    assert parse_subjects("*train", available) == ["grew:001train", "own:001train"]
    with pytest.raises(ParameterError, match=r"^subjects is '\*test', but must be among"):
        parse_subjects("*test", available)


def test_views_are_chosen_by_name_number_and_range():
    views = ["000", "018", "090", "180"]
    assert parse_views(["90"], views) == ["090"]
    assert parse_views(["0-90", "180"], views) == views
    with pytest.raises(ParameterError, match=r"^train_views is '91', but must be one of 000, 018, 090, 180$"):
        parse_views(["000,91"], views)


def test_walks_are_chosen_by_name_and_by_kind():
    walks = ["nm-01", "nm-02", "bg-01", "cl", "00", "x-1-02"]
    assert walk_kinds(walks) == ["nm", "nm", "bg", "cl", "00", "x-1"]
    assert parse_walks(["nm"], walks) == ["nm-01", "nm-02"]
    assert parse_walks(["bg-01,nm-02", "00"], walks) == ["nm-02", "bg-01", "00"]
    with pytest.raises(
        ParameterError,
        match=r"^train_walks is 'nm-03', but must be one of nm, bg, cl, 00, x-1, nm-01, .* mean 'nm-02'\?\)",
    ):
        parse_walks(["nm-03"], walks)


@pytest.mark.parametrize("names", [["b", "b", "a", "b", "c", "c"], ["a"], ["ä", "z", "Z", "", "ä"], []])
def test_distinct_names_are_those_of_a_sorted_set(names: list[str]):
    found, codes = distinct(np.array(names, np.dtypes.StringDType()))
    assert found.tolist() == sorted(set(names))
    assert found[codes].tolist() == names
