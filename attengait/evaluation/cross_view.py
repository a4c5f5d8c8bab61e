"""OpenGait's cross-view gallery for CASIA-B: one gallery of all views and conditions.

Probes nm-01, bg-01 and cl-01 against the whole gallery nm-02, bg-02 and cl-02, leaving out for each probe the gallery
items of the same subject and view; rank-1 and mean average precision per condition and probe view. A probe without
another gallery item of its subject is not counted, as in OpenGait, which takes the protocol from "A Comprehensive Study
on the Evaluation of Silhouette-based Gait Recognition" (IEEE TBIOM, 2022).
"""

import numpy as np

from attengait.evaluation.casia_b import phrases_about_absent
from attengait.evaluation.distances import distance
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.result import EvaluationResult, Figures
from attengait.evaluation.retrieval import retrieval_metrics

GALLERY_WALKS = ("nm-02", "bg-02", "cl-02")
PROBE_WALKS = {"nm": ("nm-01",), "bg": ("bg-01",), "cl": ("cl-01",)}


def evaluate_cross_view(embeddings: Embeddings, distance_name: str) -> EvaluationResult:
    """Rank-1 and mean average precision per condition and probe view; ParameterError for an unknown distance."""
    views = [str(view) for view in np.unique(embeddings.views)]
    in_gallery = np.isin(embeddings.sequences, GALLERY_WALKS)
    in_probes = np.isin(embeddings.sequences, [walk for walks in PROBE_WALKS.values() for walk in walks])
    gallery = embeddings.select(in_gallery)
    rank1: Figures = {condition: {} for condition in PROBE_WALKS}
    mean_average_precision: Figures = {condition: {} for condition in PROBE_WALKS}
    missing = phrases_about_absent("gallery", gallery, GALLERY_WALKS, ())
    for condition, walks in PROBE_WALKS.items():
        missing += phrases_about_absent(
            f"{condition} probe", embeddings.select(np.isin(embeddings.sequences, walks)), walks, views
        )
        for view in views:
            probes = embeddings.select(np.isin(embeddings.sequences, walks) & (embeddings.views == view))
            metrics = retrieval_metrics(
                distance(probes.features, gallery.features, distance_name),
                probes.subjects,
                gallery.subjects,
                left_out=(probes.subjects[:, None] == gallery.subjects) & (gallery.views == view),
            )
            rank1[condition][view] = metrics.rank1 if metrics else None
            mean_average_precision[condition][view] = metrics.mean_average_precision if metrics else None
            if len(probes) and len(gallery) and (metrics is None or metrics.num_probes < len(probes)):
                num_alone = len(probes) - (metrics.num_probes if metrics else 0)
                missing.append(f"{num_alone} {condition} probes of view {view} have no gallery item at another view")
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
        missing=tuple(missing),
    )
