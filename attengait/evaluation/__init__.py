"""Measures recognition: distances between embeddings, protocols and their tables. It needs NumPy, but not torch."""

from attengait.evaluation.distances import DISTANCES, distance
from attengait.evaluation.embeddings import Embeddings, embed_store, load_embeddings, save_embeddings
from attengait.evaluation.options import EvaluationOptions
from attengait.evaluation.protocols import check_fit, check_names, evaluate_embeddings
from attengait.evaluation.result import EvaluationResult
from attengait.evaluation.rule import rules

__all__ = [
    "DISTANCES",
    "Embeddings",
    "EvaluationOptions",
    "EvaluationResult",
    "check_fit",
    "check_names",
    "distance",
    "embed_store",
    "evaluate_embeddings",
    "load_embeddings",
    "rules",
    "save_embeddings",
]
