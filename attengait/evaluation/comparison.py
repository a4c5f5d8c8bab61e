"""Two models on the same probes: is one of them better, or may the difference be chance?"""

from dataclasses import dataclass, replace
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from attengait.errors import AttenGaitError, require
from attengait.evaluation.blocks import Int64
from attengait.evaluation.coverage import coverage, some_names
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.fusion import matched
from attengait.evaluation.measure import Cells, Means, compare
from attengait.evaluation.options import EvaluationOptions
from attengait.evaluation.pairs import RowsOf
from attengait.evaluation.protocols import Prepared, check_names, prepare, unmatched
from attengait.evaluation.resampling import LEVEL, interval, paired_test, subjects_of_probes, why_no_interval
from attengait.evaluation.result import percent, plain_table
from attengait.evaluation.sides import is_reranked
from attengait.system.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

DEFAULT_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One figure of two models; fractions of 1, None where there is nothing to measure."""

    figure: str
    """rank1, mAP or another."""
    first: float | None
    second: float | None
    difference: float | None
    """The second minus the first."""
    interval: tuple[float | None, float | None]
    """Of the difference, from resamples of the subjects."""
    p_value: float | None
    """Two-sided, of a permutation test that exchanges the two models' results of whole subjects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What comparing two models found. `print` shows the table.

    >>> comparison = attengait.compare(embeddings, embeddings)
    >>> comparison.figures[0].figure, comparison.figures[0].difference, comparison.figures[0].p_value
    ('rank1', 0.0, 1.0)
    """

    protocol: str
    distance: str
    names: tuple[str, str]
    """Of the two models, as the table shows them."""
    figures: tuple[Difference, ...]
    num_subjects: int
    """Subjects with a probe that was compared, which are resampled."""
    num_probes: int
    num_gallery: int
    num_unmatched: int
    """Probes that are compared in a condition, but have no gallery item of their subject there."""
    num_missing: int
    """Sequences of the protocol that are not there."""
    num_unused: int
    """Sequences that are neither probe nor gallery."""
    num_tied: tuple[int, int]
    """Of each model: probes that have a match and an item of another subject at the same distance."""
    precision: tuple[str | None, str | None]
    """What the embeddings of each were computed in, such as fp32; None where they do not say it."""
    resamples: int
    seed: int
    remarks: tuple[str, ...]
    """What was left out or is missing, and how it was counted, one phrase each."""

    @property
    def title(self) -> str:
        """What the table shows."""
        return f"{self.protocol}: A is {self.names[0]}, B is {self.names[1]}; distance {self.distance}, in %"

    @property
    def headings(self) -> list[str]:
        """Of the table's columns."""
        return ["figure", "A", "B", "B - A", f"{100 * LEVEL:.0f} % interval", "p"]

    @property
    def rows(self) -> list[list[str]]:
        """One for each figure."""
        return [
            [
                each.figure.replace("rank", "rank-"),
                percent(each.first),
                percent(each.second),
                signed(each.difference),
                "–" if each.interval[0] is None else f"{signed(each.interval[0])} to {signed(each.interval[1])}",
                "–" if each.p_value is None else f"{each.p_value:.4f}",
            ]
            for each in self.figures
        ]

    @property
    def notes(self) -> list[str]:
        """What belongs below the table."""
        ties = " and ".join(f"{number} of {name}" for number, name in zip(self.num_tied, "AB", strict=True))
        orders = ": the mean over all orders" if any(self.num_tied) else ""
        first, second = (precision or "an unknown precision" for precision in self.precision)
        return [
            f"{self.num_subjects} subjects with compared probes, {self.num_probes} probes, {self.num_gallery} gallery "
            "items",
            f"interval: {self.resamples} resamples of the subjects; p: {self.resamples} random exchanges of whole "
            f"subjects between A and B; seed {self.seed}",
            f"probes with a match and another person at the same distance: {ties}{orders}",
            *([f"A was computed in {first} and B in {second}"] if first != second else []),
            *self.remarks,
        ]

    def __str__(self) -> str:
        """The table as plain text."""
        return "\n".join([self.title, "", *plain_table(self.headings, self.rows), "", *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """A dictionary for `json.dumps`."""
        return {
            "protocol": self.protocol,
            "distance": self.distance,
            "names": list(self.names),
            "precision": list(self.precision),
            "level": LEVEL,
            "resamples": self.resamples,
            "seed": self.seed,
            "figures": {
                each.figure: {
                    "first": each.first,
                    "second": each.second,
                    "difference": each.difference,
                    "interval": list(each.interval),
                    "p_value": each.p_value,
                }
                for each in self.figures
            },
            "counts": {
                "subjects": self.num_subjects,
                "probes": self.num_probes,
                "gallery": self.num_gallery,
                "tied_probes": list(self.num_tied),
                "unmatched_probes": self.num_unmatched,
                "missing_sequences": self.num_missing,
                "unused_sequences": self.num_unused,
            },
            "remarks": list(self.remarks),
        }


def check_two(options: EvaluationOptions) -> None:
    """Refuse options that make no sense for two models (ParameterError)."""
    require(options.fuse is None, "fuse", "embeddings", "left out where two models are compared")
    require(not options.verification, "verification", True, "left out where two models are compared")
    require(options.bootstrap > 0, "bootstrap", options.bootstrap, "at least 1 where two models are compared")


def compare_embeddings(
    first: Embeddings,
    second: Embeddings,
    *,
    protocol: str = "casia-b",
    distance: str = "l2",
    options: EvaluationOptions | None = None,
    names: tuple[str, str] = ("the first", "the second"),
    device: "torch.device | None" = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Compare two models by the headline figures of a protocol on the same sequences.

    Raises ParameterError for an unknown protocol or distance, and for options that make no sense for two models.
    Raises AttenGaitError where one of them lacks sequences of the other (unless `options.only_common`), where filters
    choose other probes or another gallery of each, or where the protocol fits no sequence.
    """
    check_names(protocol, distance)
    options = options or EvaluationOptions(bootstrap=DEFAULT_RESAMPLES)
    check_two(options)
    first, second, remarks = matched(first, second, only_common=options.only_common)
    plain = replace(options, only_common=False)  # those in common are chosen already
    each = [prepare(embeddings, protocol, plain) for embeddings in (first, second)]
    _check_same_sides(*each)
    found: list[Cells] = []
    for prepared in each:
        rows = RowsOf(
            prepared.embeddings,
            None,
            distance,
            options,
            is_reranked=is_reranked(prepared.rule, options),
            device=device,
            progress=progress,
        )
        found.append(compare(prepared.rule, prepared.embeddings.labels, prepared.sides, rows, progress=progress))
    covered = coverage(prepared.embeddings, prepared.rule, prepared.sides)
    means = Means(found[0], prepared.conditions, prepared.rule.headline)
    subjects: Int64 = np.unique(prepared.embeddings.subjects, return_inverse=True)[1]
    one, other = (means.overall(means.by_condition(means.by_view(*cells.sums()))) for cells in found)
    _, samples, p_values = paired_test((found[0], found[1]), means, subjects, options.bootstrap, options.seed)
    low, high = interval(samples)
    num_subjects = len(subjects_of_probes(found[0], subjects)[0])
    lacking = [name for k, name in enumerate(found[0].names) if isnan(low[k]) and not isnan(one[k])]
    return Comparison(
        protocol=protocol,
        distance=distance + rows.added,
        names=names,
        figures=tuple(
            Difference(
                figure=name,
                first=_number(one[k]),
                second=_number(other[k]),
                difference=_number(other[k] - one[k]),
                interval=(_number(low[k]), _number(high[k])),
                p_value=_number(p_values[k]),
            )
            for k, name in enumerate(found[0].names)
        ),
        num_subjects=num_subjects,
        num_probes=int(prepared.sides.probes.sum()),
        num_gallery=int(prepared.sides.gallery.sum()),
        num_unmatched=int(found[0].is_unmatched.sum()),
        num_missing=covered.num_missing,
        num_unused=covered.num_unused,
        num_tied=(int(found[0].is_tied.sum()), int(found[1].is_tied.sum())),
        precision=(first.precision, second.precision),
        resamples=options.bootstrap,
        seed=options.seed,
        remarks=(
            *remarks,
            *prepared.missing,
            *covered.missing,
            *unmatched(prepared, found[0]),
            *covered.remarks,
            *why_no_interval(num_subjects, lacking),
        ),
    )


def _check_same_sides(first: Prepared, second: Prepared) -> None:
    """Refuse two models whose columns choose other probes or another gallery (AttenGaitError)."""
    for one, other in zip(first.sides.each, second.sides.each, strict=True):
        for what, ours, theirs in (("probe", one.probes, other.probes), ("gallery item", one.gallery, other.gallery)):
            if (differs := ours != theirs).any():
                raise AttenGaitError(
                    f"the columns of the two embeddings differ: {differs.sum()} sequences are a {what} in one and not "
                    f"in the other, such as {some_names(first.embeddings.names(differs)[:1])}"
                )


def _number(value: np.floating) -> float | None:
    return None if isnan(value) else float(value)


def signed(figure: float | None) -> str:
    """A difference as tables show it; a dash where there is nothing to measure."""
    return "–" if figure is None else f"{100 * figure:+.1f}"
