"""One sequence read and decoded as a whole: what the flow images of a device are made of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from attengait.datasets.pictures import Pictures
from attengait.datasets.reading import FrameSizes, read_with_the_size_of_most
from attengait.datasets.source import FRAMES, Fault, ReadGrays, SourceSequence
from attengait.preprocessing.flow import Block, FlowRecipe
from attengait.store.skipped import Reason

Keep = Callable[[Block], Block]
"""Moves a block's pictures, and returns the block with the moved ones."""

NOTHING_REFUSED: Mapping[str, str] = {}


def _nothing() -> None:
    """Memory that is freed by itself."""


class ReadSequence(NamedTuple):
    """A sequence read and decoded."""

    block: Block
    """All of it; without pairs where nothing can be computed."""
    faults: list[Fault]
    give_back: Callable[[], None] = _nothing
    """To be called when the block's pictures are no longer needed: their memory is then used for others."""


def read_sequence(
    source: SourceSequence,
    *,
    recipe: FlowRecipe,
    read_grays: ReadGrays,
    refused: Mapping[str, str] = NOTHING_REFUSED,
    keeping: Callable[[], Keep] = lambda: _where_it_is,
) -> ReadSequence:
    """Read and decode all that the flow images of one sequence are made of.

    `refused` holds the paths of pictures that `read_grays` had OpenCV decode, and why; it grows meanwhile. `keeping`
    gives for each attempt on the sequence what moves the pictures of its blocks.
    """

    def attempt(sizes: FrameSizes) -> ReadSequence:
        faults: list[Fault] = []
        blocks = recipe.read_blocks(source, faults, sizes, read_grays=read_grays)
        block = join(map(keeping(), blocks))
        if refused:
            faults += _decoded_otherwise(source, refused, faults)
        return ReadSequence(block, faults)

    return read_with_the_size_of_most(attempt)


def _where_it_is(block: Block) -> Block:
    return block


def _decoded_otherwise(source: SourceSequence, refused: Mapping[str, str], faults: Sequence[Fault]) -> list[Fault]:
    """A note of each picture of a sequence that OpenCV decoded after DALI had refused it."""
    frames = source.parts[FRAMES]
    if not isinstance(frames, Pictures):
        return []
    lost = {fault.number for fault in faults if fault.reason is Reason.UNREADABLE_PICTURE}
    return [
        Fault(Reason.OTHER_DECODER, number, path, refused[path])
        for number, path in frames.by_number.items()
        if path in refused and number not in lost
    ]


def join(blocks: Iterable[Block]) -> Block:
    """Return several blocks as one; a frame that ends one block and begins the next is kept once."""
    whole = Block(grays=[], pairs=[], silhouettes=[], numbers=[], times_seconds=[])
    for block in blocks:
        shared = bool(whole.grays) and whole.grays[-1] is block.grays[0]
        offset = len(whole.grays) - shared
        whole.grays.extend(block.grays[shared:])
        whole.pairs.extend((offset + first, offset + second) for first, second in block.pairs)
        whole.silhouettes.extend(block.silhouettes)
        whole.numbers.extend(block.numbers)
        whole.times_seconds.extend(block.times_seconds)
    return whole
