"""Which training subjects are held out for validation: named ones, or a share of them.

Test subjects are never among them.
"""

import re
from collections.abc import Collection, Sequence

from attengait.errors import ParameterError
from attengait.sampling.selection import parse_subjects, some_of

WHAT = "validation_subjects"
_SHARE = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,6})?) ?%")
_LEAST = 2


def held_out_subjects(
    spec: Sequence[str], trained: Sequence[str], available: Sequence[str], excluded: Collection[str] = ()
) -> list[str]:
    """The subjects that `spec` asks for, in the order of `trained`; an empty `spec` asks for nobody.

    A share such as 10% takes subjects at even distances, whatever the seed. Fewer than two are refused.

    Args:
        spec: as for `parse_subjects`, or one share.
        trained: the training subjects, from which they are taken.
        available: the subjects of the store.
        excluded: subjects that may be named, but are neither trained on nor tested.

    Raises ParameterError for a piece that is not understood or matches nobody, for a test subject, and for less than
    two subjects.
    """
    if not spec:
        return []
    if any("%" in piece for piece in spec) and not set(spec) <= set(available):
        return _share(spec, trained)
    asked = set(parse_subjects(spec, available, what=WHAT))
    if tested := sorted(asked - {*trained, *excluded}):
        raise ParameterError(
            f"{WHAT} is {','.join(spec)!r}, but must be among the {len(trained)} training subjects, which "
            f"{some_of(tested, 3)} {'are' if len(tested) > 1 else 'is'} not (a test subject must not choose anything)"
        )
    chosen = [name for name in trained if name in asked]
    if len(chosen) < _LEAST:
        raise ParameterError(f"{WHAT} is {','.join(spec)!r}, but must be at least {_LEAST} training subjects")
    return chosen


def _share(spec: Sequence[str], trained: Sequence[str]) -> list[str]:
    match = _SHARE.fullmatch(spec[0].strip()) if len(spec) == 1 else None
    if match is None or float(match[1]) == 0:
        raise ParameterError(
            f"{WHAT} is {','.join(spec)!r}, but must be subjects, or one share from above 0% to below 100%, such as 10%"
        )
    count = round(len(trained) * float(match[1]) / 100)
    if count < _LEAST:
        raise ParameterError(
            f"{WHAT} is {spec[0]!r}, which is {count} of {len(trained)} training subjects, but must be a share that is "
            f"at least {_LEAST} of them"
        )
    # The middle of each of `count` equal parts.
    return [trained[(2 * part + 1) * len(trained) // (2 * count)] for part in range(count)]
