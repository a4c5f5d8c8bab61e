"""Which training subjects are held out for validation."""

import pytest

from attengait.errors import ParameterError
from attengait.sampling.holding_out import held_out_subjects

TRAINED = [f"{number:03d}" for number in range(1, 41)]
AVAILABLE = [*TRAINED, "041", "042", "050"]


@pytest.mark.parametrize(
    ("spec", "held_out"),
    [
        ((), []),
        (("003", "5"), ["003", "005"]),
        (("038-040",), ["038", "039", "040"]),
        (("*9,010",), ["009", "010", "019", "029", "039"]),
        (("10%",), ["006", "016", "026", "036"]),
        (("5 %",), ["011", "031"]),
        (("12.5%",), ["005", "013", "021", "029", "037"]),
        (("039-040,050",), ["039", "040"]),  # 050 is left out of all
    ],
)
def test_names_ranges_and_shares_of_the_training_subjects(spec: tuple[str, ...], held_out: list[str]) -> None:
    assert held_out_subjects(spec, TRAINED, AVAILABLE, {"050"}) == held_out


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (("041",), "among the 40 training subjects, which 041 is not"),
        (("039-042",), "which 041, 042 are not (a test subject must not choose anything)"),
        (("099",), "validation_subjects is '099', but must be among the 43 subjects that there are"),
        (("003",), "must be at least 2 training subjects"),
        (("0%",), "one share from above 0% to below 100%"),
        (("100%",), "one share from above 0% to below 100%"),
        (("10%", "003"), "one share"),
        (("-5%",), "one share"),
        (("3%",), "validation_subjects is '3%', which is 1 of 40 training subjects"),
    ],
)
def test_what_does_not_work_is_refused(spec: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ParameterError) as caught:
        held_out_subjects(spec, TRAINED, AVAILABLE, {"050"})
    assert sentence in str(caught.value)


def test_a_subject_whose_name_has_a_percent_sign_is_a_name() -> None:
    assert held_out_subjects(("10%", "b"), ["10%", "b", "c"], ["10%", "b", "c"]) == ["10%", "b"]
