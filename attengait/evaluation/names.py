"""Names of sequences as evaluation compares them: one view has one name, and the same sequence is found twice."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.sampling.selection import DISTRACTOR, UNLABELLED

Names = NDArray[np.str_]
Name = tuple[str, str, str]
"""Subject, walk and view."""

_NUMBER = re.compile(r"[0-9]{1,18}")


def one_name_for_each_view(views: NDArray[Any], subjects: NDArray[Any] | None = None) -> Names:
    """Views [n] as text. A number becomes three digits: "0", "00" and "000" are the same view, "000".

    The view of an unlabelled probe is the name of a video. With `subjects` [n], such views are kept as they are.

    >>> one_name_for_each_view(np.array(["0", "000", "90", "left"])).tolist()
    ['000', '000', '090', 'left']
    """
    distinct, which = np.unique(views, return_inverse=True)
    texts = [str(view) for view in distinct.tolist()]
    names = [f"{int(text):03d}" if _NUMBER.fullmatch(text) else text for text in texts]
    found = np.array(names, dtype=np.str_)[which]
    if subjects is None or not (is_video := subjects == UNLABELLED).any():
        return found
    return np.array(np.where(is_video, np.array(texts, np.str_)[which], found), np.str_)


def has_label(subjects: NDArray[Any]) -> NDArray[np.bool_]:
    """[n]: who has a name of his or her own: neither an unlabelled probe nor a distractor."""
    labelled: NDArray[np.bool_] = (subjects != UNLABELLED) & (subjects != DISTRACTOR)
    return labelled


def repeated(names: Iterable[Name]) -> list[Name]:
    """Each name as often as it is there beyond the first time, sorted."""
    seen: set[Name] = set()
    again: list[Name] = []
    for name in names:
        if name in seen:
            again.append(name)
        seen.add(name)
    return sorted(again)


def written_in_two_ways(subjects: Iterable[str]) -> list[str]:
    """The subjects, sorted, whose names are the same number as another's, such as 75 and 075."""
    by_value: dict[int, set[str]] = {}
    for subject in subjects:
        if _NUMBER.fullmatch(subject):
            by_value.setdefault(int(subject), set()).add(subject)
    return sorted(name for names in by_value.values() if len(names) > 1 for name in names)


def as_path(name: Name) -> str:
    """Like 075/nm-01/090."""
    return "/".join(name)
