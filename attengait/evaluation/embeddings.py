"""Embeddings of walks and the `.npz` file that holds them.

The file has four arrays of one length n: `features` float32 [n, parts, D], and as text `subjects`, `views`, `sequences`
(the walk, like "nm-01"). Whole numbers are accepted for subjects and views: 75 is subject "075" and 0 is view "000".
A fifth, `feature_axes`, says what the axes of the features are: "sequence", "part", "number". A sixth, `precision`, is
what the network computed in, such as "fp32". Files of version 0.1.0 and of other programs lack both. An array
`column_NAME` is a further column, such as the camera. NumPy alone reads and writes the file: evaluating it needs no
torch.
"""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError, require
from attengait.evaluation.names import Names, as_path, one_name_for_each_view
from attengait.evaluation.npz import NpzError, check_readable, read_arrays
from attengait.evaluation.sides import Labels
from attengait.system.files import write_atomically
from attengait.system.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

    from attengait.store import Sequences

FeatureOrder = Literal["parts-first", "parts-last"]
"""features [n, parts, D], as here, or [n, D, parts], as OpenGait's networks return them."""

ATTENGAIT_PARTS = 62
"""The parts of every AttenGait network, by which the files of version 0.1.0 are known."""

_ARRAYS = ("features", "subjects", "views", "sequences")
_AXES = "feature_axes"
_PRECISION = "precision"
_PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
_COLUMN = "column_"
"""Before the names of further columns."""
_CHECKED_ROWS = 1024
_PARTS_FIRST = ("sequence", "part", "number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """n walks' embeddings and what each is of.

    Names may be lists, and subjects and views whole numbers: 75 is "075". ParameterError for what is no such array.
    AttenGaitError if the arrays do not fit together, are not finite, or seem to have the axes of `features` in another
    order.

    >>> side = embeddings.select(embeddings.views == "090")
    >>> 0 < len(side) < len(embeddings)
    True
    """

    features: NDArray[np.float32]
    """[n, parts, D]."""
    subjects: Names
    """[n], like "075"."""
    views: Names
    """[n], degrees as three digits, like "090". "0" and "90" become "000" and "090"."""
    sequences: Names
    """[n], the walk, like "nm-01"."""
    feature_order: Literal["parts-first"] | None = None
    """`parts-first` states that features is [n, parts, D]. None: a shape that may be [n, D, parts] is refused."""
    precision: str | None = None
    """What the network computed in: fp32, tf32, bf16 or fp16. None where it is not known."""
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Further columns [n] by name, such as camera: text, whole numbers or numbers. The protocol custom filters them."""

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in _ARRAYS} | {"extra": dict(self.extra)}
        object.__setattr__(self, "features", _features(given["features"]))
        for name in _ARRAYS[1:]:
            object.__setattr__(self, name, _names(given[name], name, numbers=name != "sequences"))
        object.__setattr__(self, "extra", {name: _array(column) for name, column in given["extra"].items()})
        if self.features.ndim != 3 or 0 in self.features.shape[1:]:
            raise AttenGaitError(f"features is {list(self.features.shape)}, but must be [n, parts, D]")
        require(self.feature_order in (None, "parts-first"), "feature_order", self.feature_order, "parts-first or None")
        if self.feature_order is None:
            _check_order(self.features.shape)
        for name, column in ({name: getattr(self, name) for name in _ARRAYS[1:]} | dict(self.extra)).items():
            shape = column.shape
            if shape != (len(self),):
                raise AttenGaitError(
                    f"{name} is {list(shape)}, but must be [{len(self)}], one entry for each of the features"
                )
        object.__setattr__(self, "views", one_name_for_each_view(self.views, self.subjects))
        blocks = (self.features[start : start + _CHECKED_ROWS] for start in range(0, len(self), _CHECKED_ROWS))
        finite = np.concatenate([np.zeros(0, bool), *(np.isfinite(block).all(axis=(1, 2)) for block in blocks)])
        if not finite.all():
            first = int(np.argmin(finite))
            raise AttenGaitError(
                f"{np.count_nonzero(~finite)} of {len(self)} embeddings hold values that are not finite, "
                f"the first is {self.name(first)}"
            )

    @classmethod
    def from_opengait(
        cls, *, features: NDArray[np.floating], subjects: Names, views: Names, sequences: Names
    ) -> "Embeddings":
        """Take what OpenGait's networks return: features [n, D, parts], and as text the labels, views and types.

        Raises AttenGaitError as the constructor does.

        >>> features = np.zeros((2, 256, 16), np.float32)  # 16 parts of 256 numbers
        >>> names = {"subjects": np.array(["075", "076"]), "views": np.array(["000", "090"])}
        >>> sequences = np.array(["nm-01", "nm-01"])
        >>> attengait.Embeddings.from_opengait(features=features, sequences=sequences, **names).features.shape
        (2, 16, 256)
        """
        features = _features(features)
        if features.ndim != 3:
            raise AttenGaitError(f"features is {list(features.shape)}, but must be [n, D, parts]")
        return cls(
            features=_numbers(features.transpose(0, 2, 1)),
            subjects=subjects,
            views=views,
            sequences=sequences,
            feature_order="parts-first",
        )

    def __len__(self) -> int:
        return len(self.features)

    def name(self, index: int) -> str:
        """The sequence as subject/walk/view, like "075/nm-01/090"."""
        return as_path((self.subjects[index], self.sequences[index], self.views[index]))

    def names(self, rows: NDArray[Any]) -> list[tuple[str, str, str]]:
        """Subject, walk and view of those that `rows` picks: a boolean mask [n] or indices."""
        columns = (self.subjects, self.sequences, self.views)
        return list(zip(*(column[rows].tolist() for column in columns), strict=True))

    def select(self, rows: NDArray[Any]) -> "Embeddings":
        """Those that `rows` picks: a boolean mask [n] or indices."""
        return replace(
            self,
            features=self.features[rows],
            subjects=self.subjects[rows],
            views=self.views[rows],
            sequences=self.sequences[rows],
            feature_order="parts-first",
            extra={name: column[rows] for name, column in self.extra.items()},
        )

    @property
    def labels(self) -> "Labels":
        """What each is of, without the features."""
        return Labels(subjects=self.subjects, walks=self.sequences, views=self.views, extra=self.extra)


