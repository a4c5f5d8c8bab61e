"""The CASIA-B protocol. The caller chooses the test subjects and gives only those.

Gallery: walks nm-01 to nm-04. Probes: NM nm-05, nm-06; BG bg-01, bg-02; CL cl-01, cl-02. For each condition and probe
view v, for each gallery view u other than v: rank-1 of all probes of view v against the gallery of view u only. The
mean over the gallery views is the cell (condition, v), the mean over the views is the condition, the mean over the
conditions is the headline figure.

If data are missing: a cell without probes, or without a gallery at any other view, is None. Means are over the cells
that are not None. If a probe's subject has no gallery item at view u, the probe still counts there, as a wrong
answer; so do the original and OpenGait. The result says how many such probes there are.
"""

import numpy as np
from numpy.typing import NDArray

from attengait.evaluation.coverage import coverage, some_names
from attengait.evaluation.distances import distance
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.result import EvaluationResult, Figures, mean_of_present
from attengait.evaluation.retrieval import exact_mean, expected_rank1
from attengait.evaluation.roles import Roles

CASIA_B = Roles(
    gallery=("nm-01", "nm-02", "nm-03", "nm-04"),
    probes={"nm": ("nm-05", "nm-06"), "bg": ("bg-01", "bg-02"), "cl": ("cl-01", "cl-02")},
)


def evaluate_casia_b(embeddings: Embeddings, distance_name: str) -> EvaluationResult:
    """Rank-1 per condition and probe view; ParameterError for an unknown distance."""
    in_gallery = CASIA_B.in_gallery(embeddings.sequences)
    in_probes = CASIA_B.in_probes(embeddings.sequences)
    views = [str(view) for view in np.unique(embeddings.views[in_gallery | in_probes])]
    found = _Found(embeddings, distance_name)
    rank1: Figures = {condition: {} for condition in CASIA_B.probes}
    for view in views:
        at_view = embeddings.views == view
        galleries = [in_gallery & (embeddings.views == other) for other in views if other != view]
        rights = [found.right(in_probes & at_view, gallery) for gallery in galleries if gallery.any()]
        for condition in CASIA_B.probes:
            probes = CASIA_B.in_probes(embeddings.sequences, condition) & at_view
            rank1[condition][view] = mean_of_present(
                exact_mean(right[probes]) if probes.any() else None for right in rights
            )
    covered = coverage(embeddings, CASIA_B)
    gallery_views = np.unique(embeddings.views[in_gallery])
    alone = [f"no gallery at another view for probes of view {view}" for view in gallery_views[:1]]
    return EvaluationResult(
        protocol="casia-b",
        distance=distance_name,
        leaves_out="identical views",
        rank1=rank1,
        num_subjects=len(np.unique(embeddings.subjects[in_gallery | in_probes])),
        num_gallery_subjects=len(np.unique(embeddings.subjects[in_gallery])),
        num_probes=int(in_probes.sum()),
        num_gallery=int(in_gallery.sum()),
        num_tied=int(found.is_tied.sum()),
        num_unmatched=int(found.is_unmatched.sum()),
        num_missing=covered.num_missing,
        num_repeated=covered.num_repeated,
        num_unused=covered.num_unused,
        missing=(*covered.missing, *(alone if len(gallery_views) == 1 else [])),
        remarks=(*found.remarks(), *covered.remarks),
    )


class _Found:
    """What comparing with one gallery view after another tells about each embedding [n] as a probe."""

    def __init__(self, embeddings: Embeddings, distance_name: str) -> None:
        self._embeddings = embeddings
        self._distance_name = distance_name
        self.is_tied = np.zeros(len(embeddings), bool)
        """Whether a match and another subject are equally near, at one gallery view or more."""
        self._num_compared = np.zeros(len(embeddings), int)
        self._num_matched = np.zeros(len(embeddings), int)

    @property
    def is_unmatched(self) -> NDArray[np.bool_]:
        """Which are compared, but have no gallery item of their subject at any of the views."""
        is_unmatched: NDArray[np.bool_] = (self._num_compared > 0) & (self._num_matched == 0)
        return is_unmatched

    def right(self, probes: NDArray[np.bool_], gallery: NDArray[np.bool_]) -> NDArray[np.float64]:
        """[n]: for each masked probe the expected rank-1 against the masked gallery items, of which there are some."""
        features, subjects = self._embeddings.features, self._embeddings.subjects
        table = distance(features[probes], features[gallery], self._distance_name)
        right, is_tied = expected_rank1(table, subjects[probes], subjects[gallery])
        self.is_tied[probes] |= is_tied
        self._num_compared[probes] += 1
        self._num_matched[probes] += np.isin(subjects[probes], subjects[gallery])
        of_all = np.full(len(subjects), np.nan)
        of_all[probes] = right
        return of_all

    def remarks(self) -> list[str]:
        """Which probes count as wrong because the gallery lacks their subject, in words."""
        partly = (self._num_matched > 0) & (self._num_matched < self._num_compared)
        return [
            f"{mask.sum()} probes whose subject has no gallery item at {where} other views count as wrong there: "
            f"{some_names(self._embeddings.names(mask))}"
            for mask, where in ((self.is_unmatched, "any of the"), (partly, "some of the"))
            if mask.any()
        ]
