"""What comes out of one sequence: pictures, and one entry for each reason to leave something out."""

import numpy as np
import pytest

from attengait.datasets import Scan, SourceSequence
from attengait.datasets.source import Fault
from attengait.errors import ParameterError
from attengait.preprocessing.recipe import Picture, check_limits, gather, with_parts
from attengait.store.skipped import Reason, Skipped

SEQUENCE = SourceSequence(subject="001", walk="nm-01", view="090")
EARLY, LATE = Reason.UNREADABLE_PICTURE, Reason.WRONG_SIZE


def test_faults_that_come_up_while_pictures_are_drawn_are_gathered_by_reason() -> None:
    faults: list[Fault] = [Fault(EARLY, 9)]

    def pictures():
        for number in (1, 2, 3):
            detail = f"detail {number}"
            faults.append(Fault(LATE if number == 2 else EARLY, number, f"file {number}", detail))
            yield Picture(number, np.full((2, 2, 1), number, np.uint8))

    made = gather(pictures(), faults, SEQUENCE, (2, 2, 1), 3)
    assert made.pictures[:, 0, 0, 0].tolist() == made.frame_numbers.tolist() == [1, 2, 3]
    assert made.times_seconds is None
    name = "001/nm-01/090"
    assert made.skipped == (
        Skipped(reason=EARLY, where=name, frames=(9, 1, 3), files=("file 1", "file 3"), detail="detail 1"),
        Skipped(reason=LATE, where=name, frames=(2,), files=("file 2",), detail="detail 2"),
    )


def test_too_few_pictures_are_none_of_the_same_shape() -> None:
    made = gather([Picture(4, np.zeros((2, 2, 1), np.uint8), 0.5)], [], SEQUENCE, (2, 2, 1), 2)
    assert (made.pictures.shape, made.pictures.dtype, made.frame_numbers.shape) == ((0, 2, 2, 1), np.uint8, (0,))
    assert made.times_seconds is None
    (told,) = made.skipped
    assert (told.reason, told.frames) == (Reason.TOO_FEW, ())
    assert told.detail == "1 pictures came out, but 2 or more are needed"


def test_times_are_kept_where_every_picture_has_one() -> None:
    pictures = [Picture(number, np.zeros((2, 2, 1), np.uint8), number / 25) for number in (1, 2)]
    made = gather(pictures, [], SEQUENCE, (2, 2, 1), 1)
    assert made.times_seconds is not None
    assert made.times_seconds.tolist() == [0.04, 0.08]


def test_sequences_that_lack_a_part_are_left_out_by_name() -> None:
    parts = ({"frames": 1, "silhouettes": 1}, {"frames": 1}, {"silhouettes": 1}, {})
    sequences = tuple(SourceSequence(subject=f"00{i}", walk="w", view="v", parts=p) for i, p in enumerate(parts))
    before = Skipped(reason=Reason.FOREIGN_FOLDER, where="x")
    found = with_parts(Scan(sequences=sequences, skipped=(before,)), ("frames", "silhouettes"))
    assert [sequence.subject for sequence in found.sequences] == ["000"]
    assert [(str(each.reason), each.where) for each in found.skipped] == [
        ("foreign folder", "x"),
        ("no silhouettes", "001/w/v"),
        ("no frames", "002/w/v"),
        ("no frames", "003/w/v"),
    ]


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ((0, 0, 1), "crop_size is 0, but must be a whole number of at least 2"),
        ((63, 0, 1), "crop_size is 63, but must be even"),
        ((64, -1, 1), "silhouette_threshold is -1, but must be"),
        ((64, 0, True), "min_frames is True, but must be"),
    ],
)
def test_limits_that_no_recipe_can_have_are_named(limits: tuple[int, int, int], sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        check_limits(*limits)
