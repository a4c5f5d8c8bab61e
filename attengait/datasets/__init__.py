"""Datasets as their owners distribute them: one adapter each, found by name."""

from collections.abc import Callable
from pathlib import Path

from attengait.datasets import casia_b
from attengait.datasets.source import NO_PICTURES, Pictures, Problem, Scan, SourceSequence, Video
from attengait.errors import ParameterError

__all__ = ["DATASETS", "NO_PICTURES", "Pictures", "Problem", "Scan", "SourceSequence", "Video", "find_dataset"]

DATASETS: dict[str, Callable[[Path | None, Path], Scan]] = {"casia-b": casia_b.scan}
"""How to find a dataset's sequences, given its folders of frames (or None) and silhouettes, by its name."""


def find_dataset(name: str) -> Callable[[Path | None, Path], Scan]:
    """Return a dataset's scan function. Raises ParameterError for an unknown name."""
    if name not in DATASETS:
        raise ParameterError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    return DATASETS[name]
