"""A wish to stop, which a long job hears at its next safe point. Who turns signals into wishes is the command line."""

from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Passed to a job, and kept by whoever may stop it.

    A job can stop cleanly only between its steps. `is_heard` says whether it has come so far; before that (while it
    reads a store into memory, say) a wish is of no use, and whoever has it must end the job in another way.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        """The number of the signal that asks to stop; None as long as nobody does."""
        self.is_heard = False

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Say for the time of a block that the job looks at `signal` between its steps."""
        self.is_heard = True
        try:
            yield
        finally:
            self.is_heard = False
