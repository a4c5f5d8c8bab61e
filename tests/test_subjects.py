"""Specifications of subjects: ranges, steps, numbers, names, and what is refused."""

import pytest

from attengait.errors import ParameterError
from attengait.subjects import parse_subjects

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


def test_overlapping_pieces_give_each_subject_once():
    assert parse_subjects(["001-003", "002-004"], CASIA_B) == CASIA_B[:4]


def test_a_name_wins_over_the_range_it_looks_like():
    assert parse_subjects(["1-2"], ["1", "1-2", "2", "anna"]) == ["1-2"]
    assert parse_subjects(["anna"], ["1", "1-2", "2", "anna"]) == ["anna"]


@pytest.mark.parametrize("piece", ["200", "200-300", "anna", "001,", "", "1-", "001-074/x"])
def test_a_piece_that_matches_nothing_is_refused_with_examples(piece: str):
    with pytest.raises(ParameterError, match=r"matches none of the 124 subjects \(there are 001, 002, 003, 004, 005, "):
        parse_subjects([piece], CASIA_B)


@pytest.mark.parametrize("piece", ["074-001", "001-074/0"])
def test_an_empty_range_is_refused(piece: str):
    with pytest.raises(ParameterError, match=f"subjects '{piece}' is empty"):
        parse_subjects([piece], CASIA_B)


def test_nothing_available_matches_nothing():
    with pytest.raises(ParameterError, match=r"none of the 0 subjects$"):
        parse_subjects(["001"], [])
