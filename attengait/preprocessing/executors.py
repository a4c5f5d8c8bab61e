"""What makes the pictures of a store, and in which processes: worker processes, or whatever else has these methods."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.source import SourceSequence
from attengait.kernels.flow.backends import make_backend
from attengait.preprocessing.flow import Recipe
from attengait.preprocessing.images import SequenceResult, too_few
from attengait.preprocessing.silhouette import SilhouetteRecipe
from attengait.store.shards import ShardTask, WorkerPool


class Engine(Protocol):
    """What makes a store's pictures, and in which processes."""

    def check(self, recipe: Recipe | SilhouetteRecipe) -> None:
        """Raise AttenGaitError or ParameterError, in one sentence, when it cannot make the recipe's pictures here."""
        ...

    def versions(self, sequences: Sequence[SourceSequence]) -> dict[str, str]:
        """Versions of what has a hand in the bytes beside the libraries that are always recorded."""
        ...

    def run_shards(
        self, recipe: Recipe | SilhouetteRecipe, tasks: list[ShardTask], on_poll: Callable[[], None]
    ) -> None:
        """Make and commit shards whose inputs are SourceSequences: see `attengait.store.shards.RunShards`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcesses:
    """Any flow backend, or silhouettes, in worker processes: each reads, computes and writes one shard at a time."""

    num_workers: int

    def check(self, recipe: Recipe | SilhouetteRecipe) -> None:
        """See Engine."""
        if isinstance(recipe, Recipe):
            make_backend(recipe.flow, recipe.farneback)

    def versions(self, sequences: Sequence[SourceSequence]) -> dict[str, str]:
        """See Engine."""
        return {}

    def run_shards(
        self, recipe: Recipe | SilhouetteRecipe, tasks: list[ShardTask], on_poll: Callable[[], None]
    ) -> None:
        """See Engine."""
        WorkerPool(compute=partial(frames_and_report, recipe=recipe), num_workers=self.num_workers)(tasks, on_poll)


def frames_and_report(
    sequence: SourceSequence, *, recipe: Recipe | SilhouetteRecipe
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """The pictures of a sequence, uint8 [n, H, W, C], and its report."""
    result = recipe.images(sequence)
    return result.images, report_entries(sequence, result, recipe)


def report_entries(
    sequence: SourceSequence, result: SequenceResult, recipe: Recipe | SilhouetteRecipe
) -> list[dict[str, Any]]:
    """One entry of the report for each reason to skip something of a sequence."""
    entries: list[dict[str, Any]] = []
    for skip in result.skipped:
        entry: dict[str, Any] = {"where": sequence.name, "reason": skip.reason}
        if skip.reason != too_few(recipe.min_frames):  # which is about the whole sequence
            entry["frames"] = list(skip.frames)
        if skip.files:
            entry["files"] = list(skip.files)
        if skip.detail:
            entry["detail"] = skip.detail
        entries.append(entry)
    return entries
