"""What comes out of one sequence: pictures and one entry for each reason to leave something out."""

import numpy as np

from attengait.preprocessing.images import Fault, Skip, gather, too_few


def test_faults_that_come_up_while_pictures_are_drawn_are_gathered_by_reason() -> None:
    faults: list[Fault] = [Fault("early", 9)]

    def pictures():
        for number in (1, 2, 3):
            faults.append(Fault("late" if number == 2 else "early", number, f"file {number}"))
            yield number, np.full((2, 2, 1), number, np.uint8)

    result = gather(pictures(), faults, (2, 2, 1), 3)
    assert result.images[:, 0, 0, 0].tolist() == result.frame_numbers.tolist() == [1, 2, 3]
    assert result.skipped == (
        Skip(reason="early", frames=(9, 1, 3), files=("file 1", "file 3")),
        Skip(reason="late", frames=(2,), files=("file 2",)),
    )


def test_too_few_pictures_are_none_of_the_same_shape() -> None:
    result = gather([(4, np.zeros((2, 2, 1), np.uint8))], [], (2, 2, 1), 2)
    assert (result.images.shape, result.images.dtype, result.frame_numbers.shape) == ((0, 2, 2, 1), np.uint8, (0,))
    assert result.skipped == (Skip(reason="fewer than 2 frames", frames=(4,)),)
    assert too_few(7) == "fewer than 7 frames"
