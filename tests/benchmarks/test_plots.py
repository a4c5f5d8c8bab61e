"""Reports as pictures: every bar and curve is there, and what cannot be drawn is said before any work."""

import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from attengait.benchmarks.plots import check_plot, plot_curves, plot_rates
from attengait.errors import AttenGaitError, ParameterError

MACHINE = {"cpu": "abacus", "cores": 1, "memory_gib": 1, "load": 0.0}
BLUE, RED = (27, 108, 168), (179, 56, 44)


def num_runs(path: Path, colour: tuple[int, int, int], axis: int) -> int:
    """How many separate bands of rows (axis 1) or columns (axis 0) have pixels of a colour."""
    picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    has = (picture == colour).all(axis=2).any(axis=axis)
    return int(has[0]) + int((~has[:-1] & has[1:]).sum())


def test_each_of_ours_is_a_bar_in_our_colour(tmp_path: Path) -> None:
    names = ("gather", "stream", "others", "stream, cold")
    rows = [{"name": name, "clips_per_s": 50.0, "min": 40.0, "max": 70.0} for name in names]
    report = {"machine": MACHINE, "store": {"path": "a/s.zarr", "codec": "none"}, "results": rows}
    plot_rates([report, report], tmp_path / "rates.png", unit="clips_per_s", ours="stream")
    assert num_runs(tmp_path / "rates.png", BLUE, axis=1) == 4


def test_curves_have_a_panel_each_and_limits_where_there_are_any(tmp_path: Path) -> None:
    rows = [{"sequences": n, "open_s": n / 1e4, "clips_per_s": 7.0} for n in (1000, 10000)]
    curves = [("open_s", "s to open", 1.0), ("clips_per_s", "clips/s", None)]
    plot_curves({"results": rows}, tmp_path / "curves.png", x="sequences", curves=curves)
    assert num_runs(tmp_path / "curves.png", RED, axis=1) == 1
    middle = cv2.imread(str(tmp_path / "curves.png")).shape[1] // 2
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "curves.png")), cv2.COLOR_BGR2RGB)
    for half in (picture[:, :middle], picture[:, middle:]):
        assert np.any((half == BLUE).all(axis=2))


@pytest.mark.parametrize(("path", "error"), [("rates.pdf", ParameterError), ("no/rates.png", AttenGaitError)])
def test_where_no_picture_can_be_written_is_said_first(tmp_path: Path, path: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=re.escape(path)):
        check_plot(tmp_path / path)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(AttenGaitError, match=r"\.\[report\]"):
        check_plot(tmp_path / "rates.png")
