"""The evaluation protocols, by name."""

from collections.abc import Callable

from attengait.evaluation.casia_b import evaluate_casia_b
from attengait.evaluation.cross_view import evaluate_cross_view
from attengait.evaluation.distances import DISTANCES
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.result import EvaluationResult
from attengait.system.lookup import look_up

PROTOCOLS: dict[str, Callable[[Embeddings, str], EvaluationResult]] = {
    "casia-b": evaluate_casia_b,
    "casia-b-cross-view": evaluate_cross_view,
}


def check_names(protocol: str, distance: str) -> None:
    """Refuse an unknown protocol or distance (ParameterError) before hours of embedding."""
    look_up(PROTOCOLS, protocol, "protocol")
    look_up(DISTANCES, distance, "distance")


def evaluate_embeddings(embeddings: Embeddings, *, protocol: str = "casia-b", distance: str = "l2") -> EvaluationResult:
    """Evaluate by the named protocol and distance; ParameterError for an unknown one."""
    check_names(protocol, distance)
    return PROTOCOLS[protocol](embeddings, distance)
