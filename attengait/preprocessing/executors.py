"""What runs the shards of a store, and in which processes: an Executor.

Here are processes of this machine. GPUs are in `attengait.pipelines.preprocess.gpus`; a cluster would be another one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from attengait.datasets.inputs import check_unchanged
from attengait.datasets.source import SourceSequence
from attengait.errors import ParameterError
from attengait.preprocessing.recipe import Recipe
from attengait.store.shards import ShardTask, write_shard
from attengait.system.memory import keep_freed_memory
from attengait.system.workers import run_in_workers


class Executor(Protocol):
    """Runs a recipe on the sequences of some shards."""

    def check(self, recipe: Recipe) -> None:
        """Raise AttenGaitError or ParameterError, in one sentence, when it cannot run the recipe here."""
        ...

    def versions(self, sequences: Sequence[SourceSequence]) -> dict[str, str]:
        """Versions of further packages that may change the bytes, beside the libraries that are always recorded."""
        ...

    def run(self, recipe: Recipe, tasks: list[ShardTask], on_poll: Callable[[], None]) -> None:
        """Make and commit shards whose inputs are SourceSequences: see `attengait.store.shards.RunShards`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalProcesses:
    """Any recipe, in worker processes of this machine: each reads, computes and writes one shard at a time."""

    num_workers: int

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ParameterError(f"workers is {self.num_workers}, but must be at least 1")

    def check(self, recipe: Recipe) -> None:
        """See Executor."""
        recipe.check()

    def versions(self, sequences: Sequence[SourceSequence]) -> dict[str, str]:
        """See Executor."""
        return {}

    def run(self, recipe: Recipe, tasks: list[ShardTask], on_poll: Callable[[], None]) -> None:
        """See Executor. Raises AttenGaitError when a worker dies, and what one of them raises."""
        function = partial(_make_shard, recipe=recipe)
        run_in_workers(function, tasks, num_workers=min(self.num_workers, len(tasks)), on_poll=on_poll)


def _make_shard(task: ShardTask, recipe: Recipe) -> None:
    """Make one shard in a worker process."""
    keep_freed_memory()  # each frame takes what the last one gave back
    write_shard(task, make=recipe.make, check=check_unchanged)
