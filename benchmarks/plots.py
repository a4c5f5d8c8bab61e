"""Reports as pictures, by matplotlib (extra `report`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attengait.benchmarks.report import Report
from attengait.report.figure import as_it_is, check_figure, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _OTHERS = "#1b6ca8", "#9aa5b1"


def check_plot(path: Path) -> None:
    """Raise ParameterError or AttenGaitError, before the work and not after it, when `path` could not be drawn."""
    check_figure(path, "plot")


def plot_rates(reports: Sequence[Report], path: Path, *, unit: str, ours: str) -> None:
    """Bars for the results of each report, with the range of all repeats.

    `unit` is the key of the medians, such as clips_per_s; results whose name begins with `ours` stand out.
    """
    num_rows = [len(report["results"]) for report in reports]
    figure = new_figure(9, sum(0.9 + 0.26 * n for n in num_rows))
    panels = figure.subplots(len(reports), 1, squeeze=False, height_ratios=[3 + n for n in num_rows])[:, 0]
    for axes, report in zip(panels, reports, strict=True):
        rows = report["results"]
        values = [row[unit] for row in rows]
        whiskers = [[row[unit] - row["min"] for row in rows], [row["max"] - row[unit] for row in rows]]
        colours = [_OURS if row["name"].startswith(ours) else _OTHERS for row in rows]
        axes.barh(range(len(rows)), values, color=colours, xerr=whiskers, error_kw={"capsize": 2, "elinewidth": 0.9})
        axes.set_yticks(range(len(rows)), [as_it_is(row["name"]) for row in rows])
        axes.invert_yaxis()
        axes.margins(y=0.02)
        axes.set_xlim(0, 1.12 * max(row["max"] for row in rows))
        for y, row in enumerate(rows):
            place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
            axes.annotate(f"{row[unit]:,.0f}", (row["max"], y), **place)
        axes.set_title(as_it_is(_title(report)), fontsize=9, loc="left")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel(unit.replace("_per_", "/") + ": median, and the range of all repeats")
        _plain(axes)
    save_figure(figure, path)


def plot_curves(report: Report, path: Path, *, x: str, curves: Sequence[tuple[str, str, float | None]]) -> None:
    """A panel for each of `curves` (key of the results, label, limit or None) over the key `x`, logarithmic."""
    rows = report["results"]
    figure = new_figure(9, 2.3 * -(-len(curves) // 2) + 0.4)
    panels = figure.subplots(-(-len(curves) // 2), 2, squeeze=False).ravel()
    for axes, (key, label, limit) in zip(panels, curves, strict=False):
        axes.plot([row[x] for row in rows], [row[key] for row in rows], marker="o", markersize=4, color=_OURS)
        if limit is not None:
            axes.axhline(limit, color="#b3382c", linewidth=1.5, linestyle="--")
        axes.set_xscale("log")
        axes.set_ylim(0, 1.15 * max([row[key] for row in rows] + ([limit] if limit is not None else [])))
        axes.set_xlabel(x)
        axes.set_title(label, fontsize=9, loc="left")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        _plain(axes)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    save_figure(figure, path)


def _title(report: Report) -> str:
    about = report["machine"]
    store = report.get("store", {})
    name = f"{Path(store['path']).name}, codec {store['codec']}; " if store else ""
    return f"{name}{about['cpu']}, {about['cores']} cores"


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(8)
