"""Whether torchrun, or what `--gpus` starts, has started this process with others. torch is not loaded."""

import os

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets."""


def is_started_by_torchrun() -> bool:
    """Whether the environment says that this process is one of several."""
    return all(name in os.environ for name in _VARIABLES) and os.environ["WORLD_SIZE"] != "1"
