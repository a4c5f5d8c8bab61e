"""Silhouettes and frames that are numbered from different numbers are refused until a person says what it means."""

from pathlib import Path

import pytest

from attengait.datasets import Pictures, Scan, SourceSequence, Video
from attengait.datasets.numbering import shifted
from attengait.errors import ParameterError


def pictures(numbers: range) -> Pictures:
    return Pictures.of("x", [f"a-{number:03d}.png" for number in numbers])


def scan(*sides: tuple[Pictures | Video, Pictures]) -> Scan:
    return Scan(
        sequences=tuple(
            SourceSequence(
                subject=f"{i:03d}", walk="nm-01", view="090", parts={"frames": frames, "silhouettes": silhouettes}
            )
            for i, (frames, silhouettes) in enumerate(sides, 1)
        )
    )


FROM_0, FROM_1, VIDEO = pictures(range(12)), pictures(range(1, 13)), Video(path="a.avi")


@pytest.mark.parametrize(
    ("frames", "silhouettes", "offset", "said"),
    [
        (VIDEO, FROM_0, 1, r"silhouettes 0 to 11, frames 1 to the end of the video"),
        (FROM_1, FROM_0, 1, r"silhouettes 0 to 11, frames 1 to 12"),
        (FROM_0, FROM_1, -1, r"silhouettes 1 to 12, frames 0 to 11"),
    ],
)
def test_a_difference_is_refused_with_the_numbers_of_both_sides_and_can_be_told(
    frames: Pictures | Video, silhouettes: Pictures, offset: int, said: str
) -> None:
    found = scan((frames, pictures(range(5, 9))), (frames, silhouettes))
    said = rf"in 1 of 2 sequences \(002/nm-01/090: {said}\).*--silhouette-offset {offset},"
    with pytest.raises(ParameterError, match=said):
        shifted(found, None)
    told = shifted(found, offset).sequences[1].silhouettes
    assert list(told.by_number) == [number + offset for number in silhouettes.by_number]
    assert told.matching([offset + 3, 99]) == {offset + 3}
    assert shifted(found, 0) is found


@pytest.mark.parametrize(
    ("frames", "silhouettes", "offset", "said"),
    [
        (FROM_1, FROM_0, 1, "silhouettes 0 to 11, frames 1 to 12"),
        (FROM_0, FROM_1, -1, "silhouettes 1 to 12, frames 0 to 11"),
    ],
)
def test_a_difference_is_refused_also_beside_sequences_with_0_on_both_sides(
    frames: Pictures, silhouettes: Pictures, offset: int, said: str
) -> None:
    found = scan((FROM_0, FROM_0), (FROM_1, FROM_1), (frames, silhouettes), (FROM_1, FROM_1))
    said = rf"in 1 of 4 sequences \(003/nm-01/090: {said}\).*all silhouettes with --silhouette-offset {offset},"
    with pytest.raises(ParameterError, match=said):
        shifted(found, None)
    assert shifted(found, 0) is found


def test_most_sequences_with_other_numbers_by_one_difference_are_refused() -> None:
    other = pictures(range(2, 14))
    found = scan((FROM_1, other), (FROM_1, other), (FROM_1, FROM_1))
    with pytest.raises(ParameterError, match=r"in 2 of 3 sequences .*silhouettes 2 to 13, frames 1 to 12.*offset -1,"):
        shifted(found, None)
    assert shifted(scan((FROM_1, other), (FROM_1, FROM_1)), None)
    assert shifted(scan((FROM_1, pictures(range(2, 12)))), None)


@pytest.mark.parametrize(
    "sides",
    [
        [(FROM_1, FROM_1)],
        [(FROM_0, FROM_0)],
        [(VIDEO, FROM_1)],
        [(VIDEO, pictures(range(40, 90)))],
        [(FROM_0, pictures(range(5, 9)))],
        # Single pictures are missing.
        [(FROM_0, FROM_0), (FROM_0, pictures(range(1, 12))), (pictures(range(1, 12)), FROM_0)],
        [(FROM_0, FROM_0), (FROM_0, pictures(range(2, 14)))],
    ],
)
def test_sound_numbers_pass(sides: list[tuple[Pictures | Video, Pictures]]) -> None:
    found = scan(*sides)
    assert shifted(found, None) is found


def test_an_offset_does_not_change_paths(tmp_path: Path) -> None:
    told = shifted(scan((VIDEO, FROM_0)), 1).sequences[0].silhouettes
    assert told.files == FROM_0.files
