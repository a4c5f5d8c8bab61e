"""The evaluation protocols, by name: from embeddings to a result."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import require
from attengait.evaluation.blocks import Int64
from attengait.evaluation.coverage import coverage, some_names
from attengait.evaluation.distances import DISTANCES, Float64
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.fusion import matched
from attengait.evaluation.measure import ALL_VIEWS, OTHER_VIEWS, Cells, Means, compare
from attengait.evaluation.names import Names, one_name_for_each_view
from attengait.evaluation.options import LEAVE_OUT, EvaluationOptions
from attengait.evaluation.pairs import RowsOf
from attengait.evaluation.resampling import LEVEL, bootstrap, interval, subjects_of_probes, why_no_interval
from attengait.evaluation.result import EvaluationResult, Figures
from attengait.evaluation.retrieval import Mask
from attengait.evaluation.rule import Rule, rules
from attengait.evaluation.sides import Labels, Sides, is_reranked, sides_of, subjects_to_test
from attengait.evaluation.verification import FALSE_ACCEPT_RATES, Scores
from attengait.sampling.selection import some_of
from attengait.system.lookup import look_up
from attengait.system.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

PLAIN = EvaluationOptions()
_LEFT_OUT = {
    "identical views": "identical views",
    "own view": "one's own walks at the identical view",
    "own walk": "the same walk at all views",
    "nothing": "",
}


def check_names(protocol: str, distance: str) -> None:
    """Refuse an unknown protocol or distance (ParameterError) before hours of embedding."""
    look_up(rules(), protocol, "protocol")
    look_up(DISTANCES, distance, "distance")


def check_fit(
    protocol: str,
    walks: NDArray[Any],
    views: NDArray[Any],
    *,
    where: str,
    subjects: NDArray[Any] | None = None,
    extra: Mapping[str, NDArray[Any]] | None = None,
    options: EvaluationOptions = PLAIN,
) -> None:
    """Refuse sequences of which the named protocol can compare none (AttenGaitError), before hours of embedding.

    `walks`, `views` and `subjects` [n] are those of the sequences, `where` says in the sentence where they are. The
    sentence names the protocols that fit. `extra` are further columns [n], for the filters of the protocol custom.
    """
    rule = rule_of(protocol, options)
    texts: Names = np.array([str(walk) for walk in walks.tolist()], dtype=np.str_)
    people = np.full(len(texts), "") if subjects is None else np.array([str(name) for name in subjects], np.str_)
    labels = Labels(subjects=people, walks=texts, views=one_name_for_each_view(views, people), extra=dict(extra or {}))
    sides_of(rule, labels, options, where=where)


def rule_of(protocol: str, options: EvaluationOptions) -> Rule:
    """The rule of a protocol, with what the options change of it."""
    rule = look_up(rules(), protocol, "protocol")
    return replace(rule, leaves_out=LEAVE_OUT[options.leave_out]) if options.leave_out else rule  # type: ignore[arg-type]


def evaluate_embeddings(
    embeddings: Embeddings,
    *,
    protocol: str = "casia-b",
    distance: str = "l2",
    options: EvaluationOptions = PLAIN,
    device: "torch.device | None" = None,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Evaluate by the named protocol and distance.

    `device` is a torch device on which distances are computed; None computes them with NumPy.

    ParameterError for an unknown protocol or distance, AttenGaitError where the protocol fits no sequence.
    """
    check_names(protocol, distance)
    prepared = prepare(embeddings, protocol, options)
    rule, sides, embeddings = prepared.rule, prepared.sides, prepared.embeddings
    rows = RowsOf(
        embeddings,
        prepared.other,
        distance,
        options,
        is_reranked=is_reranked(rule, options),
        device=device,
        progress=progress,
    )
    scores = Scores() if options.verification else None
    cells = compare(rule, embeddings.labels, sides, rows, listener=scores, progress=progress)
    result = _result(prepared, distance + rows.added, cells)
    if options.bootstrap:
        result = _with_intervals(result, prepared, cells, options)
    if scores is not None:
        found = scores.found()
        nothing = {"equal_error_rate": None, "tar_at_far": {f"{far:g}": None for far in FALSE_ACCEPT_RATES}}
        result = replace(
            result,
            verification=nothing if found is None else found.to_dict(),
            remarks=(*result.remarks, *(() if found is None else found.remarks)),
        )
    return result