def _check_order(shape: tuple[int, ...]) -> None:
    """Refuse features [n, a, b] that may be [n, D, parts].

    It is taken for [n, parts, D] where a is the parts of an AttenGait network or 1, or where a is below b and b is not
    the parts of an AttenGait network: in known networks a part has more numbers than there are parts.
    """
    _, second, third = shape
    if second in (1, ATTENGAIT_PARTS) or (second < third != ATTENGAIT_PARTS):
        return
    raise AttenGaitError(
        f"features is {list(shape)}, but must be [n, parts, D], and this may be [n, D, parts] as OpenGait has it: say "
        "which with --feature-order parts-last or parts-first (in Python: load_embeddings(path, feature_order=...), "
        "Embeddings.from_opengait, or feature_order='parts-first')"
    )


def save_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write the file, whole or not at all; AttenGaitError if that is not possible, or what is written would not be
    read."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {name: getattr(embeddings, name) for name in _ARRAYS}
    arrays[_AXES] = np.array(_PARTS_FIRST)
    if embeddings.precision is not None:
        arrays[_PRECISION] = np.array(embeddings.precision)
    arrays |= {f"{_COLUMN}{name}": column for name, column in embeddings.extra.items()}
    for name, array in arrays.items():
        try:
            check_readable(name, array, prefix=_COLUMN)
        except NpzError as error:
            raise AttenGaitError(f"embeddings {path} cannot be written: they {error}") from None
    np.savez(content, **arrays)
    write_atomically(path, content.getvalue())


def load_embeddings(path: Path, *, feature_order: FeatureOrder | None = None) -> Embeddings:
    """Read a file of embeddings.

    `feature_order` says what the axes of the features are, where the file does not: `parts-first` is [n, parts, D],
    `parts-last` is [n, D, parts], which becomes [n, parts, D].

    Raises AttenGaitError if the file is missing or damaged, if its arrays do not fit together, or if nothing says which
    axis is the parts and it may be the last. Raises ParameterError if the file says another order than `feature_order`.
    """
    _check_known(feature_order)
    arrays = _read(path, (*_ARRAYS, _AXES, _PRECISION), prefix=_COLUMN)
    if missing := [name for name in _ARRAYS if name not in arrays]:
        raise AttenGaitError(f"embeddings {path} lack the arrays {', '.join(missing)}")
    if _AXES in arrays:
        axes = tuple(arrays[_AXES].ravel().tolist())
        if axes != _PARTS_FIRST:
            raise AttenGaitError(f"embeddings {path}: {_AXES} is {list(axes)}, but must be {list(_PARTS_FIRST)}")
        require(feature_order in (None, "parts-first"), "feature_order", feature_order, f"parts-first, as {path} says")
        feature_order = "parts-first"
    try:
        names = {name: arrays[name] for name in _ARRAYS[1:]}
        features = _numbers(arrays["features"])
        precision = _precision(arrays[_PRECISION]) if {_AXES, _PRECISION} <= arrays.keys() else None
        extra = {name.removeprefix(_COLUMN): arrays[name] for name in arrays if name.startswith(_COLUMN)}
        if feature_order == "parts-last":
            return replace(Embeddings.from_opengait(features=features, **names), extra=extra)
        return Embeddings(features=features, **names, feature_order=feature_order, precision=precision, extra=extra)
    except AttenGaitError as error:
        raise AttenGaitError(f"embeddings {path}: {error}") from error


