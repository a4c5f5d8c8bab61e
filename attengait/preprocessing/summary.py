"""What a run of preprocessing would do, and what it did."""

from collections.abc import Sequence
from dataclasses import dataclass

from attengait.store.layout import report_location
from attengait.store.location import Location
from attengait.store.skipped import Reason, SkipCount, Skipped, count_skipped, lines_of, plural
from attengait.store.writer import WriteSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """What a run would do."""

    location: Location
    """The store."""
    num_sequences: int
    max_frames: int
    """Upper bound of the pictures."""
    num_shards: int
    shard_frames: int
    raw_bytes: int
    """Size of the frames without compression, with the shards' unused tails."""
    codec: str
    flow: str | None
    """The flow back end; None where no flow is computed."""
    skipped: Sequence[Skipped]
    """What was left out before any frame is read."""
    state: str
    """What is at `location`: "new", "begun" (with the shards done) or "finished"."""

    def __str__(self) -> str:
        size, sequences = f"{self.raw_bytes / 1e9:,.3f} GB", plural(self.num_sequences, "sequence")
        lines = [
            f"{self.location} ({self.state}): {sequences}, at most {plural(self.max_frames, 'frame')},",
            f"in {plural(self.num_shards, 'shard')} of {plural(self.shard_frames, 'frame')}, {size}"
            + (" before compression" if self.codec != "none" else ""),
        ]
        lines += [] if self.flow is None else [f"flow back end: {self.flow}"]
        return "\n".join(lines + lines_of(count_skipped(self.skipped)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessSummary:
    """What a run did. `attengait.open_store` takes it, as it says where the store is.

    >>> len(attengait.open_store(summary)) == summary.written.num_sequences
    True
    """

    location: Location
    """The store."""
    written: WriteSummary
    """Sequences, frames and shards; how many of them are new; seconds; what was skipped."""
    flow: str | None
    """The flow back end; None where no flow is computed."""

    @property
    def skipped(self) -> dict[Reason, SkipCount]:
        """How often what was left out, by reason; the details are in the report beside the store."""
        return count_skipped(self.written.skipped)

    @property
    def frames_per_second(self) -> float:
        """Pictures made by this run in each second of it."""
        return self.written.new_frames / self.written.seconds

    def __str__(self) -> str:
        written = self.written
        content = f"{self.location}: {plural(written.num_sequences, 'sequence')}, {plural(written.num_frames, 'frame')}"
        if written.already_finished:
            lines = [f"{content}; it was finished already, nothing was done"]
        else:
            reused = f", {written.num_shards_reused} of {written.num_shards} shards from earlier runs"
            lines = [
                f"{content} ({f'flow by {self.flow}, ' if self.flow else ''}{written.seconds:,.1f} s, "
                f"{self.frames_per_second:,.1f} frames/s{reused if written.num_shards_reused else ''})"
            ]
        lines += lines_of(self.skipped)
        return "\n".join(lines + ([f"details: {report_location(self.location)}"] if self.skipped else []))
