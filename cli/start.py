"""Where the command begins. Signals get their meaning before anything large is imported."""

import atexit

from attengait.cli.signals import Signals


def main() -> None:
    """Import the command line, and run it."""
    signals = Signals()
    signals.end_at_once()
    signals.repeat_dropped()
    atexit.register(signals.finish)  # the first that is registered is the last that is called
    from attengait.cli.main import run

    run(signals)
