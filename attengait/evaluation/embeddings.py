"""Embeddings of walks and the `.npz` file that holds them.

The file has four arrays of one length n: `features` float32 [n, parts, D], and as text `subjects`, `views`, `sequences`
(the walk, like "nm-01"). Whole numbers are accepted for subjects and views: 75 is subject "075" and 0 is view "000".
NumPy alone reads and writes it: evaluating a file needs no torch.
"""

import io
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.system.files import write_atomically
from attengait.system.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

    from attengait.store import Sequences

Names = NDArray[np.str_]

_ARRAYS = ("features", "subjects", "views", "sequences")


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """n walks' embeddings and what each is of; AttenGaitError if the arrays do not fit together or are not finite.

    >>> side = embeddings.select(embeddings.views == "090")
    >>> 0 < len(side) < len(embeddings)
    True
    """

    features: NDArray[np.float32]
    """[n, parts, D]."""
    subjects: Names
    """[n], like "075"."""
    views: Names
    """[n], degrees as three digits, like "090"."""
    sequences: Names
    """[n], the walk, like "nm-01"."""

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or 0 in self.features.shape[1:]:
            raise AttenGaitError(f"features is {list(self.features.shape)}, but must be [n, parts, D]")
        for name in _ARRAYS[1:]:
            shape = getattr(self, name).shape
            if shape != (len(self),):
                raise AttenGaitError(
                    f"{name} is {list(shape)}, but must be [{len(self)}], one entry for each of the features"
                )
        finite = np.isfinite(self.features).all(axis=(1, 2))
        if not finite.all():
            first = int(np.argmin(finite))
            raise AttenGaitError(
                f"{np.count_nonzero(~finite)} of {len(self)} embeddings hold values that are not finite, "
                f"the first is {self.name(first)}"
            )

    def __len__(self) -> int:
        return len(self.features)

    def name(self, index: int) -> str:
        """The sequence as subject/walk/view, like "075/nm-01/090"."""
        return f"{self.subjects[index]}/{self.sequences[index]}/{self.views[index]}"

    def select(self, rows: NDArray[Any]) -> "Embeddings":
        """Those that `rows` picks: a boolean mask [n] or indices."""
        return Embeddings(
            features=self.features[rows],
            subjects=self.subjects[rows],
            views=self.views[rows],
            sequences=self.sequences[rows],
        )


def save_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write the file, whole or not at all; AttenGaitError if that is not possible."""
    content = io.BytesIO()
    np.savez(content, **{name: getattr(embeddings, name) for name in _ARRAYS})
    write_atomically(path, content.getvalue())


def load_embeddings(path: Path) -> Embeddings:
    """Read a file of embeddings; AttenGaitError if it is missing, damaged, or its arrays do not fit together."""
    try:
        # Opened here, because NumPy leaves its own handle open where the archive is damaged.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            missing = [name for name in _ARRAYS if name not in file]
            if missing:
                raise AttenGaitError(f"embeddings {path} lack the arrays {', '.join(missing)}")
            arrays = {name: file[name] for name in _ARRAYS}
    except OSError as error:
        raise AttenGaitError(f"cannot read embeddings {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise AttenGaitError(
            f"embeddings {path} are damaged or not an .npz of plain arrays (numbers and text, no Python objects)"
        ) from error
    try:
        return Embeddings(
            features=_numbers(arrays["features"]),
            subjects=_names(arrays["subjects"], "subjects", numbers=True),
            views=_names(arrays["views"], "views", numbers=True),
            sequences=_names(arrays["sequences"], "sequences", numbers=False),
        )
    except AttenGaitError as error:
        raise AttenGaitError(f"embeddings {path}: {error}") from error


def _numbers(features: NDArray[Any]) -> NDArray[np.float32]:
    if features.dtype.kind != "f":
        raise AttenGaitError(f"features is {features.dtype}, but must be floating-point numbers")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is then refused by name
        return features.astype(np.float32)


def _names(values: NDArray[Any], array: str, *, numbers: bool) -> Names:
    """Text as it is; whole numbers, where allowed, as at least three digits."""
    if values.dtype.kind == "U":
        return values
    if numbers and values.dtype.kind in "iu":
        return np.char.zfill(values.astype(np.str_), 3)
    raise AttenGaitError(f"{array} is {values.dtype}, but must be text{' or whole numbers' if numbers else ''}")


class Embedder(Protocol):
    """What `embed_store` needs of a model."""

    def embed_ragged(self, frames: "torch.Tensor", lengths: list[int], /) -> "torch.Tensor":
        """Frames uint8 [sum T, H, W, C] of n walks of those lengths to embeddings [n, parts, D]."""
        ...


def embed_store(
    model: Embedder,
    stream: "Iterable[tuple[NDArray[np.int64], torch.Tensor, NDArray[np.int64]]]",
    sequences: "Sequences",
    *,
    num_sequences: int,
    progress: Progress = SILENT,
) -> Embeddings:
    """Embed whole walks as `stream` delivers them.

    `stream` gives (indices [n] into `sequences`, frames uint8 [sum T, H, W, C], lengths [n] in frames) in any order;
    the result is in that of `sequences`. `num_sequences` are to come in all; only `progress` needs to know it. Raises
    AttenGaitError if the stream is empty or an embedding is not finite.
    """
    indices: list[int] = []
    batches: list[NDArray[np.float32]] = []
    for batch_indices, frames, lengths in stream:
        batches.append(model.embed_ragged(frames, lengths.tolist()).detach().float().cpu().numpy())
        indices.extend(batch_indices.tolist())
        progress.update("Embedding", len(indices), num_sequences, unit="sequences")
    if not indices:
        raise AttenGaitError("there is no sequence to embed")
    order = np.argsort(indices)
    rows = np.array(indices)[order]
    return Embeddings(
        features=np.concatenate(batches)[order],
        subjects=_text(sequences.subject, rows),
        views=_text(sequences.view, rows),
        sequences=_text(sequences.walk, rows),
    )


def _text(column: NDArray[Any], rows: NDArray[np.int64]) -> Names:
    return np.array([str(value) for value in column[rows]], dtype=np.str_)