def recognisable(labels: Labels, protocol: str) -> Mask:
    """[n]: the probes, among sequences with these labels, whose subject the named protocol could find, whatever their
    embeddings are. Raises what `evaluate_embeddings` does."""
    blank = Embeddings(
        features=np.zeros((len(labels), 1, 1), np.float32),
        subjects=labels.subjects,
        sequences=labels.walks,
        views=labels.views,
        feature_order="parts-first",
    )
    prepared = prepare(blank, protocol, PLAIN)
    rows = RowsOf(blank, None, "l2", PLAIN, is_reranked=False, device=None, progress=SILENT)
    cells = compare(prepared.rule, blank.labels, prepared.sides, rows)
    found: Mask = np.logical_or.reduce([each.is_matched for each in cells.matches.values()])
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Embeddings that a protocol compares, and how."""

    rule: Rule
    embeddings: Embeddings
    other: Embeddings | None
    """Those of the other model, if two are fused: the same sequences in the same order."""
    sides: Sides
    remarks: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def precision(self) -> str | None:
        """In which the embeddings were computed; None where it is not known, or not the same of both models."""
        first = self.embeddings.precision
        return first if self.other is None or self.other.precision == first else None

    @property
    def conditions(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(side.condition for side in self.sides.each)


def check_only_common(options: EvaluationOptions) -> None:
    """Refuse `only_common` where there is one set of embeddings (ParameterError)."""
    require(
        options.fuse is not None or not options.only_common,
        "only_common",
        options.only_common,
        "left out where there is one set of embeddings",
    )


def absent_subjects(absent: list[str]) -> tuple[str, ...]:
    """A phrase about the subjects of TEST_SET that are not there, if there are some."""
    return (f"{len(absent)} subjects of TEST_SET are missing: {some_of(absent)}",) if absent else ()


def prepare(embeddings: Embeddings, protocol: str, options: EvaluationOptions) -> Prepared:
    """Choose and match the sequences. Raises what `evaluate_embeddings` raises before it computes."""
    rule = rule_of(protocol, options)
    remarks: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    where = "the embeddings"
    if options.partition is not None:
        names, absent = subjects_to_test(options, sorted(set(embeddings.subjects.tolist())), where=where)
        embeddings = embeddings.select(np.isin(embeddings.subjects, names))
        missing = absent_subjects(absent)
    check_only_common(options)
    other = options.fuse
    if other is not None:
        if options.partition is not None:
            names, _ = subjects_to_test(options, sorted(set(other.subjects.tolist())), where="the second embeddings")
            other = other.select(np.isin(other.subjects, names))
        embeddings, other, remarks = matched(embeddings, other, only_common=options.only_common)
        if embeddings.precision != other.precision:
            both = [each.precision or "an unknown precision" for each in (embeddings, other)]
            remarks += (f"the first model was computed in {both[0]}, the second in {both[1]}",)
    sides = sides_of(rule, embeddings.labels, options, where=where)
    return Prepared(rule=rule, embeddings=embeddings, other=other, sides=sides, remarks=remarks, missing=missing)


def _result(prepared: Prepared, distance: str, cells: Cells) -> EvaluationResult:
    rule, embeddings, sides = prepared.rule, prepared.embeddings, prepared.sides
    covered = coverage(embeddings, rule, sides)
    means = Means(cells, prepared.conditions, rule.headline)
    by_view = means.by_view(*cells.sums())
    by_condition = means.by_condition(by_view)
    columns = rule.columns
    in_gallery, in_probes = sides.gallery, sides.probes
    views = _views(rule, sides, embeddings)
    measured = (ALL_VIEWS, OTHER_VIEWS) if rule.view_pairs else cells.names  # where views are apart
    of_view: dict[str, Figures] = {
        condition: {view: _named(cells.names, by_view.get((condition, view)), measured) for view in views}
        for condition in prepared.conditions
        if any(cell.view is not None for cell in cells.each)
    }
    is_of_views = rule.table == "views"
    return EvaluationResult(
        protocol=rule.name,
        distance=distance,
        leaves_out=_LEFT_OUT[rule.leaves_out],
        rank1=_figure(of_view, "rank1") if is_of_views or rule.compares == "views" else {},
        mean_average_precision=_figure(of_view, "mAP") if is_of_views and "mAP" in columns else None,
        conditions={
            condition: _named(cells.names, figures)
            for condition, figures in zip(prepared.conditions, by_condition, strict=True)
        },
        by_view=of_view,
        metrics=_named(cells.names, means.overall(by_condition)),
        headline=rule.headline or ("mean over conditions" if len(prepared.conditions) > 1 or is_of_views else "all"),
        columns=() if is_of_views else columns,
        num_subjects=len(np.unique(embeddings.subjects[in_gallery | in_probes])),
        num_gallery_subjects=len(np.unique(embeddings.subjects[in_gallery])),
        num_probes=int(in_probes.sum()),
        num_gallery=int(in_gallery.sum()),
        num_tied=int(cells.is_tied.sum()),
        num_unmatched=int(cells.is_unmatched.sum()),
        num_missing=covered.num_missing,
        num_repeated=covered.num_repeated,
        num_unused=covered.num_unused,
        missing=(*prepared.missing, *covered.missing, *_alone(rule, sides, embeddings)),
        precision=prepared.precision,
        remarks=(*prepared.remarks, *unmatched(prepared, cells), *covered.remarks),
    )


def _views(rule: Rule, sides: Sides, embeddings: Embeddings) -> list[str]:
    used = rule.views(embeddings.views)[sides.gallery | sides.probes]
    return [str(view) for view in np.unique(used)]


def _named(
    names: tuple[str, ...], figures: Float64 | None, wanted: tuple[str, ...] | None = None
) -> dict[str, float | None]:
    values = [None] * len(names) if figures is None else [None if isnan(value) else value for value in figures.tolist()]
    by_name = dict(zip(names, values, strict=True))
    return {name: by_name[name] for name in wanted or names}


def _figure(by_view: Mapping[str, Figures], name: str) -> Figures:
    return {condition: {view: figures[name] for view, figures in views.items()} for condition, views in by_view.items()}


def _alone(rule: Rule, sides: Sides, embeddings: Embeddings) -> list[str]:
    """With a gallery at one view, that view's probes have none."""
    views = np.unique(rule.views(embeddings.views)[sides.gallery])
    if rule.compares == "views" and len(views) == 1:
        return [f"no gallery at another view for probes of view {views[0]}"]
    return []


