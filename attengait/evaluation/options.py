"""What is asked of an evaluation beside the protocol and the distance."""

from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attengait.errors import require

if TYPE_CHECKING:
    from attengait.evaluation.embeddings import Embeddings

LEAVE_OUT = {"nothing": "nothing", "same-view": "own view"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What an evaluation does beside comparing by a protocol. ParameterError for a value outside what is accepted.

    >>> options = attengait.EvaluationOptions(gallery=["walk=nm-01"], probes=["walk=nm-05", "view!=090"])
    >>> attengait.evaluate(embeddings, protocol="custom", options=options).num_probes
    2
    """

    partition: str | Path | None = None
    """A JSON file of OpenGait: its TEST_SET chooses the subjects, and its PROBE_SET the probes where the protocol has
    them from there."""
    gallery: tuple[str, ...] | list[str] = ()
    """For the protocol custom: filters, such as walk=nm-01,nm-02 and view!=090. All must hold."""
    probes: tuple[str, ...] | list[str] = ()
    """For the protocol custom, too."""
    leave_out: str | None = None
    """For the protocol custom: nothing, or same-view: items of the probe's subject at the probe's view."""
    rerank: bool | None = None
    """Whether distances are re-ranked by k-reciprocal neighbours; None: as the protocol says."""
    fuse: "Embeddings | None" = None
    """Embeddings of the same sequences by another model, whose distances are added."""
    fuse_weight: float | None = None
    """Of the other model's distances, between 0 and 1; None is 0.5."""
    only_common: bool = False
    """Whether sequences that one of two sets of embeddings lacks are left out, instead of being refused."""
    bootstrap: int = 0
    """Resamples for intervals; 0 computes none."""
    seed: int = 0
    """Of the resamples."""
    verification: bool = False
    """Whether pairs are also accepted or rejected by their distance: ROC, equal error rate, TAR at FAR."""

    def __post_init__(self) -> None:
        if self.fuse is not None:
            from attengait.evaluation.embeddings import Embeddings

            what = "Embeddings, as attengait.evaluation.load_embeddings reads them"
            require(isinstance(self.fuse, Embeddings), "fuse", self.fuse, what)
        require(
            self.leave_out is None or self.leave_out in LEAVE_OUT,
            "leave_out",
            self.leave_out,
            f"one of {', '.join(LEAVE_OUT)}",
        )
        weight = self.fuse_weight
        require(weight is None or isinstance(weight, Real), "fuse_weight", weight, "a number between 0 and 1")
        require(weight is None or 0 < weight < 1, "fuse_weight", weight, "between 0 and 1, without these two")
        require(weight is None or self.fuse is not None, "fuse_weight", weight, "left out where nothing is fused")
        self._count("bootstrap", "a number of resamples, 0 for none")
        self._count("seed", "a whole number from 0 on")
        require(self.bootstrap > 0 or self.seed == 0, "seed", self.seed, "left out where bootstrap is 0")
        for name in ("gallery", "probes"):
            value = getattr(self, name)
            require(isinstance(value, list | tuple), name, value, "a list of filters")

    def _count(self, name: str, what: str) -> None:
        value: Any = getattr(self, name)
        require(isinstance(value, Integral) and value is not True and value is not False, name, value, what)
        require(int(value) >= 0, name, value, what)
        object.__setattr__(self, name, int(value))  # of NumPy's numbers, too, which JSON does not take
