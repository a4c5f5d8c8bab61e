"""The two errors a user may see: each is one sentence, printed without a traceback by the command line.

Every ParameterError has one form: `NAME is VALUE, but must be WHAT`.
"""


class AttenGaitError(Exception):
    """Input that is missing, damaged or does not fit together (exit status 1).

    >>> attengait.open_store("nowhere.zarr")
    Traceback (most recent call last):
    attengait.errors.AttenGaitError: nowhere.zarr does not exist
    """

    exit_status = 1


class ParameterError(AttenGaitError, ValueError):
    """A parameter outside what is accepted: names it, its value and what would be accepted (exit status 2).

    >>> attengait.FlowRecipe(gap="x")
    Traceback (most recent call last):
    attengait.errors.ParameterError: gap is 'x', but must be skip or bridge
    """

    exit_status = 2


def how_to_install(*extras: str) -> str:
    """The end of a sentence about a missing package: how to install AttenGait with one of `extras`, or with none.

    AttenGait is not on a package index, so this is what works in a checkout.
    """
    commands = [f"pip install '.[{extra}]'" for extra in extras] or ["pip install ."]
    return f"run {' or '.join(commands)} in AttenGait's checkout"


def require(accepted: bool, name: str, value: object, what: str) -> None:
    """Raise ParameterError unless `accepted`: `NAME is VALUE, but must be WHAT`.

    >>> require(False, "epochs", 0, "at least 1")
    Traceback (most recent call last):
    attengait.errors.ParameterError: epochs is 0, but must be at least 1
    """
    if not accepted:
        raise ParameterError(f"{name} is {value!r}, but must be {what}")
