"""Figures by matplotlib (extra `report`), drawn without a screen."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attengait.errors import AttenGaitError, ParameterError, how_to_install
from attengait.system.files import check_target, write_atomically
from attengait.system.printable import printable

_NOTHING = "\u200b"
"""A space without width."""


def check_figure(path: Path, name: str, others: Iterable[str | Path | None] = ()) -> None:
    """Raise, before the work and not after it, when the file `path` of the option `name` could not be drawn.

    ParameterError where it is no PNG; AttenGaitError where there is no matplotlib; and as `check_target`.
    """
    if path.suffix.lower() != ".png":
        raise ParameterError(f"{name} is {path}, but must be a file that ends in .png")
    check_target(path, name, others)
    new_figure(1, 1)


def new_figure(width_inches: float, height_inches: float) -> Any:
    """An empty matplotlib figure. Raises AttenGaitError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise AttenGaitError(f"a plot needs matplotlib: {how_to_install('report')}") from None
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def as_it_is(text: object) -> str:
    """A name, so that matplotlib draws it as it is.

    It takes what is between dollar signs for a formula, and leaves out of a legend what is empty or begins with an
    underscore.
    """
    escaped = printable(text).replace("$", r"\$")
    return f"{_NOTHING}{escaped}" if not escaped or escaped.startswith("_") else escaped


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as a PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    write_atomically(path, picture.getvalue())
