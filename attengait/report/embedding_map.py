"""Embeddings in two dimensions, by t-SNE: each sequence is a point, coloured by its subject and by its view.

Near points have embeddings that are near each other. Distances between groups that are far apart mean nothing.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, how_to_install, require
from attengait.evaluation import Embeddings
from attengait.report.figure import as_it_is, check_figure, new_figure, save_figure

MOST_COLOURS = 18
"""As many as can be told apart: matplotlib's tab20 without its greys. The subjects with the most sequences get one, and
the others are grey."""
PERPLEXITY = 30.0
"""t-SNE looks at about so many neighbours of a point."""
PCA_NUMBERS = 50
"""t-SNE begins with so many principal components, as is usual for embeddings of thousands of numbers."""

_GREY = "0.8"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingMap:
    """What was drawn."""

    points: NDArray[np.float64]
    """[k, 2]."""
    rows: NDArray[np.int64]
    """[k]: which embeddings they are of, in order."""
    coloured: list[str]
    """Subjects with a colour."""
    num_grey: int
    """Subjects without one."""


def map_embeddings(embeddings: Embeddings, out: str | Path, *, most: int = 5000, seed: int = 0) -> EmbeddingMap:
    """Draw embeddings by t-SNE as a PNG. The same as `attengait map`.

    Args:
        embeddings: at least three.
        out: the PNG.
        most: of more embeddings, so many are drawn at random.
        seed: of what is drawn at random. With the same seed, the picture is the same.

    Raises:
        ParameterError: an `out` that is no PNG, `most` below 3, a `seed` below 0 or not below 2^32.
        AttenGaitError: fewer than three embeddings, or scikit-learn or matplotlib is not installed.

    Source: van der Maaten and Hinton, "Visualizing data using t-SNE", 2008; scikit-learn's program.
    """
    out = Path(out)
    check_figure(out, "out")
    require(most >= 3, "most", most, "at least 3")
    require(0 <= seed < 2**32, "seed", seed, "at least 0 and below 2^32")
    if len(embeddings) < 3:
        raise AttenGaitError(f"there are {len(embeddings)} embeddings, but a map needs at least 3")
    rows = np.arange(len(embeddings))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    chosen = embeddings.select(rows)
    points = _two_dimensions(chosen.features.reshape(len(rows), -1), seed)
    figure = new_figure(13, 6.5)
    by_subject, by_view = figure.subplots(1, 2)
    coloured, num_grey = _draw(by_subject, points, chosen.subjects, "subjects")
    _draw(by_view, points, chosen.views, "views")
    of_all = "" if len(rows) == len(embeddings) else f" of {len(embeddings):,}"
    figure.suptitle(f"t-SNE of {len(rows):,}{of_all} sequences; near points have near embeddings", fontsize=10)
    save_figure(figure, out)
    return EmbeddingMap(points=points, rows=rows, coloured=coloured, num_grey=num_grey)


def _two_dimensions(features: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """[k, D] to [k, 2]."""
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ModuleNotFoundError:
        raise AttenGaitError(f"a map of embeddings needs scikit-learn: {how_to_install('report')}") from None
    fewer = min(PCA_NUMBERS, *features.shape)
    reduced = PCA(n_components=fewer, random_state=seed).fit_transform(features.astype(np.float64))
    # The perplexity must be below the number of points.
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    made: NDArray[np.float64] = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(reduced)
    return made


def _draw(axes: Any, points: NDArray[np.float64], names: NDArray[Any], what: str) -> tuple[list[str], int]:
    """Points in the colours of their names. Returns the names with a colour, and how many have none."""
    from matplotlib import colormaps

    counts = Counter(names.tolist())
    coloured = sorted(sorted(counts, key=lambda name: (-counts[name], name))[:MOST_COLOURS])
    num_grey = len(counts) - len(coloured)
    table = colormaps["tab20" if len(coloured) > 9 else "tab10"]
    colours = [colour for colour in map(table, range(table.N)) if np.ptp(colour[:3]) > 0.05]  # without the greys
    size = float(np.clip(6000 / len(points), 4, 40))
    rest = ~np.isin(names, coloured)
    if num_grey:
        axes.scatter(*points[rest].T, s=size, color=_GREY, linewidths=0, label=f"{num_grey} others")
    for name, colour in zip(coloured, colours, strict=False):
        axes.scatter(*points[names == name].T, s=size, color=colour, linewidths=0, label=as_it_is(name))
    axes.set_title(
        f"{len(counts)} {what}" + (f": {len(coloured)} in colour, {num_grey} grey" if num_grey else ""), fontsize=10
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    handles, labels = axes.get_legend_handles_labels()
    last = slice(1, None) if num_grey else slice(0, None)  # the others come last
    legend = axes.legend(
        [*handles[last], *handles[: last.start]],
        [*labels[last], *labels[: last.start]],
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        fontsize=7,
        frameon=False,
    )
    for handle in legend.legend_handles:
        handle.set_sizes([30])
    return coloured, num_grey
