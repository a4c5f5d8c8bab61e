"""The ROC and the DET curve of a verification, by matplotlib (extra `report`).

FAR is the share of pairs of two people that are accepted, TAR that of pairs of one person, FRR = 1 - TAR. Both are
drawn at the points that the JSON has. The DET curve has axes of normal deviates: there, distances that are normally
distributed give a straight line.
"""

from pathlib import Path
from statistics import NormalDist
from typing import Any

from attengait.errors import AttenGaitError
from attengait.evaluation.result import EvaluationResult, percent
from attengait.report.figure import new_figure, save_figure

_CURVE, _MARK, _GUESSING = "#1b6ca8", "#b3382c", "#9aa5b1"
_TICKS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
_MARKED_FAR = "0.001"


def draw_curves(result: EvaluationResult, path: Path) -> None:
    """Write both curves as a PNG. AttenGaitError where there is no verification, or matplotlib is missing."""
    save_figure(curves_figure(result), path)


def curves_figure(result: EvaluationResult) -> Any:
    """The matplotlib figure. Raises as `draw_curves`."""
    found = result.verification
    if found is None or found["equal_error_rate"] is None:
        raise AttenGaitError("curves cannot be drawn: there are no pairs of one person, or none of two")
    figure = new_figure(10, 4.8)
    roc, det = figure.subplots(1, 2)
    _draw_roc(roc, found)
    _draw_det(det, found)
    for axes in (roc, det):
        axes.grid(color="#e3e7eb", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8, frameon=False, loc="upper left" if axes is roc else "lower right")
    figure.suptitle(
        f"{result.protocol}, distance {result.distance}: {found['genuine_pairs']:,} pairs of one person, "
        f"{found['impostor_pairs']:,} of two",
        fontsize=9,
    )
    return figure


def _draw_roc(axes: Any, found: Any) -> None:
    far, tar = found["roc"]["far"], found["roc"]["tar"]
    axes.step(far, tar, where="post", color=_CURVE, label="ROC")
    axes.plot(far, far, color=_GUESSING, linewidth=1, linestyle="--", label="guessing")
    marked = found["tar_at_far"][_MARKED_FAR]
    if marked is not None:
        axes.plot(
            [float(_MARKED_FAR)], [marked], "o", color=_MARK, label=f"TAR {percent(marked)} % at FAR {_MARKED_FAR}"
        )
    rate = found["equal_error_rate"]
    if rate > 0:
        axes.plot([rate], [1 - rate], "s", color=_MARK, label=f"equal error rate {percent(rate)} %")
    axes.set_xscale("log")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("FAR", fontsize=8)
    axes.set_ylabel("TAR", fontsize=8)
    axes.set_title("ROC", fontsize=9, loc="left")


def _draw_det(axes: Any, found: Any) -> None:
    deviate = NormalDist().inv_cdf
    # 0 and 1 are infinitely far.
    points = [
        (deviate(far), deviate(frr))
        for far, frr in zip(found["det"]["far"], found["det"]["frr"], strict=True)
        if 0 < far < 1 and 0 < frr < 1
    ]
    axes.plot(*(zip(*points, strict=True) if points else ([], [])), color=_CURVE, label="DET")
    rate = found["equal_error_rate"]
    if 0 < rate < 1:
        axes.plot([deviate(rate)], [deviate(rate)], "s", color=_MARK, label=f"equal error rate {percent(rate)} %")
    values = [value for point in points for value in point] + [deviate(0.01), deviate(0.5)]
    lowest, highest = min(values) - 0.2, max(values) + 0.2
    axes.plot([lowest, highest], [lowest, highest], color=_GUESSING, linewidth=1, linestyle=":", label="FAR = FRR")
    ticks = [tick for tick in _TICKS if lowest <= deviate(tick) <= highest]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([deviate(tick) for tick in ticks], [f"{100 * tick:g} %" for tick in ticks])
    axes.set_xlim(lowest, highest)
    axes.set_ylim(lowest, highest)
    axes.set_xlabel("FAR (normal deviates)", fontsize=8)
    axes.set_ylabel("FRR (normal deviates)", fontsize=8)
    axes.set_title("DET", fontsize=9, loc="left")
