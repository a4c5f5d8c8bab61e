"""A model, a store and a protocol put together: how well people are recognised, as with `attengait evaluate`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attengait.errors import ParameterError, require
from attengait.evaluation import (
    Embeddings,
    EvaluationResult,
    check_fit,
    check_names,
    evaluate_embeddings,
    load_embeddings,
)
from attengait.sampling.selection import Spec, parse_subjects
from attengait.system.progress import SILENT, Progress

if TYPE_CHECKING:
    from attengait.pipelines.embed import Model
    from attengait.store.opening import AnyStore


def evaluate(
    what: "Embeddings | Model",
    store: "AnyStore | None" = None,
    *,
    protocol: str = "casia-b",
    distance: str = "l2",
    subjects: Spec | None = None,
    device: str = "auto",
    precision: str | None = None,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Measure how well people are recognised. The same as `attengait evaluate`.

    Args:
        what: embeddings or an .npz file of them; or, with a store, a model as `attengait.embed` takes it.
        store: the store in which people are recognised; None with embeddings.
        protocol: casia-b, or casia-b-cross-view.
        distance: l2, l1, part-l2 or part-cosine.
        subjects: names, numbers and ranges, such as "075-124"; None means all embeddings, or what `attengait.embed`
            chooses.
        device: auto, cpu, cuda or cuda:N, for a model.
        precision: what a model computes in, as for `attengait.embed`; None is fp32.
        progress: hears how many sequences are embedded.

    Returns:
        Rank-1 for each condition and probe view, and what was missing; `print` shows it as a table.

    Raises:
        ParameterError: an unknown protocol, distance or subject, embeddings with a store or a precision, or a model
            without a store.
        AttenGaitError: a protocol that fits no sequence (said before anything is embedded), what `attengait.embed`
            raises, and a file that cannot be read.

    >>> result = attengait.evaluate(embeddings)
    >>> 0 <= result.mean <= 1
    True
    """
    check_names(protocol, distance)
    if store is not None:
        if isinstance(what, Embeddings):
            raise ParameterError(f"store is {store}, but must be left out where there are embeddings")
        from attengait.pipelines.embed import prepare

        prepared = prepare(what, store, subjects=subjects, device=device, precision=precision or "fp32")
        sequences, rows = prepared.store.sequences, prepared.indices
        check_fit(protocol, sequences.walk[rows], sequences.view[rows], where=str(prepared.store.location))
        return evaluate_embeddings(prepared.embed(progress), protocol=protocol, distance=distance)
    require(precision is None, "precision", precision, "left out where there are embeddings")
    if isinstance(what, Embeddings):
        embeddings, where = what, "the embeddings"
    elif isinstance(what, (str, os.PathLike)) and Path(what).suffix == ".npz":
        embeddings, where = load_embeddings(Path(what)), str(what)
    else:
        raise ParameterError("store is None, but must be given with a model (embeddings are an .npz file)")
    if subjects is not None:
        names = parse_subjects(subjects, sorted(set(embeddings.subjects.tolist())))
        embeddings = embeddings.select(np.isin(embeddings.subjects, names))
    check_fit(protocol, embeddings.sequences, embeddings.views, where=where)
    return evaluate_embeddings(embeddings, protocol=protocol, distance=distance)
