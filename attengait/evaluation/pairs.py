"""The distances that an evaluation asks for: of one model or two, re-ranked or not."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from attengait.evaluation.blocks import Block, DistanceRows, Int64, Rows, same_embeddings
from attengait.evaluation.distances import Float64
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.fusion import FusedRows, same_pairs
from attengait.evaluation.options import EvaluationOptions
from attengait.evaluation.ranking import as_numpy
from attengait.evaluation.rerank import RerankedRows
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
        by_name = np.lexsort((self._same, embeddings.views, embeddings.sequences, embeddings.subjects))
        self._place: Int64 = np.argsort(by_name)
        """[N]: of each embedding in the order of names, then of values."""

    @property
    def added(self) -> str:
        """What is done beside the named distance, in words."""
        fused = "" if len(self._embeddings) == 1 else f", fused with weight {self._weight:g}"
        return fused + (", re-ranked" if self._is_reranked else "")

    def __call__(self, probes: Int64, gallery: Int64) -> Rows:
        if not self._is_reranked:
            return self._plain(probes, gallery)
        # In the order of names, which decides among equally near neighbours: the order of the rows decides nothing.
        probe_order, item_order = np.argsort(self._place[probes]), np.argsort(self._place[gallery])
        probes, gallery = probes[probe_order], gallery[item_order]
        both = np.concatenate([probes, gallery])
        assert len(np.unique(both)) == len(both), "sides_of refuses a sequence on both sides"
        done = 0

        def hear(count: int) -> None:
            nonlocal done
            done += count
            self._progress.update("Finding neighbours", done, len(both), unit="sequences")

        reranked = RerankedRows(
            self._plain(both, both),
            self._plain(probes, gallery),
            lambda first, second: self._between(both[first], both[second]),
            progress=hear,
        )
        return _Reordered(reranked, probe_order, item_order)

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


class _Reordered:
    """Rows for probes and gallery items that were put in order before."""

    def __init__(self, rows: Rows, probes: Int64, gallery: Int64) -> None:
        """`probes` and `gallery` are the places that those of the rows have outside."""
        self._rows, self._probes = rows, probes
        self.column = np.empty_like(rows.column)
        self.column[gallery] = rows.column

    @property
    def num_probes(self) -> int:
        """The probes of all blocks."""
        return self._rows.num_probes

    def blocks(self) -> Iterator[Block]:
        """Each probe is in one block."""
        for block in self._rows.blocks():
            yield replace(block, probes=self._probes[block.probes])
