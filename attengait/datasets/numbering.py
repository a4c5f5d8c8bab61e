"""Whether silhouettes and frames of one data set are numbered alike.

Some programs number from 0, others from 1. If the two sides differ, each frame would be cut by the silhouette of its
neighbour, and nothing else would look wrong. So a difference is refused until a person says what it means.
"""

from dataclasses import replace

from attengait.datasets.source import FRAMES, SEPARATOR, SILHOUETTES, Scan, SourceSequence, frame_number
from attengait.datasets.video import Video
from attengait.errors import ParameterError, require


def check_offset(offset: int | None) -> None:
    """Raise ParameterError for an offset that is no whole number."""
    is_whole = isinstance(offset, int) and not isinstance(offset, bool)
    require(offset is None or is_whole, "silhouette_offset", offset, "a whole number, such as 1")


def shifted(scan: Scan, offset: int | None) -> Scan:
    """The sequences with `offset` added to the numbers of their silhouettes.

    Raises ParameterError where `offset` is None and the silhouettes begin with 0 and the frames with 1, or the other
    way round.
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
        if lowest not in ((0, 1), (1, 0)) or lowest not in firsts:
            continue
        example, offset = sequences[firsts.index(lowest)], lowest[1] - lowest[0]
        raise ParameterError(
            f"silhouette_offset is missing, but must be given: silhouettes are numbered from {lowest[0]}, frames from "
            f"{lowest[1]} in {firsts.count(lowest)} of {len(sequences)} sequences ({example.name}: silhouettes "
            f"{_range(example, SILHOUETTES)}, frames {_range(example, FRAMES)}); {offset} is added to the silhouettes' "
            f"numbers with --silhouette-offset {offset}, and 0 takes the numbers as they are"
        )


def _first(sequence: SourceSequence, part: str) -> int:
    found = sequence.parts[part]
    # The names are in the order of their numbers, and there are millions.
    return 1 if found.kind == Video.kind else frame_number(found.packed_names.partition(SEPARATOR)[0])


def _range(sequence: SourceSequence, part: str) -> str:
    found = sequence.parts[part]
    if found.kind == Video.kind:
        return "1 to the end of the video"
    numbers = list(found.by_number)
    return f"{numbers[0]} to {numbers[-1]}"
