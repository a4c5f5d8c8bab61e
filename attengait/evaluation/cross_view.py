"""OpenGait's cross-view gallery for CASIA-B: one gallery of all views and conditions.

Probes nm-01, bg-01 and cl-01 against the whole gallery nm-02, bg-02 and cl-02, leaving out for each probe the gallery
items of the same subject and view; rank-1 and mean average precision per condition and probe view. A probe without
another gallery item of its subject counts as wrong for rank-1 and is left out of the mean average precision, as in
OpenGait, which takes the protocol from "A Comprehensive Study on the Evaluation of Silhouette-based Gait Recognition"
(IEEE TBIOM, 2022). The result says how many such probes there are.
"""

import numpy as np
from numpy.typing import NDArray

from attengait.evaluation.coverage import coverage, some_names
from attengait.evaluation.distances import distance
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.result import EvaluationResult, Figures
from attengait.evaluation.retrieval import retrieval_metrics
from attengait.evaluation.roles import Roles

CROSS_VIEW = Roles(gallery=("nm-02", "bg-02", "cl-02"), probes={"nm": ("nm-01",), "bg": ("bg-01",), "cl": ("cl-01",)})


def evaluate_cross_view(embeddings: Embeddings, distance_name: str) -> EvaluationResult:
    """Rank-1 and mean average precision per condition and probe view; ParameterError for an unknown distance."""
    in_gallery = CROSS_VIEW.in_gallery(embeddings.sequences)
    in_probes = CROSS_VIEW.in_probes(embeddings.sequences)
    views = [str(view) for view in np.unique(embeddings.views[in_gallery | in_probes])]
    gallery = embeddings.select(in_gallery)
    rank1: Figures = {condition: {} for condition in CROSS_VIEW.probes}
    mean_average_precision: Figures = {condition: {} for condition in CROSS_VIEW.probes}
    is_unmatched = in_probes & ~_matched(embeddings, gallery)
    num_tied = 0
    for condition in CROSS_VIEW.probes:
        for view in views:
            at_view = CROSS_VIEW.in_probes(embeddings.sequences, condition) & (embeddings.views == view)
            probes = embeddings.select(at_view)
            left_out = (probes.subjects[:, None] == gallery.subjects) & (gallery.views == view)
            metrics = retrieval_metrics(
                distance(probes.features, gallery.features, distance_name),
                probes.subjects,
                gallery.subjects,
                left_out=left_out,
            )
            if metrics is not None:
                rank1[condition][view] = metrics.rank1_of_all
                mean_average_precision[condition][view] = metrics.mean_average_precision
                num_tied += int(metrics.is_tied.sum())
            else:
                # All probes are wrong, unless there is nothing that they could be taken for.
                rank1[condition][view] = None if left_out.all() else 0.0
                mean_average_precision[condition][view] = None
    covered = coverage(embeddings, CROSS_VIEW)
    return EvaluationResult(
        protocol="casia-b-cross-view",
        distance=distance_name,
        leaves_out="one's own walks at the identical view",
        rank1=rank1,
        mean_average_precision=mean_average_precision,
        num_subjects=len(np.unique(embeddings.subjects[in_gallery | in_probes])),
        num_gallery_subjects=len(np.unique(gallery.subjects)),
        num_probes=int(in_probes.sum()),
        num_gallery=len(gallery),
        num_tied=num_tied,
        num_unmatched=int(is_unmatched.sum()),
        num_missing=covered.num_missing,
        num_repeated=covered.num_repeated,
        num_unused=covered.num_unused,
        missing=covered.missing,
        remarks=(*_remarks(embeddings, is_unmatched), *covered.remarks),
    )


def _matched(probes: Embeddings, gallery: Embeddings) -> NDArray[np.bool_]:
    """[n]: which have a gallery item of their subject at another view."""
    views_of: dict[str, set[str]] = {}
    for subject, view in zip(gallery.subjects.tolist(), gallery.views.tolist(), strict=True):
        views_of.setdefault(subject, set()).add(view)
    pairs = zip(probes.subjects.tolist(), probes.views.tolist(), strict=True)
    return np.array([bool(views_of.get(subject, set()) - {view}) for subject, view in pairs], bool)


def _remarks(embeddings: Embeddings, is_unmatched: NDArray[np.bool_]) -> list[str]:
    """Which probes of each condition have no match, in words."""
    remarks = []
    for condition in CROSS_VIEW.probes:
        mask = is_unmatched & CROSS_VIEW.in_probes(embeddings.sequences, condition)
        if mask.any():
            remarks.append(
                f"{mask.sum()} {condition} probes have no gallery item of their subject at another view, so they count "
                f"as wrong for rank-1 and are left out of mAP: {some_names(embeddings.names(mask))}"
            )
    return remarks
