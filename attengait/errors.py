"""The two errors a user may see: each is one sentence, printed without a traceback by the command line."""


class AttenGaitError(Exception):
    """Input that is missing, damaged or does not fit together (exit status 1)."""

    exit_status = 1


class ParameterError(AttenGaitError, ValueError):
    """A parameter outside what is accepted: names it, its value and what would be accepted (exit status 2)."""

    exit_status = 2
