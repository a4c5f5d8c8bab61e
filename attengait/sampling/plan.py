"""Which clips make up each training batch: a pure function of (seed, step, rank, world size).

A batch is P subjects x K clips, subject by subject. An epoch visits each subject once, in a random order. If the
last batch has fewer than P subjects, it is filled from the start of that order. A clip is a random sequence of the
subject, with replacement, and `clip_frames` consecutive frames of it from a random start; `ClipRules` has the
other ways to draw clips.

No random generator keeps a state from step to step. So any step can be planned at any time and on any rank, and a
resumed run continues with the same clips. Only raw Philox words, stable sorting and remainders are used: plans do
not change with the version of numpy. (A remainder of 64 random bits is biased by less than one part in 10^12 here.)
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attengait.errors import ParameterError, require
from attengait.sampling.rules import FRAME_ORDERS, ClipRules, random_positions
from attengait.sampling.selection import distinct, some_of, walk_kinds

if TYPE_CHECKING:
    import torch

    from attengait.store.sequences import Sequences

_LEAST_CLIP_FRAMES = 16
"""Of clips that a network is trained on."""
_EPOCH, _STEP = 0, 1
"""What a stream of random words is for: an epoch's permutation, a step's clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBatch:
    """The N clips of one step on one rank."""

    step: int
    sequences: NDArray[np.int64]
    """[N] indices into the store's sequences."""
    starts: NDArray[np.int64]
    """[N] absolute index of each clip's first frame."""
    labels: NDArray[np.int64]
    """[N] indices into the plan's subjects."""
    frames: NDArray[np.int64] | None = None
    """[N, T] absolute index of each frame of the clips; None when these are T consecutive ones. This is the same for
    all batches of a plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBatch:
    """The N clips of one step on one rank, read.

    >>> with attengait.ClipStream.from_store(store, subjects_per_batch=2, clips_per_subject=3, clip_frames=9) as stream:
    ...     batch = next(stream)
    >>> batch.clips.shape[:2], batch.labels.shape
    (torch.Size([6, 9]), torch.Size([6]))
    """

    step: int
    clips: "torch.Tensor"
    """uint8 [N, T, H, W, C]"""
    labels: "torch.Tensor"
    """int64 [N], indices into the plan's subjects."""
    sequences: NDArray[np.int64]
    """[N] indices into the store's sequences."""


