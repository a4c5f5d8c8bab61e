"""The distances that an evaluation asks for: of one model or two, re-ranked or not."""

from typing import TYPE_CHECKING

import numpy as np

from attengait.evaluation.blocks import DistanceRows, Int64, Rows, same_embeddings
from attengait.evaluation.distances import Float64
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.fusion import FARTHEST, FusedRows, same_pairs
from attengait.evaluation.options import EvaluationOptions
from attengait.evaluation.ranking import as_numpy
from attengait.evaluation.rerank import RerankedRows
from attengait.evaluation.sides import Sides
from attengait.system.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch


class RowsOf:
    """Makes the rows of distances that a comparison asks for: of one model or two, re-ranked or not."""

    def __init__(
        self,
        embeddings: Embeddings,
        other: Embeddings | None,
        distance: str,
        options: EvaluationOptions,
        *,
        is_reranked: bool,
        device: "torch.device | None" = None,
        progress: Progress = SILENT,
    ) -> None:
        """`other` are those of the other model, if two are fused: the same sequences in the same order."""
        self._embeddings = [embeddings, *([] if other is None else [other])]
        self._distance, self._device, self._progress = distance, device, progress
        self._weight = 0.5 if options.fuse_weight is None else options.fuse_weight
        self._is_reranked = is_reranked
        same = [same_embeddings(embeddings.features) for embeddings in self._embeddings]
        self._same = same_pairs(*same) if len(same) > 1 else same[0]

    @property
    def added(self) -> str:
        """What is done beside the named distance, in words."""
        fused = "" if len(self._embeddings) == 1 else f", fused with weight {self._weight:g}"
        return fused + (", re-ranked" if self._is_reranked else "")

    def __call__(self, probes: Int64, gallery: Int64) -> Rows:
        rows = self._plain(probes, gallery)
        if not self._is_reranked:
            return rows
        both = np.concatenate([probes, gallery])
        assert len(np.unique(both)) == len(both), "sides_of refuses a sequence on both sides"
        done = 0

        def hear(count: int) -> None:
            nonlocal done
            done += count
            self._progress.update("Finding neighbours", done, len(both), unit="sequences")

        return RerankedRows(
            self._plain(both, both), rows, lambda first, second: self._between(both[first], both[second]), progress=hear
        )

    def range_of(self, sides: Sides) -> tuple[float, float]:
        """The shortest and the longest distance that there can be."""
        if self._is_reranked:
            return 0.0, 1.0
        if len(self._embeddings) > 1:
            return -FARTHEST, FARTHEST
        if self._distance == "part-cosine":
            return 0.0, 2.0
        found = self._plain(np.flatnonzero(sides.probes), np.flatnonzero(sides.gallery))
        assert isinstance(found, DistanceRows)
        return 0.0, found.farthest

    def _plain(self, probes: Int64, gallery: Int64) -> DistanceRows | FusedRows:
        first, *others = (
            DistanceRows(embeddings.features, self._same, probes, gallery, self._distance, device=self._device)
            for embeddings in self._embeddings
        )
        return FusedRows(first, others[0], self._weight) if others else first

    def _between(self, first: Int64, second: Int64) -> Float64:
        """Distances [p] between items [p] and items [p], of which the first are all the same one."""
        item, others = first[:1], second
        rows = self._plain(item, others)
        table = next(iter(rows.blocks())).table
        values: Float64 = as_numpy(table)[0][rows.column]
        return values
