"""The CASIA-B protocol. The caller chooses the test subjects and gives only those.

Gallery: walks nm-01 to nm-04. Probes: NM nm-05, nm-06; BG bg-01, bg-02; CL cl-01, cl-02. For each condition and probe
view v, for each gallery view u other than v: rank-1 of all probes of view v against the gallery of view u only. The
mean over the gallery views is the cell (condition, v), the mean over the views is the condition, the mean over the
conditions is the headline figure.

If data are missing: a cell without probes, or without a gallery at any other view, is None. Means are over the cells
that are not None. If a probe's subject has no gallery item at view u, the probe still counts there, as a wrong
answer; so do the original and OpenGait.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attengait.evaluation.distances import distance
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.result import EvaluationResult, Figures, mean_of_present

GALLERY_WALKS = ("nm-01", "nm-02", "nm-03", "nm-04")
PROBE_WALKS = {"nm": ("nm-05", "nm-06"), "bg": ("bg-01", "bg-02"), "cl": ("cl-01", "cl-02")}


def evaluate_casia_b(embeddings: Embeddings, distance_name: str) -> EvaluationResult:
    """Rank-1 per condition and probe view; ParameterError for an unknown distance."""
    views = [str(view) for view in np.unique(embeddings.views)]
    in_gallery = np.isin(embeddings.sequences, GALLERY_WALKS)
    in_condition = {name: np.isin(embeddings.sequences, walks) for name, walks in PROBE_WALKS.items()}
    rank1: Figures = {condition: {} for condition in PROBE_WALKS}
    for view in views:
        others = [other for other in views if other != view]
        galleries = [in_gallery & (embeddings.views == other) for other in others]
        for condition, in_probes in in_condition.items():
            probes = in_probes & (embeddings.views == view)
            rank1[condition][view] = mean_of_present(
                _rank1(embeddings, probes, gallery, distance_name) for gallery in galleries
            )
    in_probes = np.logical_or.reduce(list(in_condition.values()))
    return EvaluationResult(
        protocol="casia-b",
        distance=distance_name,
        leaves_out="identical views",
        rank1=rank1,
        num_subjects=len(np.unique(embeddings.subjects[in_gallery | in_probes])),
        num_gallery_subjects=len(np.unique(embeddings.subjects[in_gallery])),
        num_probes=int(in_probes.sum()),
        num_gallery=int(in_gallery.sum()),
        missing=tuple(_missing(embeddings, views, in_gallery, in_condition)),
    )


def _rank1(
    embeddings: Embeddings, probes: NDArray[np.bool_], gallery: NDArray[np.bool_], distance_name: str
) -> float | None:
    """The share of the masked `probes` whose nearest masked `gallery` item is of their subject."""
    if not probes.any() or not gallery.any():
        return None
    nearest = distance(embeddings.features[probes], embeddings.features[gallery], distance_name).argmin(axis=1)
    return float(np.mean(embeddings.subjects[gallery][nearest] == embeddings.subjects[probes]))


def _missing(
    embeddings: Embeddings,
    views: Sequence[str],
    in_gallery: NDArray[np.bool_],
    in_condition: dict[str, NDArray[np.bool_]],
) -> list[str]:
    """What the table lacks, in words."""
    gallery = embeddings.select(in_gallery)
    phrases = phrases_about_absent("gallery", gallery, GALLERY_WALKS, views)
    gallery_views = np.unique(gallery.views)
    if len(gallery_views) == 1:
        phrases.append(f"no gallery at another view for probes of view {gallery_views[0]}")
    for condition, in_probes in in_condition.items():
        probes = embeddings.select(in_probes)
        phrases += phrases_about_absent(f"{condition} probe", probes, PROBE_WALKS[condition], views)
    return phrases


def phrases_about_absent(what: str, items: Embeddings, walks: Sequence[str], views: Sequence[str]) -> list[str]:
    """Say at which of `views` there are no `items`, or that there are none at all."""
    absent = [view for view in views if view not in items.views]
    if not len(items):
        return [f"no {what} at all ({', '.join(walks)})"]
    return [f"no {what} at view {', '.join(absent)}"] if absent else []
