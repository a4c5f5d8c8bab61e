"""Measures recognition: distances between embeddings, protocols and their tables. It needs NumPy, but not torch."""

from attengait.evaluation.distances import DISTANCES, distance
from attengait.evaluation.embeddings import Embeddings, embed_store, load_embeddings, save_embeddings
from attengait.evaluation.protocols import PROTOCOLS, check_fit, check_names, evaluate_embeddings
from attengait.evaluation.result import EvaluationResult

__all__ = [
    "DISTANCES",
    "PROTOCOLS",
    "Embeddings",
    "EvaluationResult",
    "check_fit",
    "check_names",
    "distance",
    "embed_store",
    "evaluate_embeddings",
    "load_embeddings",
    "save_embeddings",
]
