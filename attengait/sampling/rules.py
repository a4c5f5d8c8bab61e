"""Rules for clips: which sequences are used, how a sequence is drawn, and which of its frames, in which order.

The defaults are the published recipe. If `repeat_short` is set, a short sequence is stretched first. Then the T
frames of a clip are drawn from it. The random words for all N clips are given to this module.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attengait.errors import require
from attengait.sampling.selection import distinct, parse_views, parse_walks, walk_kinds
from attengait.system.lookup import check_name

if TYPE_CHECKING:
    from attengait.store.sequences import Sequences

FRAME_ORDERS = {"consecutive": 0, "subset": 1, "shuffled": 2}
"""The orders that a clip's frames may have, and how many random words each frame of it takes."""
BALANCES = ("none", "walks", "views")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRules:
    """Which clips a plan draws; ParameterError for a value out of range.

    >>> rules = attengait.ClipRules(train_walks=("nm",), frame_order="shuffled")
    >>> settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 16}
    >>> with attengait.ClipStream.from_store(store, rules=rules, **settings) as stream:
    ...     sorted({str(store.sequences.walk[row]) for batch in stream for row in batch.sequences})
    ['nm-01', 'nm-05']
    """

    train_views: tuple[str, ...] = ()
    """Views used, as names, numbers or ranges (090, 000-090); empty: all."""
    train_walks: tuple[str, ...] = ()
    """Walks used, as names or kinds (nm-01, nm); empty: all."""
    min_frames: int = 0
    """Sequences of fewer frames are not used."""
    repeat_short: bool = False
    """Show each frame of a sequence shorter than a clip ceil(T / length) times in a row, instead of not using it: the
    option repeat of the published program, which does so for T = 30."""
    frame_order: str = "consecutive"
    """consecutive frames from a random start; a random subset of the frames (none twice) in order; shuffled: the same
    in random order."""
    balance: str = "none"
    """How a subject's sequence is drawn. none: every sequence has the same chance. walks or views: first a kind of
    walk (or a view) is drawn, all with the same chance, then one of its sequences."""

    def __post_init__(self) -> None:
        require(self.min_frames >= 0, "min_frames", self.min_frames, "at least 0")
        check_name(FRAME_ORDERS, self.frame_order, "frame_order")
        check_name(BALANCES, self.balance, "balance")

    def least_frames(self, clip_frames: int) -> int:
        """Frames that a sequence needs to be used for clips of `clip_frames` frames."""
        return max(1 if self.repeat_short else clip_frames, self.min_frames)

    def repeats(self, length: NDArray[np.int64], clip_frames: int) -> NDArray[np.int64]:
        """How often in a row each frame of sequences of `length` [n] frames is shown."""
        if not self.repeat_short:
            return np.ones_like(length)
        return -(-clip_frames // np.clip(length, 1, clip_frames))

    def usable(self, sequences: "Sequences", clip_frames: int) -> NDArray[np.bool_]:
        """Which sequences [n] may be drawn. Raises ParameterError for a view or walk that there is not."""
        usable = np.asarray(sequences.length) >= self.least_frames(clip_frames)
        for spec, column, parse in (
            (self.train_views, sequences.view, parse_views),
            (self.train_walks, sequences.walk, parse_walks),
        ):
            if spec:
                names, codes = distinct(column)
                chosen = set(parse(spec, names.tolist()))
                usable &= np.array([name in chosen for name in names.tolist()], bool)[codes]
        return usable

    def groups(self, sequences: "Sequences") -> NDArray[np.int64]:
        """The group [n] of each sequence, from 0, over which a subject's draws are balanced."""
        if self.balance == "none":
            return np.zeros(len(sequences), np.int64)
        column = sequences.view if self.balance == "views" else sequences.walk
        names, codes = distinct(column)
        if self.balance == "walks":
            codes = distinct(np.array(walk_kinds(names.tolist()), names.dtype))[1][codes]
        return codes

    def requirement(self, clip_frames: int) -> str:
        """What a usable sequence is like, such as: of at least 30 frames and of walks nm."""
        text = f"of at least {self.least_frames(clip_frames)} frames"
        if self.train_views:
            text += f" and of views {', '.join(self.train_views)}"
        if self.train_walks:
            text += f" and of walks {', '.join(self.train_walks)}"
        return text


def random_positions(words: NDArray[np.uint64], counts: NDArray[np.int64], num_frames: int) -> NDArray[np.int64]:
    """T = `num_frames` different positions [N, T] below `counts` [N] (at least T) for N clips, every subset alike.

    From random words [T, N] come positions in ascending order, from [2 T, N] in random order.

    Floyd's method: the work does not grow with the length of the sequences. The i-th position drawn is a random one of
    the first count - T + i + 1, or, where that is taken, the last of these.
    """
    last = (counts - num_frames) + np.arange(num_frames)[:, None]  # [T, N]
    positions = (words[:num_frames] % (last + 1).astype(np.uint64)).astype(np.int64)
    for i in range(1, num_frames):
        is_taken = (positions[:i] == positions[i]).any(axis=0)
        np.copyto(positions[i], last[i], where=is_taken)
    positions = np.ascontiguousarray(positions.T)
    if len(words) == num_frames:
        return np.sort(positions, axis=1)
    order = np.argsort(words[num_frames:].T, axis=1, kind="stable")
    return np.take_along_axis(positions, order, axis=1)