def unmatched(prepared: Prepared, cells: Cells) -> list[str]:
    """Which probes have no gallery item of their subject, and how they count."""
    rule, embeddings = prepared.rule, prepared.embeddings
    remarks = []

    def remark(mask: Mask, text: str) -> None:
        if mask.any():
            remarks.append(f"{mask.sum()} {text}: {some_names(embeddings.names(mask))}")

    alone: Mask = np.logical_or.reduce([each.is_alone for each in cells.matches.values()])
    if rule.compares == "views":
        partly: Mask = np.logical_or.reduce([each.is_partly_matched for each in cells.matches.values()])
        for mask, where in ((cells.is_unmatched & ~alone, "any of the"), (partly, "some of the")):
            remark(mask, f"probes whose subject has no gallery item at {where} other views count as wrong there")
        return remarks
    at = {"own view": " at another view", "own walk": " in another walk"}.get(rule.leaves_out, "")
    result = "are left out" if rule.unmatched == "left out" else "count as wrong for rank-1 and are left out of mAP"
    for condition, each in cells.matches.items():
        named = condition if rule.probes else "of the"
        remark(
            each.is_unmatched & ~each.is_alone,
            f"{named} probes have no gallery item of their subject{at}, so they {result}",
        )
    for condition, each in cells.in_view_pairs.items():
        for mask, where in ((each.is_unmatched, "any"), (each.is_partly_matched, "some")):
            remark(
                mask,
                f"{condition} probes whose subject has no gallery item at {where} of the views count as wrong there in "
                "rank-1 of view pairs",
            )
    remark(alone, "probes have nothing to be compared with, so they are left out")
    return remarks


def _with_intervals(
    result: EvaluationResult, prepared: Prepared, cells: Cells, options: EvaluationOptions
) -> EvaluationResult:
    subjects: Int64 = np.unique(prepared.embeddings.subjects, return_inverse=True)[1]
    means = Means(cells, prepared.conditions, prepared.rule.headline)
    by_condition, overall = bootstrap(cells, means, subjects, options.bootstrap, options.seed)
    num_subjects = len(subjects_of_probes(cells, subjects)[0])
    headline = _ends(cells.names, overall)
    conditions = {condition: _ends(cells.names, by_condition[:, i]) for i, condition in enumerate(prepared.conditions)}
    ends = {**conditions, result.headline: headline}
    lacking = [
        where
        for where, figures in {**result.conditions, result.headline: result.metrics}.items()
        if any(figures[name] is not None and ends[where][name][0] is None for name in cells.names)
    ]
    return replace(
        result,
        intervals={
            "level": LEVEL,
            "resamples": options.bootstrap,
            "seed": options.seed,
            "subjects": num_subjects,
            "metrics": headline,
            "conditions": conditions,
        },
        remarks=(*result.remarks, *why_no_interval(num_subjects, lacking)),
    )


def _ends(names: tuple[str, ...], samples: Float64) -> dict[str, list[float | None]]:
    low, high = interval(samples)
    return {
        name: [None if isnan(end) else float(end) for end in ends] for name, *ends in zip(names, low, high, strict=True)
    }
