"""What an evaluation found: figures by condition and probe view, their means, and the table of them as text.

A figure is a fraction of 1, or None where there was nothing to measure; means are over the figures present.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_ABSENT = "–"
_HEADINGS = {
    "rank1_all_views": "view pairs, rank-1",
    "rank1_other_views": "other views, rank-1",
}

Figures = dict[str, dict[str, float | None]]
"""By condition ("nm") and probe view ("090"), or by condition and figure ("rank1")."""


def mean_of_present(figures: Iterable[float | None]) -> float | None:
    """The mean of the figures that are not None; None if there are none."""
    present = [figure for figure in figures if figure is not None]
    return sum(present) / len(present) if present else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """One protocol's figures for one set of embeddings. `print` shows the table.

    >>> result.protocol, sorted(result.rank1)
    ('casia-b', ['bg', 'cl', 'nm'])
    """

    protocol: str
    distance: str
    leaves_out: str
    """What the protocol keeps from being compared, like "identical views"."""
    rank1: Figures
    """By condition and probe view; empty where the protocol compares all views together."""
    mean_average_precision: Figures | None = None
    """By condition and probe view, too, only where the protocol defines it."""
    conditions: Figures = field(default_factory=dict)
    """By condition and figure: rank1, rank5, ..., mAP, mINP; means over the probe views."""
    by_view: Mapping[str, Figures] = field(default_factory=dict)
    """By condition, probe view and figure."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """The headline figures: means over the conditions, or those of the condition that is the protocol's headline."""
    headline: str = "mean over conditions"
    """What `metrics` is of."""
    columns: tuple[str, ...] = ()
    """The figures across the table, where its rows are conditions. Empty: its rows are probe views."""
    num_subjects: int
    """Subjects with a probe or a gallery item."""
    num_gallery_subjects: int
    num_probes: int
    num_gallery: int
    num_tied: int
    """Probes that have a match and an item of another subject at the same distance. They count with the mean over all
    orders of the tied items."""
    num_unmatched: int
    """Probes that are compared in a condition, but have no gallery item of their subject there."""
    num_missing: int
    """Sequences of the protocol that are not there: one is expected of each subject, walk and view."""
    num_repeated: int
    """Rows whose subject, walk and view an earlier row has, too. Each row counts."""
    num_unused: int
    """Sequences that are neither probe nor gallery."""
    missing: tuple[str, ...]
    """What is not there, one phrase each."""
    precision: str | None = None
    """What the embeddings were computed in, such as fp32; None where they do not say it."""
    remarks: tuple[str, ...] = ()
    """How what is unmatched, repeated or unused was counted, one phrase each."""
    intervals: Mapping[str, Any] | None = None
    """Of a bootstrap over subjects: level, resamples, seed, and the ends by figure and by condition and figure."""
    verification: Mapping[str, Any] | None = None
    """Equal error rate, TAR at some FAR, and the curves, where that was asked for."""

    @property
    def chance(self) -> float | None:
        """The rank-1 of guessing: 1 / number of gallery subjects."""
        return 1 / self.num_gallery_subjects if self.num_gallery_subjects else None

    @property
    def mean(self) -> float | None:
        """The headline figure: the mean over conditions of the mean rank-1 over probe views, or of all probes."""
        if self.metrics:
            return self.metrics["rank1"]
        return mean_of_present(mean_of_present(views.values()) for views in self.rank1.values())

    @property
    def title(self) -> str:
        """What the table shows."""
        left_out = f", excluding {self.leaves_out}" if self.leaves_out else ""
        figures = "figures" if self.columns else "rank-1"
        return f"{self.protocol}: {figures} in %{left_out}, distance {self.distance}"

    @property
    def headings(self) -> list[str]:
        """Of the table's columns: probe view and the conditions, or condition and the figures."""
        if self.columns:
            return ["condition", *(_HEADINGS.get(name, name.replace("rank", "rank-")) for name in self.columns)]
        return ["probe view", *self._views]

    @property
    def rows(self) -> list[list[str]]:
        """The table's rows: one for each probe view or condition, and the headline. Figures are in percent."""
        if self.columns:
            rows = [
                [condition, *(percent(figures[name]) for name in self.columns)]
                for condition, figures in self.conditions.items()
            ]
            if self.headline in self.conditions or len(self.conditions) < 2:
                return rows
            return [*rows, ["mean", *(percent(self.metrics[name]) for name in self.columns)]]
        columns = self._views
        names = dict.fromkeys(view for views in columns.values() for view in views)
        rows = [[name, *(percent(views.get(name)) for views in columns.values())] for name in names]
        return [*rows, ["mean", *(percent(mean_of_present(views.values())) for views in columns.values())]]

    @property
    def notes(self) -> list[str]:
        """What belongs below the table: the headline figure, chance, how many were compared, what is missing."""
        ties = f"{self.num_tied} probes with a match and another person at the same distance"
        figure = "" if not self.columns else " rank-1"
        return [
            f"{self.headline}{figure} {percent(self.mean)}, chance level {percent(self.chance)}",
            *self._interval_notes,
            *self._verification_notes,
            f"{self.num_subjects} subjects, {self.num_probes} probes, {self.num_gallery} gallery items",
            f"{ties}: the mean over all orders" if self.num_tied else ties,
            *self.missing,
            *self.remarks,
        ]

    def __str__(self) -> str:
        """The table as plain text, as the columns of a terminal or a notebook show it."""
        return "\n".join([self.title, "", *plain_table(self.headings, self.rows), "", *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """A dictionary for `json.dumps`: figures by condition (views, mean), mean, counts, missing, remarks."""
        result: dict[str, Any] = {
            "protocol": self.protocol,
            "distance": self.distance,
            "precision": self.precision,
            "metrics": dict(self.metrics),
            "conditions": {
                condition: dict(figures) | ({"views": self.by_view[condition]} if condition in self.by_view else {})
                for condition, figures in self.conditions.items()
            },
        }
        if self.rank1:
            result["rank1"] = _with_means(self.rank1)
        if self.mean_average_precision is not None:
            result["mean_average_precision"] = _with_means(self.mean_average_precision)
        result["mean"] = self.mean
        for name in ("intervals", "verification"):
            if getattr(self, name) is not None:
                result[name] = dict(getattr(self, name))
        result["counts"] = {
            "subjects": self.num_subjects,
            "gallery_subjects": self.num_gallery_subjects,
            "probes": self.num_probes,
            "gallery": self.num_gallery,
            "tied_probes": self.num_tied,
            "unmatched_probes": self.num_unmatched,
            "missing_sequences": self.num_missing,
            "repeated_rows": self.num_repeated,
            "unused_sequences": self.num_unused,
        }
        result["missing"] = list(self.missing)
        result["remarks"] = list(self.remarks)
        return result

    @property
    def _views(self) -> Figures:
        """By heading and probe view."""
        precision = self.mean_average_precision or {}
        return self.rank1 | {f"{condition} mAP": views for condition, views in precision.items()}

    @property
    def _interval_notes(self) -> list[str]:
        if self.intervals is None:
            return []
        shown = self.columns or ("rank1",)
        ends = self.intervals["metrics"]
        texts = []
        for name in shown:
            low, high = ends[name]
            figures = _ABSENT if low is None else f"{percent(low)} to {percent(high)}"
            texts.append(f"{name.replace('rank', 'rank-')} {figures}")
        level = f"{100 * self.intervals['level']:.0f} % intervals over {self.intervals['subjects']} subjects"
        return [f"{level}, {self.intervals['resamples']} resamples: {', '.join(texts)}"]

    @property
    def _verification_notes(self) -> list[str]:
        if self.verification is None:
            return []
        if self.verification["equal_error_rate"] is None:
            return ["verification: there are no pairs of one person, or none of two"]
        found = self.verification
        rates = ", ".join(f"TAR {percent(tar)} at FAR {far}" for far, tar in found["tar_at_far"].items())
        pairs = f"{found['genuine_pairs']:,} pairs of one person and {found['impostor_pairs']:,} of two"
        return [f"verification: equal error rate {percent(found['equal_error_rate'])}, {rates}; {pairs}"]


def plain_table(headings: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table, the first column to the left and the others to the right."""
    lines = [headings, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    return ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]


def _with_means(figures: Figures) -> dict[str, Any]:
    return {
        condition: {"views": dict(views), "mean": mean_of_present(views.values())}
        for condition, views in figures.items()
    }


def percent(figure: float | None) -> str:
    """As tables show it; a dash where there is nothing to measure."""
    return _ABSENT if figure is None else f"{100 * figure:.1f}"
