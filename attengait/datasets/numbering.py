"""Whether silhouettes and frames of one data set are numbered alike.

Some programs number from 0, others from 1, or from anywhere. If the two sides differ, each frame would be cut by the
silhouette of its neighbour, and nothing else would look wrong. So a difference is refused until a person says what it
means.
"""

from collections import Counter
from dataclasses import replace
from typing import NoReturn

from attengait.datasets.source import FRAMES, SEPARATOR, SILHOUETTES, Scan, SourceSequence
from attengait.datasets.video import Video
from attengait.errors import ParameterError, require


def check_offset(offset: int | None) -> None:
    """Raise ParameterError for an offset that is no whole number."""
    is_whole = isinstance(offset, int) and not isinstance(offset, bool)
    require(offset is None or is_whole, "silhouette_offset", offset, "a whole number, such as 1")


def shifted(scan: Scan, offset: int | None) -> Scan:
    """The sequences with `offset` added to the numbers of their silhouettes.

    Raises ParameterError where `offset` is None and the silhouettes begin with 0 and the frames with 1, or the other
    way round: taken together, or in any sequence that has as many of both. And where most sequences have as many frames
    as silhouettes, whose numbers differ by one and the same number.
    """
    if offset is None:
        _refuse_different_numbers(scan)
    if not offset:
        return scan
    return replace(scan, sequences=tuple(_shift(sequence, offset) for sequence in scan.sequences))


def _shift(sequence: SourceSequence, offset: int) -> SourceSequence:
    return replace(sequence, parts={**sequence.parts, SILHOUETTES: replace(sequence.silhouettes, offset=offset)})


def _refuse_different_numbers(scan: Scan) -> None:
    # A number 0 in one sequence says how all of that side are numbered: others may lack their first pictures.
    for kind in sorted({sequence.frames.kind for sequence in scan.sequences}):
        sequences = [sequence for sequence in scan.sequences if sequence.frames.kind == kind]
        firsts = [(_first(sequence, SILHOUETTES), _first(sequence, FRAMES)) for sequence in sequences]
        lowest = tuple(min(numbers) for numbers in zip(*firsts, strict=True))
        if lowest in ((0, 1), (1, 0)) and lowest in firsts:
            _refuse(sequences[firsts.index(lowest)], lowest[1] - lowest[0], firsts.count(lowest), len(sequences))
        shifts = [_shift_between(sequence) for sequence in sequences]
        for numbers in ((0, 1), (1, 0)):
            # Other sequences may be numbered in another way, but pictures that are missing leave no equal numbers.
            shift = numbers[1] - numbers[0]
            found = [i for i in range(len(sequences)) if firsts[i] == numbers and shifts[i] == shift]
            if found:
                _refuse(sequences[found[0]], shift, len(found), len(sequences))
        common, number = Counter(shifts).most_common(1)[0]
        if common and number > len(sequences) / 2:
            _refuse(sequences[shifts.index(common)], common, number, len(sequences))


def _refuse(example: SourceSequence, offset: int, number: int, total: int) -> NoReturn:
    raise ParameterError(
        f"silhouette_offset is missing, but must be given: silhouettes and frames are numbered differently in {number} "
        f"of {total} sequences ({example.name}: silhouettes {_range(example, SILHOUETTES)}, frames "
        f"{_range(example, FRAMES)}); {offset} is added to the numbers of all silhouettes with --silhouette-offset "
        f"{offset}, and 0 takes the numbers as they are"
    )


def _shift_between(sequence: SourceSequence) -> int | None:
    """What makes the silhouettes' numbers those of as many frames; None where their numbers differ otherwise."""
    sides = [sequence.parts[part] for part in (SILHOUETTES, FRAMES)]
    if any(side.kind == Video.kind for side in sides):
        return None
    if len({side.packed_names.count(SEPARATOR) for side in sides}) > 1:
        return None
    firsts, lasts = zip(*(side.first_and_last for side in sides), strict=True)
    return firsts[1] - firsts[0] if firsts[1] - firsts[0] == lasts[1] - lasts[0] else None


def _first(sequence: SourceSequence, part: str) -> int:
    found = sequence.parts[part]
    return 1 if found.kind == Video.kind else int(found.first_and_last[0])


def _range(sequence: SourceSequence, part: str) -> str:
    found = sequence.parts[part]
    if found.kind == Video.kind:
        return "1 to the end of the video"
    numbers = list(found.by_number)
    return f"{numbers[0]} to {numbers[-1]}"
