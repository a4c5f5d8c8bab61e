"""What a user chooses about flow: the backend, by name or `auto`, and the parameters of Farneback's method."""

import logging
from collections.abc import Sequence
from typing import Any, get_type_hints

from attengait.errors import ParameterError
from attengait.kernels.flow.backends import AUTO, BACKENDS, FarnebackParameters, check_farneback, resolve_backend
from attengait.store.layout import work_path
from attengait.store.location import Where
from attengait.store.opening import is_finished, open_store
from attengait.store.workfolder import WorkFolder
from attengait.store.writer import check_path
from attengait.system.lookup import look_up

_log = logging.getLogger(__name__)


def choose_flow(name: str, out: Where) -> str:
    """Return the backend that `name` means for a store at `out`.

    `auto` is what the store was begun or made with, where there is one, else what suits this machine. Raises
    ParameterError for an unknown name, AttenGaitError when something else is at `out`.
    """
    if name != AUTO:
        return resolve_backend(name)
    check_path(out)
    recorded = _recorded_recipe(out).get("flow")
    if recorded in BACKENDS:
        return str(recorded)
    chosen = resolve_backend(AUTO)
    if chosen == "opencv":
        _log.warning(
            "flow is opencv, because cpu cannot be used here: %s. Where it can, auto gives slightly other values",
            BACKENDS["cpu"].missing(),
        )
    return chosen


def farneback_parameters(flow: str, assignments: Sequence[str]) -> FarnebackParameters:
    """Turn `key=value` words into parameters; what is not named keeps the published value.

    Of a key that comes twice the last value counts. Raises ParameterError for a word without `=`, an unknown key, a
    value out of range, and any word at all for a backend that computes another flow than Farneback's.
    """
    if assignments:
        check_farneback(flow)
    known = get_type_hints(FarnebackParameters)
    parameters: dict[str, Any] = {}
    for word in assignments:
        key, equals, text = word.partition("=")
        key, text = key.strip(), text.strip()
        if not equals:
            raise ParameterError(f"--farneback is {word!r}, but must be KEY=VALUE, such as winsize=15")
        kind = look_up(known, key, "--farneback parameter")
        try:
            parameters[key] = kind(text) if kind in (int, float) else text
        except ValueError:
            parameters[key] = text  # refused below, with what would be accepted
    return FarnebackParameters(**parameters)


def _recorded_recipe(out: Where) -> dict[str, Any]:
    """The recipe of the store at `out`, finished or begun; empty where there is none."""
    if is_finished(out):
        recipe = open_store(out).attributes.get("recipe")
    else:
        plan = WorkFolder(work_path(out)).read_plan()
        recipe = plan.parameters.get("recipe") if plan is not None else None
    return recipe if isinstance(recipe, dict) else {}
