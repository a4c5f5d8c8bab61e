"""A model, a store and a protocol put together: how well people are recognised, as with `attengait evaluate`."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attengait.errors import AttenGaitError, ParameterError, require
from attengait.evaluation import (
    Embeddings,
    EvaluationOptions,
    EvaluationResult,
    check_fit,
    check_names,
    evaluate_embeddings,
    load_embeddings,
    rules,
)
from attengait.evaluation.comparison import Comparison, check_two, compare_embeddings
from attengait.evaluation.embeddings import FeatureOrder, feature_orders
from attengait.evaluation.pairs import RowsOf
from attengait.evaluation.protocols import PLAIN, absent_subjects, check_only_common
from attengait.evaluation.sides import Labels, check_options, is_reranked, subjects_to_test
from attengait.evaluation.submission import Written, check_target_name, choose, submission_of, write_submission
from attengait.sampling.selection import Spec, parse_subjects, subjects_among
from attengait.system.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

    from attengait.pipelines.embed import Model
    from attengait.store.opening import AnyStore
    from attengait.training.ranks import Ranks

_GPU_FROM_PRODUCTS = 10**13
"""Multiplications from which `auto` takes a GPU for distances: some minutes of a processor."""

Check = Callable[[Labels, str], None]


def evaluate(
    what: "Embeddings | Model",
    store: "AnyStore | None" = None,
    *,
    protocol: str = "casia-b",
    distance: str = "l2",
    subjects: Spec | None = None,
    options: EvaluationOptions = PLAIN,
    device: str = "auto",
    precision: str | None = None,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Measure how well people are recognised. The same as `attengait evaluate`.

    Args:
        what: embeddings or an .npz file of them; or, with a store, a model as `attengait.embed` takes it.
        store: the store in which people are recognised; None with embeddings.
        protocol: casia-b, oumvlp, grew or another; an unknown name is refused with all that there are.
        distance: l2, l1, part-l2 or part-cosine.
        subjects: names, numbers and ranges, such as "075-124"; None means all embeddings, or what `attengait.embed`
            chooses.
        options: what is done beside that, such as a partition, filters, intervals, verification.
        device: auto, cpu, cuda or cuda:N, for a model and for the distances. With auto, only many distances are
            computed on a GPU.
        precision: what a model computes in, as for `attengait.embed`; None is fp32.
        progress: hears how many sequences are embedded, and how many probes are compared.

    Returns:
        Figures by condition and probe view, and what was missing; `print` shows the table.

    Raises:
        ParameterError: an unknown protocol, distance or subject, embeddings with a store or a precision, a model
            without a store, or options that do not fit the protocol.
        AttenGaitError: a protocol that fits no sequence (said before anything is embedded), what `attengait.embed`
            raises, and a file that cannot be read.

    >>> result = attengait.evaluate(embeddings)
    >>> 0 <= result.mean <= 1
    True
    """
    result = evaluate_together(
        None,
        what,
        store,
        protocol=protocol,
        distance=distance,
        subjects=subjects,
        options=options,
        device=device,
        precision=precision,
        progress=progress,
    )
    assert result is not None, "there is one process"
    return result


def evaluate_together(
    ranks: "Ranks | None",
    what: "Embeddings | Model",
    store: "AnyStore | None",
    *,
    protocol: str,
    distance: str,
    subjects: Spec | None,
    options: EvaluationOptions,
    device: str,
    precision: str | None,
    progress: Progress,
) -> EvaluationResult | None:
    """As `evaluate`, with the sequences embedded by several processes, which all call this; None is one process.

    The first one compares, and returns the result. The others return None.
    """
    check_names(protocol, distance)
    subjects = _kept(subjects)
    options = _with_subjects(options, subjects)
    check = partial(_check, protocol, options)
    found = _embeddings(ranks, what, store, subjects, options, device, precision, check, progress)
    if found is None:
        return None
    result = evaluate_embeddings(
        found.embeddings,
        protocol=protocol,
        distance=distance,
        options=options,
        device=_device(device, found.embeddings),
        progress=progress,
    )
    return replace(result, remarks=found.remarks + result.remarks)


def _check(protocol: str, options: EvaluationOptions, labels: Labels, where: str) -> None:
    check_fit(
        protocol,
        labels.walks,
        labels.views,
        subjects=labels.subjects,
        extra=labels.extra,
        options=options,
        where=where,
    )