class BatchPlan:
    """Every batch of a training run.

    P is `subjects_per_batch` in each of `replicas`. The batch of all replicas is what the ranks share: for one P, the
    plan is the same whatever the world size. Sequences shorter than `clip_frames` are not used, unless the rules say
    so.

    Raises ParameterError for parameters out of range, for a view or walk that there is not, and when P exceeds the
    subjects that are left.
    """

    def __init__(
        self,
        sequences: "Sequences",
        subjects: Sequence[str],
        *,
        subjects_per_batch: int,
        clips_per_subject: int,
        clip_frames: int,
        seed: int,
        replicas: int = 1,
        rules: ClipRules | None = None,
    ) -> None:
        for name, value in (
            ("subjects_per_batch", subjects_per_batch),
            ("clips_per_subject", clips_per_subject),
            ("clip_frames", clip_frames),
            ("replicas", replicas),
        ):
            if value < 1:
                raise ParameterError(f"{name} is {value}, but must be at least 1")
        if not 0 <= seed < 2**64:
            raise ParameterError(f"seed is {seed}, but must be from 0 to 2^64 - 1")
        self.subjects_per_batch = subjects_per_batch * replicas
        """P of all replicas."""
        self._asked = f"{subjects_per_batch} in each of {replicas} replicas" if replicas > 1 else subjects_per_batch
        self.clips_per_subject = clips_per_subject
        self.clip_frames = clip_frames
        self.seed = seed

        self.rules = rules = rules or ClipRules()
        self.requirement = rules.requirement(clip_frames)
        """What sequences are used, such as: of at least 30 frames."""

        usable = rules.usable(sequences, clip_frames)
        names, codes = distinct(sequences.subject)
        has_any = np.bincount(codes[usable], minlength=len(names)) > 0
        present = set(names[has_any].tolist())
        self.subjects = [name for name in subjects if name in present]
        """The subjects trained on; a label is an index into them."""
        self.dropped_subjects = [name for name in subjects if name not in present]
        """Subjects asked for that have no sequence to be used."""
        if self.subjects_per_batch > len(self.subjects):
            there = _what_there_is(sequences, subjects, rules, clip_frames, self.subjects_per_batch)
            raise ParameterError(
                f"subjects_per_batch is {self._asked}, but must be at most the {len(self.subjects)} subjects "
                f"that have a sequence {self.requirement}{there}"
            )
        label_of = {name: label for label, name in enumerate(self.subjects)}
        labels = np.array([label_of.get(name, -1) for name in names.tolist()], np.int64)[codes]
        used = np.flatnonzero(usable & (labels >= 0))
        # A cell is the sequences of one subject in one group; subjects have their cells, and cells their sequences, in
        # one piece.
        groups = rules.groups(sequences)[used]
        cells = labels[used] * (groups.max() + 1) + groups
        whatever_length = replace(rules, min_frames=0, repeat_short=True).usable(sequences, 1)
        self.num_too_short = int(np.count_nonzero(whatever_length & ~usable & (labels >= 0)))
        """Sequences of these subjects, of the views and walks used, that are too short to be used."""
        self._sequences = used[np.argsort(cells, kind="stable")].astype(np.int64)
        cells, num_sequences = np.unique(cells, return_counts=True)
        self._num_sequences = num_sequences.astype(np.int64)  # of each cell
        self._first_sequence = np.cumsum(self._num_sequences) - self._num_sequences
        self._num_cells = np.bincount(cells // (groups.max() + 1), minlength=len(self.subjects)).astype(np.int64)
        self._first_cell = np.cumsum(self._num_cells) - self._num_cells

        length = np.asarray(sequences.length, np.int64)
        self._start = np.asarray(sequences.start, np.int64)
        self._repeats = rules.repeats(length, clip_frames)
        self._shown = length * self._repeats  # frames of the stretched sequence
        self._in_one_piece = rules.frame_order == "consecutive" and bool((self._repeats[used] == 1).all())
        self._last_permutation: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def state(self) -> dict[str, Any]:
        """What the batches depend on, as plain values: equal for two plans that give the same batches."""
        digest = hashlib.sha256()
        for values in (self._sequences, self._start, self._shown, self._repeats, self._num_cells, self._num_sequences):
            digest.update(np.ascontiguousarray(values, np.int64).tobytes())
        return {
            "seed": self.seed,
            "subjects_per_batch": self.subjects_per_batch,
            "clips_per_subject": self.clips_per_subject,
            "clip_frames": self.clip_frames,
            "frame_order": self.rules.frame_order,
            "sequences_sha256": digest.hexdigest(),
        }

    @property
    def sequences(self) -> NDArray[np.int64]:
        """Indices into the store's sequences of those that clips are drawn from, by subject."""
        return self._sequences

    @property
    def steps_per_epoch(self) -> int:
        """Batches that visit each subject once."""
        return -(-len(self.subjects) // self.subjects_per_batch)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> PlannedBatch:
        """The clips of `step` (from 0, over all epochs) on `rank`.

        Raises ParameterError when the subjects of a batch cannot be divided among `world_size` ranks.
        """
        if self.subjects_per_batch % world_size:
            raise ParameterError(
                f"subjects_per_batch is {self._asked}, but must be a multiple of the {world_size} processes"
                + ("" if self.subjects_per_batch == self._asked else " in all replicas together")
            )
        require(step >= 0, "step", step, "at least 0")
        require(0 <= rank < world_size, "rank", rank, f"from 0 to {world_size - 1}")
        epoch, batch = divmod(step, self.steps_per_epoch)
        slots = batch * self.subjects_per_batch + np.arange(self.subjects_per_batch)
        subjects = self._permutation(epoch)[slots % len(self.subjects)]
        labels = np.repeat(subjects, self.clips_per_subject)

        share = len(labels) // world_size
        mine = slice(rank * share, (rank + 1) * share)
        words_per_clip = 3 + self.clip_frames * FRAME_ORDERS[self.rules.frame_order]
        words = self._random_words(_STEP, step, words_per_clip * len(labels)).reshape(words_per_clip, -1)[:, mine]
        which, where, cell = words[:3]

        labels = labels[mine]
        cells = self._first_cell[labels] + _remainder(cell, self._num_cells[labels])
        sequences = self._sequences[self._first_sequence[cells] + _remainder(which, self._num_sequences[cells])]
        if self.rules.frame_order != "consecutive":
            positions = random_positions(words[3:], self._shown[sequences], self.clip_frames)
        else:
            firsts = _remainder(where, self._shown[sequences] - self.clip_frames + 1)
            if self._in_one_piece:
                return PlannedBatch(
                    step=step, sequences=sequences, starts=self._start[sequences] + firsts, labels=labels
                )
            positions = firsts[:, None] + np.arange(self.clip_frames)
        frames = self._start[sequences, None] + positions // self._repeats[sequences, None]  # [N, T]
        return PlannedBatch(step=step, sequences=sequences, starts=frames[:, 0].copy(), labels=labels, frames=frames)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        """The order in which an epoch visits the subjects. The last order is kept, because sorting 20,000 subjects
        takes time."""
        last, permutation = self._last_permutation
        if last != epoch:
            permutation = argsort_stable(self._random_words(_EPOCH, epoch, len(self.subjects)))
            self._last_permutation = (epoch, permutation)
        return permutation

    def _random_words(self, purpose: int, index: int, count: int) -> NDArray[np.uint64]:
        """`count` random words that depend on the seed, the purpose and the index alone."""
        key = np.array([self.seed, 2 * index + purpose], np.uint64)
        return np.asarray(np.random.Philox(key=key).random_raw(count), np.uint64)


def argsort_stable(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """np.argsort(words, kind="stable") in half the time: numpy sorts 16 bits by counting, 64 by comparing."""
    order = np.arange(len(words))
    for shift in np.arange(0, 64, 16, dtype=np.uint64):
        digits = (words[order] >> shift).astype(np.uint16)
        order = order[np.argsort(digits, kind="stable")]
    return order


def _what_there_is(
    sequences: "Sequences", subjects: Sequence[str], rules: ClipRules, clip_frames: int, num_wanted: int
) -> str:
    """The end of an error: what the chosen subjects have of what the rules select among, and what helps."""
    names, codes = distinct(sequences.subject)
    wanted = set(subjects)
    asked = np.isin(codes, np.flatnonzero([name in wanted for name in names.tolist()]))
    if not asked.any():
        return ""
    parts = []
    too_short = not rules.repeat_short and sequences.length[asked].min() < clip_frames
    if rules.min_frames or too_short:
        parts.append(f"sequences of {sequences.length[asked].min()} to {sequences.length[asked].max()} frames")
    if rules.train_views:
        parts.append(f"views {some_of(distinct(sequences.view[asked])[0].tolist(), 20)}")
    if rules.train_walks:
        kinds = dict.fromkeys(walk_kinds(distinct(sequences.walk[asked])[0].tolist()))
        parts.append(f"walks {some_of(list(kinds), 20)}")
    advice = ""
    if too_short:
        longest = np.zeros(len(names), np.int64)
        some = asked & replace(rules, min_frames=0).usable(sequences, 1)
        np.maximum.at(longest, codes[some], np.asarray(sequences.length, np.int64)[some])
        enough = int(np.sort(longest)[::-1][num_wanted - 1]) if num_wanted <= len(names) else 0
        smaller = f"clip_frames={enough}" if _LEAST_CLIP_FRAMES <= enough < clip_frames else "a smaller clip_frames"
        advice = f"; choose {smaller}, or repeat_short=true"
    return f" (there are {', '.join(parts)}{advice})" if parts else ""


def _remainder(words: NDArray[np.uint64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return (words % counts.astype(np.uint64)).astype(np.int64)


def sequence_batches(sequences: "Sequences", indices: ArrayLike, batch_frames: int) -> list[NDArray[np.int64]]:
    """Which sequences make each batch where those of `indices` [n] are to come in this order: as many as have at most
    `batch_frames` frames, or a single longer one.

    Raises ParameterError when `batch_frames` is below 1.
    """
    chosen = np.asarray(indices, np.int64)
    return [chosen[batch] for batch in ragged_batches(sequences.length[chosen], batch_frames)]


def ragged_batches(lengths: ArrayLike, batch_frames: int) -> list[slice]:
    """Groups of consecutive sequences with at most `batch_frames` frames together. A longer sequence is a group by
    itself.

    `lengths` [n] in frames. Raises ParameterError when `batch_frames` is below 1.
    """
    if batch_frames < 1:
        raise ParameterError(f"batch_frames is {batch_frames}, but must be at least 1")
    ends = np.cumsum(np.asarray(lengths, np.int64))
    batches: list[slice] = []
    first = begin = 0
    while first < len(ends):
        stop = max(first + 1, int(np.searchsorted(ends, begin + batch_frames, side="right")))
        batches.append(slice(first, stop))
        first, begin = stop, int(ends[stop - 1])
    return batches
