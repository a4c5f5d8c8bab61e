"""Where the command begins. Signals get their meaning before anything large is imported."""

import atexit
import resource
import sys

from attengait.cli.signals import Signals

MIN_ADDRESS_MB = 600
"""The import of OpenCV dies of a segmentation fault where a process may have fewer addresses: measured at 520."""


def main() -> None:
    """Import the command line, and run it."""
    signals = Signals()
    signals.end_at_once()
    signals.repeat_dropped()
    atexit.register(signals.finish)  # the first that is registered is the last that is called
    limit_bytes = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit_bytes != resource.RLIM_INFINITY and limit_bytes < MIN_ADDRESS_MB << 20:
        sys.exit(
            f"attengait: a process may have {limit_bytes >> 20} MB of addresses here (ulimit -v), but must be allowed "
            f"at least {MIN_ADDRESS_MB} MB"
        )
    from attengait.cli.main import run

    run(signals)