def feature_orders(paths: Iterable[Path], feature_order: FeatureOrder | None) -> dict[Path, FeatureOrder | None]:
    """With which `feature_order` to load each of several files: with this one those that do not say theirs.

    Raises ParameterError where all of them say it, and AttenGaitError as `load_embeddings`.
    """
    _check_known(feature_order)
    if feature_order is None:
        return dict.fromkeys(paths)
    orders = {path: None if _read(path, (_AXES,)) else feature_order for path in paths}
    files = " and ".join(map(str, orders))
    require(any(orders.values()), "feature_order", feature_order, f"left out: the order of {files} is known from there")
    return orders


def _check_known(feature_order: str | None) -> None:
    orders = get_args(FeatureOrder)
    require(feature_order in (None, *orders), "feature_order", feature_order, f"one of {', '.join(orders)}")


def _read(path: Path, wanted: Iterable[str], *, prefix: str | None = None) -> dict[str, NDArray[Any]]:
    try:
        return read_arrays(path, wanted, prefix=prefix)
    except OSError as error:
        raise AttenGaitError(f"cannot read embeddings {path}: {error.strerror or error}") from error
    except NpzError as error:
        raise AttenGaitError(f"embeddings {path} {error}") from error


def _precision(value: NDArray[Any]) -> str:
    text = str(value) if value.shape == () and value.dtype.kind == "U" else ""
    if text not in _PRECISIONS:
        raise AttenGaitError(f"{_PRECISION} is {value.tolist()!r}, but must be one of {', '.join(_PRECISIONS)}")
    return text


def _numbers(features: NDArray[Any]) -> NDArray[np.float32]:
    if features.dtype.kind != "f":
        raise AttenGaitError(f"features is {features.dtype}, but must be floating-point numbers")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is then refused by name
        return np.require(features, np.float32, ["C", "W"])  # without a copy where it can be: they may be gigabytes


def _features(values: Any) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        raise ParameterError(f"features is a {type(values).__name__}, but must be an array [n, parts, D]") from None
    if array.dtype.kind not in "fiu":
        raise ParameterError(f"features is {array.dtype}, but must be floating-point numbers")
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def _array(values: Any) -> NDArray[Any]:
    """A list or an array as an array. Python objects become text or numbers if all of them are.

    So does the text of a store, whose letters have no fixed number: NumPy would pickle it.
    """
    array = np.array(values, dtype=object) if isinstance(values, list | tuple) else np.asarray(values)
    if array.dtype.kind in ("O", "T"):
        objects = array.ravel().tolist()
        for kind in (str, bool, Integral, Real):
            if all(isinstance(each, kind) for each in objects):
                return np.array(objects, np.str_ if kind is str else None).reshape(array.shape)
    return array


def _names(values: Any, name: str, *, numbers: bool) -> Names:
    """Text as it is; whole numbers, where allowed, as at least three digits."""
    array = _array(values)
    if array.dtype.kind == "U":
        return array.astype(np.str_, copy=False)  # of this machine's byte order
    if numbers and array.dtype.kind in "iu":
        return np.array([f"{value:03d}" for value in array.ravel().tolist()], dtype=np.str_).reshape(array.shape)
    raise ParameterError(f"{name} is {array.dtype}, but must be text{' or whole numbers' if numbers else ''}")


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
    precision: str | None = None,
    progress: Progress = SILENT,
) -> Embeddings:
    """Embed whole walks as `stream` delivers them.

    `stream` gives (indices [n] into `sequences`, frames uint8 [sum T, H, W, C], lengths [n] in frames) in any order;
    the result is in that of `sequences`. `num_sequences` are to come in all; only `progress` needs to know it.
    `precision` is what the model computes in, which the result records. Raises AttenGaitError if the stream is empty or
    an embedding is not finite.
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
    return embeddings_of(np.concatenate(batches)[order], sequences, np.array(indices)[order], precision)


def embeddings_of(
    features: NDArray[np.float32], sequences: "Sequences", rows: NDArray[np.int64], precision: str | None
) -> Embeddings:
    """Features [n, parts, D] with the names of the sequences `rows` [n]. Raises AttenGaitError for values that are not
    finite."""
    return Embeddings(
        features=features,
        subjects=_text(sequences.subject, rows),
        views=_text(sequences.view, rows),
        sequences=_text(sequences.walk, rows),
        feature_order="parts-first",
        precision=precision,
        extra={name: column[rows] for name, column in sequences.extra.items()},
    )


def _text(column: NDArray[Any], rows: NDArray[np.int64]) -> Names:
    return np.array([str(value) for value in column[rows]], dtype=np.str_)
