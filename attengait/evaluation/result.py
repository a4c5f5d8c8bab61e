"""What an evaluation found: rank-1 per condition and probe view, its means, and the table of them as text.

A figure is a fraction of 1, or None where there was nothing to measure; means are over the figures present.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_ABSENT = "–"

Figures = dict[str, dict[str, float | None]]
"""By condition ("nm") and probe view ("090")."""


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
    mean_average_precision: Figures | None = None
    """Only where the protocol defines it."""
    num_subjects: int
    """Subjects with a probe or a gallery item."""
    num_gallery_subjects: int
    num_probes: int
    num_gallery: int
    num_tied: int
    """Probes that have a match and an item of another subject at the same distance. They count with the mean over all
    orders of the tied items."""
    num_unmatched: int
    """Probes that are compared, but have no gallery item of their subject."""
    num_missing: int
    """Sequences of the protocol that are not there: one is expected of each subject, walk and view."""
    num_repeated: int
    """Rows whose subject, walk and view an earlier row has, too. Each row counts."""
    num_unused: int
    """Sequences of walks that the protocol does not use."""
    missing: tuple[str, ...]
    """What is not there, one phrase each."""
    precision: str | None = None
    """What the embeddings were computed in, such as fp32; None where they do not say it."""
    remarks: tuple[str, ...] = ()
    """How what is unmatched, repeated or unused was counted, one phrase each."""

    @property
    def chance(self) -> float | None:
        """The rank-1 of guessing: 1 / number of gallery subjects."""
        return 1 / self.num_gallery_subjects if self.num_gallery_subjects else None

    @property
    def mean(self) -> float | None:
        """The headline figure: the mean over conditions of the mean rank-1 over probe views."""
        return mean_of_present(mean_of_present(views.values()) for views in self.rank1.values())

    @property
    def title(self) -> str:
        """What the table shows."""
        return f"{self.protocol}: rank-1 in %, excluding {self.leaves_out}, distance {self.distance}"

    @property
    def headings(self) -> list[str]:
        """Of the table's columns: probe view, the conditions and, where there is one, each condition's mAP."""
        return ["probe view", *self._columns]

    @property
    def rows(self) -> list[list[str]]:
        """The table's rows: one for each probe view, and the means. Figures are in percent."""
        columns = self._columns
        names = dict.fromkeys(view for views in columns.values() for view in views)
        rows = [[name, *(_percent(views[name]) for views in columns.values())] for name in names]
        return [*rows, ["mean", *(_percent(mean_of_present(views.values())) for views in columns.values())]]

    @property
    def notes(self) -> list[str]:
        """What belongs below the table: the headline figure, chance, how many were compared, what is missing."""
        ties = f"{self.num_tied} probes with a match and another person at the same distance"
        return [
            f"mean over conditions {_percent(self.mean)}, chance level {_percent(self.chance)}",
            f"{self.num_subjects} subjects, {self.num_probes} probes, {self.num_gallery} gallery items",
            f"{ties}: the mean over all orders" if self.num_tied else ties,
            *self.missing,
            *self.remarks,
        ]

    def __str__(self) -> str:
        """The table as plain text, as the columns of a terminal or a notebook show it."""
        lines = [self.headings, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.headings))]
        table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
        return "\n".join([self.title, "", *table, "", *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """A dictionary for `json.dumps`: figures by condition (views, mean), mean, counts, missing, remarks."""
        result: dict[str, Any] = {
            "protocol": self.protocol,
            "distance": self.distance,
            "precision": self.precision,
            "rank1": _with_means(self.rank1),
        }
        if self.mean_average_precision is not None:
            result["mean_average_precision"] = _with_means(self.mean_average_precision)
        result["mean"] = self.mean
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
    def _columns(self) -> Figures:
        """By heading and probe view."""
        precision = self.mean_average_precision or {}
        return self.rank1 | {f"{condition} mAP": views for condition, views in precision.items()}


def _with_means(figures: Figures) -> dict[str, Any]:
    return {
        condition: {"views": dict(views), "mean": mean_of_present(views.values())}
        for condition, views in figures.items()
    }


def _percent(figure: float | None) -> str:
    return _ABSENT if figure is None else f"{100 * figure:.1f}"
