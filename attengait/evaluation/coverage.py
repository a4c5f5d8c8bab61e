"""What embeddings lack for a protocol, hold twice or hold beside it, counted and in words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.names import Name, as_path, repeated, written_in_two_ways
from attengait.evaluation.rule import Rule, matching
from attengait.evaluation.sides import Sides
from attengait.sampling.selection import some_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How embeddings and a protocol fit together. A sequence is expected of each subject, walk and view."""

    missing: tuple[str, ...]
    """What is not there, one phrase each."""
    remarks: tuple[str, ...]
    """What is there and may surprise, one phrase each."""
    num_missing: int
    """Sequences of the protocol that are not there."""
    num_repeated: int
    """Rows whose subject, walk and view an earlier row has, too."""
    num_unused: int
    """Rows that are neither probe nor gallery."""


def coverage(embeddings: Embeddings, rule: Rule, sides: Sides) -> Coverage:
    """Count and name what is missing, repeated and unused."""
    names = embeddings.names(np.arange(len(embeddings)))
    is_used = (sides.probes | sides.gallery).tolist()
    used = {name for name, is_it in zip(names, is_used, strict=True) if is_it}
    subjects = sorted({subject for subject, _, _ in used})
    views = sorted({view for _, _, view in used})
    missing: list[str] = list(sides.missing)
    num_missing = sides.num_missing
    groups = [
        *((f"{_of(rule, condition)}gallery", walks) for condition, walks in _galleries(rule)),
        *((f"{condition} probe", walks) for condition, walks in rule.probes.items()),
    ]
    for what, walks in groups:
        if rule.complete:
            expected = set(product(subjects, walks, views))
            missing += _missing_of(what, subjects, walks, views, used & expected)
            num_missing += len(expected - used)
        elif not matching(np.array([walk for _, walk, _ in used], np.str_), walks).any():
            missing.append(f"no {what} at all ({', '.join(walks)})")
    unused = [name for name, is_it in zip(names, is_used, strict=True) if not is_it]
    again = repeated(name for name, is_it in zip(names, is_used, strict=True) if is_it)
    remarks = remarks_on(again, unused)
    if twins := written_in_two_ways(subjects):
        remarks.append(f"subjects whose names are the same number count as different people: {some_of(twins)}")
    return Coverage(
        missing=tuple(missing),
        remarks=tuple(remarks),
        num_missing=num_missing,
        num_repeated=len(again),
        num_unused=len(unused),
    )


def _galleries(rule: Rule) -> list[tuple[str, tuple[str, ...]]]:
    """Walks by condition; one gallery, of all conditions, has no name."""
    return list(rule.galleries.items()) if rule.galleries else [("", rule.gallery)] if rule.gallery else []


def _of(rule: Rule, condition: str) -> str:
    return f"{condition} " if rule.galleries else ""


def _missing_of(
    what: str, subjects: Sequence[str], walks: Sequence[str], views: Sequence[str], present: set[Name]
) -> list[str]:
    """Which walks, views and subjects are not there at all, and then which single sequences."""
    if not present:
        return [f"no {what} at all ({', '.join(walks)})"]
    there = tuple({name[i] for name in present} for i in range(3))
    phrases = [
        f"no {what} {preposition} {_counted(kind, absent)}"
        for kind, preposition, i, expected in (
            ("walk", "of", 1, walks),
            ("view", "at", 2, views),
            ("subject", "of", 0, subjects),
        )
        if (absent := [name for name in expected if name not in there[i]])
    ]
    holes = sorted(set(product(there[0], there[1], there[2])) - present)
    if holes:
        plural = "s are" if len(holes) > 1 else " is"
        phrases.append(f"{len(holes)} {what} sequence{plural} missing: {some_names(holes)}")
    return phrases


def remarks_on(again: Sequence[Name], unused: Sequence[Name]) -> list[str]:
    """Phrases on sequences that are there more than once, and on those that are not used."""
    remarks = []
    if again:
        of_names = some_names(sorted(set(again)))
        remarks.append(f"{len(again)} repeated rows of sequences that are there already, each row counts: {of_names}")
    if unused:
        remarks.append(
            f"{len(unused)} sequences that the protocol does not use, of the walks "
            f"{some_of(sorted({walk for _, walk, _ in unused}))}"
        )
    return remarks


def some_names(names: Iterable[Name]) -> str:
    """At most five sequences, such as 075/nm-01/090, 075/nm-01/108, ..."""
    return some_of([as_path(name) for name in names])


def _counted(kind: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{kind} {names[0]}"
    return f"{len(names)} {kind}s: {some_of(names)}"
