"""What embeddings lack for a protocol, hold twice or hold beside it, counted and in words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.names import Name, as_path, repeated, written_in_two_ways
from attengait.evaluation.roles import Roles
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
    """Rows of walks that the protocol does not use."""


def coverage(embeddings: Embeddings, roles: Roles) -> Coverage:
    """Count and name what is missing, repeated and unused."""
    names = list(
        zip(embeddings.subjects.tolist(), embeddings.sequences.tolist(), embeddings.views.tolist(), strict=True)
    )
    used_walks = {*roles.gallery, *roles.probe_walks}
    used = {name for name in names if name[1] in used_walks}
    subjects = sorted({subject for subject, _, _ in used})
    views = sorted({view for _, _, view in used})
    groups = [("gallery", roles.gallery), *((f"{condition} probe", walks) for condition, walks in roles.probes.items())]
    missing: list[str] = []
    num_missing = 0
    for what, walks in groups:
        expected = set(product(subjects, walks, views))
        missing += _missing_of(what, subjects, walks, views, used & expected)
        num_missing += len(expected - used)
    unused = [walk for _, walk, _ in names if walk not in used_walks]
    again = repeated(names)
    return Coverage(
        missing=tuple(missing),
        remarks=tuple(_remarks(again, unused, subjects)),
        num_missing=num_missing,
        num_repeated=len(again),
        num_unused=len(unused),
    )


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


def _remarks(again: Sequence[Name], unused: Sequence[str], subjects: Sequence[str]) -> list[str]:
    remarks = []
    if again:
        of_names = some_names(sorted(set(again)))
        remarks.append(f"{len(again)} repeated rows of sequences that are there already, each row counts: {of_names}")
    if unused:
        remarks.append(
            f"{len(unused)} sequences of walks that the protocol does not use: {some_of(sorted(set(unused)))}"
        )
    if twins := written_in_two_ways(subjects):
        remarks.append(f"subjects whose names are the same number count as different people: {some_of(twins)}")
    return remarks


def some_names(names: Iterable[Name]) -> str:
    """At most five sequences, such as 075/nm-01/090, 075/nm-01/108, ..."""
    return some_of([as_path(name) for name in names])


def _counted(kind: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{kind} {names[0]}"
    return f"{len(names)} {kind}s: {some_of(names)}"
