"""Which clips make up each training batch: a pure function of (seed, step, rank, world size).

A batch is P subjects x K clips, subject by subject. An epoch visits each subject once, in a permutation of its own; a
last batch short of P subjects is filled from the start of that permutation. A clip is a random sequence of the subject,
with replacement, and `clip_frames` consecutive frames of it from a random start.

Nothing is drawn from a generator that runs on, so that any step can be planned at any time, on any rank, and a resumed
run continues with the same clips. Only raw Philox words, stable sorting and remainders are used: plans do not change
with the version of numpy. (A remainder of 64 random bits is biased by less than one part in 10^12 here.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attengait.errors import ParameterError

if TYPE_CHECKING:
    import torch

    from attengait.store.sequences import Sequences

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBatch:
    """The N clips of one step on one rank, read."""

    step: int
    clips: "torch.Tensor"
    """uint8 [N, T, H, W, C]"""
    labels: "torch.Tensor"
    """int64 [N], indices into the plan's subjects."""
    sequences: NDArray[np.int64]
    """[N] indices into the store's sequences."""


class BatchPlan:
    """Every batch of a training run.

    `subjects_per_batch` (P) is of the global batch, which the ranks share: for one P, the plan is the same whatever the
    world size. Sequences shorter than `clip_frames` are not used.

    Raises ParameterError for parameters out of range and when P exceeds the subjects that are left.
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
    ) -> None:
        for name, value in (
            ("subjects_per_batch", subjects_per_batch),
            ("clips_per_subject", clips_per_subject),
            ("clip_frames", clip_frames),
        ):
            if value < 1:
                raise ParameterError(f"{name} is {value}, but must be at least 1")
        if not 0 <= seed < 2**64:
            raise ParameterError(f"seed is {seed}, but must be from 0 to 2^64 - 1")
        self.subjects_per_batch = subjects_per_batch
        self.clips_per_subject = clips_per_subject
        self.clip_frames = clip_frames
        self.seed = seed

        long_enough = np.flatnonzero(sequences.length >= clip_frames)
        names = [str(name) for name in sequences.subject[long_enough]]
        present = set(names)
        self.subjects = [name for name in subjects if name in present]
        """The subjects trained on; a label is an index into them."""
        self.dropped_subjects = [name for name in subjects if name not in present]
        """Subjects asked for that have no sequence of `clip_frames` frames."""
        if subjects_per_batch > len(self.subjects):
            raise ParameterError(
                f"subjects_per_batch is {subjects_per_batch}, but only {len(self.subjects)} subjects have a sequence "
                f"of at least {clip_frames} frames"
            )
        label_of = {name: label for label, name in enumerate(self.subjects)}
        labels = np.array([label_of.get(name, -1) for name in names], np.int64)
        by_subject = np.argsort(labels, kind="stable")
        by_subject = by_subject[labels[by_subject] >= 0]
        self._sequences = long_enough[by_subject].astype(np.int64)  # grouped by subject
        self._num_sequences = np.bincount(labels[by_subject], minlength=len(self.subjects)).astype(np.int64)
        self._first = np.cumsum(self._num_sequences) - self._num_sequences
        self._start = np.asarray(sequences.start, np.int64)
        self._num_starts = np.asarray(sequences.length, np.int64) - clip_frames + 1
        self._last_permutation: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

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
                f"subjects_per_batch is {self.subjects_per_batch}, but must be a multiple of the {world_size} processes"
            )
        if step < 0 or not 0 <= rank < world_size:
            raise ParameterError(f"step is {step} and rank {rank} of {world_size}, but neither may be out of range")
        epoch, batch = divmod(step, self.steps_per_epoch)
        slots = batch * self.subjects_per_batch + np.arange(self.subjects_per_batch)
        subjects = self._permutation(epoch)[slots % len(self.subjects)]
        labels = np.repeat(subjects, self.clips_per_subject)

        which, where = self._random_words(_STEP, step, 2 * len(labels)).reshape(2, -1)
        sequences = self._sequences[self._first[labels] + _remainder(which, self._num_sequences[labels])]
        starts = self._start[sequences] + _remainder(where, self._num_starts[sequences])

        share = len(labels) // world_size
        mine = slice(rank * share, (rank + 1) * share)
        return PlannedBatch(step=step, sequences=sequences[mine], starts=starts[mine], labels=labels[mine])

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        """The order in which an epoch visits the subjects; the last one is kept, as sorting 20,000 takes a while."""
        last, permutation = self._last_permutation
        if last != epoch:
            permutation = np.argsort(self._random_words(_EPOCH, epoch, len(self.subjects)), kind="stable")
            self._last_permutation = (epoch, permutation)
        return permutation

    def _random_words(self, purpose: int, index: int, count: int) -> NDArray[np.uint64]:
        """`count` random words that depend on the seed, the purpose and the index alone."""
        key = np.array([self.seed, 2 * index + purpose], np.uint64)
        return np.asarray(np.random.Philox(key=key).random_raw(count), np.uint64)


def _remainder(words: NDArray[np.uint64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return (words % counts.astype(np.uint64)).astype(np.int64)


def ragged_batches(lengths: ArrayLike, batch_frames: int) -> list[slice]:
    """Consecutive sequences that together have at most `batch_frames` frames, or are one that alone has more.

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