def compare(
    first: "Embeddings | Model",
    second: "Embeddings | Model",
    store: "AnyStore | None" = None,
    *,
    protocol: str = "casia-b",
    distance: str = "l2",
    subjects: Spec | None = None,
    options: EvaluationOptions | None = None,
    device: str = "auto",
    feature_order: FeatureOrder | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Compare two models on the same sequences. The same as `attengait compare`.

    Args:
        first: embeddings or an .npz file of them, or, with a store, a model.
        second: the same of the other.
        store: the store that models embed; None if both are embeddings.
        protocol: as for `attengait.evaluate`.
        distance: l2, l1, part-l2 or part-cosine.
        subjects: those to recognise; None means all embeddings, or what `attengait.embed` chooses.
        options: bootstrap is the number of resamples, here 2000 where nothing is said.
        device: auto, cpu, cuda or cuda:N.
        feature_order: parts-first or parts-last, for files of embeddings that do not say it.
        progress: hears how many sequences are embedded, and how many probes are compared.

    Returns:
        The difference of each headline figure, its interval and its p-value; `print` shows the table.

    Raises:
        ParameterError: what `attengait.evaluate` refuses, and options that make no sense for two models.
        AttenGaitError: sequences that only one of the two has, and what `attengait.evaluate` raises.

    >>> attengait.compare(embeddings, embeddings).rows[0][3:]
    ['+0.0', '+0.0 to +0.0', '1.0000']
    """
    check_names(protocol, distance)
    if options is not None:
        check_two(options)
    subjects = _kept(subjects)
    is_needed = not (_is_embeddings(first) and _is_embeddings(second))
    require(store is None or is_needed, "store", str(store), "left out where both are embeddings")
    files = [Path(what) for what in (first, second) if isinstance(what, (str, os.PathLike)) and _is_embeddings(what)]
    require(feature_order is None or bool(files), "feature_order", feature_order, "left out without .npz files")
    orders = feature_orders(files, feature_order)
    both = [
        _embeddings(
            None,
            what,
            None if _is_embeddings(what) else store,
            subjects,
            options or PLAIN,
            device,
            None,
            partial(_check, protocol, options or PLAIN),
            progress,
            feature_order=orders.get(Path(what)) if isinstance(what, (str, os.PathLike)) else None,
        )
        for what in (first, second)
    ]
    names = [str(what) if isinstance(what, (str, os.PathLike)) else "" for what in (first, second)]
    one, other = both
    assert one is not None, "there is one process"
    assert other is not None
    return compare_embeddings(
        one.embeddings,
        other.embeddings,
        protocol=protocol,
        distance=distance,
        options=options,
        names=(names[0] or "the first", names[1] or "the second"),
        device=_device(device, one.embeddings),
        progress=progress,
    )


def submit(
    path: str | Path,
    what: "Embeddings | Model",
    store: "AnyStore | None" = None,
    *,
    protocol: str,
    distance: str = "l2",
    subjects: Spec | None = None,
    options: EvaluationOptions = PLAIN,
    device: str = "auto",
    precision: str | None = None,
    progress: Progress = SILENT,
    ranks: "Ranks | None" = None,
) -> Written | None:
    """Write the file that a challenge takes for its probes without labels. As `attengait evaluate --submission`.

    Several processes may embed the sequences. All call this, and the first one writes; the others return None.

    Raises ParameterError for a protocol without such a file, and what `evaluate` raises.
    """
    check_names(protocol, distance)
    submission_of(protocol)
    check_target_name(Path(path))
    require(not options.bootstrap, "bootstrap", options.bootstrap, "0 where there are no labels")
    require(not options.verification, "verification", True, "left out where there are no labels")
    rule = rules()[protocol]
    check_options(rule, options)
    subjects = _kept(subjects)
    options = _with_subjects(options, subjects, with_unlabelled=True)

    def check(labels: Labels, where: str) -> None:
        choose(labels, rule)

    found = _embeddings(ranks, what, store, subjects, options, device, precision, check, progress, with_unlabelled=True)
    if found is None:
        return None
    embeddings, remarks = found
    if options.partition is not None:
        available = sorted(set(embeddings.subjects.tolist()))
        names, absent = subjects_to_test(options, available, where="the embeddings", with_unlabelled=True)
        embeddings = embeddings.select(np.isin(embeddings.subjects, names))
        remarks += absent_subjects(absent)
    other = options.fuse
    if other is not None:
        from attengait.evaluation.fusion import matched

        embeddings, other, unmatched = matched(embeddings, other, only_common=options.only_common)
        remarks += unmatched
    probes, gallery, left_out = choose(embeddings.labels, rule)
    rows = RowsOf(
        embeddings,
        other,
        distance,
        options,
        is_reranked=is_reranked(rule, options),
        device=_device(device, embeddings),
        progress=progress,
    )
    return write_submission(
        Path(path),
        embeddings,
        rule,
        rows(probes, gallery),
        probes,
        gallery,
        left_out=left_out,
        remarks=remarks,
    )


def _kept(subjects: Spec | None) -> Spec | None:
    """What may be asked more than once: an iterator would be empty the second time, and then ask for all."""
    return list(subjects) if isinstance(subjects, Iterator) else subjects


def _with_subjects(
    options: EvaluationOptions, subjects: Spec | None, *, with_unlabelled: bool = False
) -> EvaluationOptions:
    """The options, with only those embeddings to fuse whose subjects are asked for."""
    check_only_common(options)
    if options.fuse is None or (subjects is None and options.partition is None):
        return options
    available = sorted(set(options.fuse.subjects.tolist()))
    if options.partition is None:
        assert subjects is not None
        names = subjects_among(subjects, available)
    else:
        where = "the second embeddings"
        names = set(subjects_to_test(options, available, where=where, with_unlabelled=with_unlabelled)[0])
    return replace(options, fuse=options.fuse.select(np.isin(options.fuse.subjects, list(names))))


class _Found(NamedTuple):
    """What is compared."""

    embeddings: Embeddings
    remarks: tuple[str, ...]


def _embeddings(
    ranks: "Ranks | None",
    what: "Embeddings | Model",
    store: "AnyStore | None",
    subjects: Spec | None,
    options: EvaluationOptions,
    device: str,
    precision: str | None,
    check: Check,
    progress: Progress,
    *,
    with_unlabelled: bool = False,
    feature_order: FeatureOrder | None = None,
) -> _Found | None:
    """Those that are given or read, or those that a model makes. `check` may refuse the sequences before that.

    None in all processes but the first.
    """
    require(
        subjects is None or options.partition is None,
        "subjects",
        subjects,
        "left out where there is a partition, whose TEST_SET chooses them",
    )
    if store is not None:
        if isinstance(what, Embeddings):
            raise ParameterError(f"store is {store}, but must be left out where there are embeddings")
        from attengait.pipelines.embed import prepare
        from attengait.pipelines.runs import subjects_of
        from attengait.store import open_store
        from attengait.training.ranks import ALONE

        ranks = ranks or ALONE
        opened = open_store(store)
        if options.partition is not None:
            available, where = subjects_of(opened), str(opened.location)
            subjects, _ = subjects_to_test(options, available, where=where, with_unlabelled=with_unlabelled)
        prepared = prepare(what, opened, subjects=subjects, device=device, precision=precision or "fp32", ranks=ranks)
        if options.partition is not None and prepared.remarks:
            raise AttenGaitError(f"{options.partition} is not the partition of this run: {prepared.remarks[0]}")
        labels = Labels.of_columns(prepared.store.sequences.columns, prepared.indices)
        check(labels, str(prepared.store.location))
        if options.fuse is not None:
            from attengait.evaluation.fusion import match

            match(labels.names, options.fuse.labels.names, only_common=options.only_common)
        made = prepared.embed(progress, ranks=ranks)
        return None if made is None else _Found(made, prepared.remarks)
    require(precision is None, "precision", precision, "left out where there are embeddings")
    if isinstance(what, Embeddings):
        embeddings, where = what, "the embeddings"
    elif _is_embeddings(what):
        embeddings, where = load_embeddings(Path(str(what)), feature_order=feature_order), str(what)
    else:
        raise ParameterError("store is None, but must be given with a model (embeddings are an .npz file)")
    if subjects is not None:
        names = parse_subjects(subjects, sorted(set(embeddings.subjects.tolist())))
        embeddings = embeddings.select(np.isin(embeddings.subjects, names))
    check(embeddings.labels, where)
    return _Found(embeddings, ())


def _is_embeddings(what: "Embeddings | Model") -> bool:
    return isinstance(what, Embeddings) or (isinstance(what, (str, os.PathLike)) and Path(what).suffix == ".npz")


def _device(device: str, embeddings: Embeddings) -> "torch.device | None":
    """What computes the distances: None is NumPy. Raises ParameterError for a device that is not there."""
    products = len(embeddings) ** 2 * embeddings.features[:1].size
    if device == "cpu" or (device == "auto" and products < _GPU_FROM_PRODUCTS):
        return None
    from attengait.model.precision import resolve_device

    resolved, _ = resolve_device(device, "fp32")
    return None if resolved.type == "cpu" else resolved
