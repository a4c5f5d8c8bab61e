"""What validations found: the best one, and whether it is time to stop.

    RUN/best/config.json        the record of the run
    RUN/best/model.safetensors  the weights of the best validation

`RUN/best` is a run folder like RUN, so that whatever takes a run takes it, too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attengait.model.loading import WEIGHTS_NAME, save_weights
from attengait.model.net import AttenGait
from attengait.model.run_folder import RECORD_NAME
from attengait.system.documents import require_keys, shortened
from attengait.system.files import write_atomically

BEST_FOLDER = "best"
_KEYS = ("rank1", "step", "since", "last_step")


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How well the held-out subjects are recognised. Fractions of 1."""

    protocol: str
    rank1: float
    more: Mapping[str, float] = field(default_factory=dict)
    """Other figures of the protocol, by name."""
    num_subjects: int
    """Those who could be recognised."""
    num_probes: int
    """Sequences that were to be recognised."""


@dataclass(slots=True)
class Best:
    """The best validation so far. It is part of a checkpoint."""

    rank1: float = -1.0
    """Below 0 where there was no validation yet."""
    step: int = 0
    since: int = 0
    """Validations after the best one."""
    last_step: int = 0
    """The step of the last validation."""

    def hear(self, rank1: float, step: int) -> bool:
        """Take note of a validation; returns whether it is better than all before it."""
        is_better = rank1 > self.rank1
        self.last_step = step
        if is_better:
            self.rank1, self.step, self.since = rank1, step, 0
        else:
            self.since += 1
        return is_better

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {key: getattr(self, key) for key in _KEYS}

    def load_state_dict(self, state: Any) -> None:
        """Take over what `state_dict` returned. Raises ValueError for anything else."""
        if not isinstance(state, dict):
            raise ValueError(f"its validation is {shortened(state)}, but must be a dictionary")
        require_keys(state, _KEYS)
        if type(state["rank1"]) is not float or not math.isfinite(state["rank1"]):
            raise ValueError(f"its best rank1 is {shortened(state['rank1'])}, but must be a finite number")
        for key in _KEYS[1:]:
            if type(state[key]) is not int or not 0 <= state[key] < 2**62:
                raise ValueError(f"its validation has {key} {shortened(state[key])}, but must have a whole number")
        for key in _KEYS:
            setattr(self, key, state[key])


def save_best(run: Path, model: AttenGait, record_sha256: str) -> None:
    """Write the weights of the best validation. A reader sees the old weights or the new ones."""
    folder = run / BEST_FOLDER
    folder.mkdir(exist_ok=True)
    if (run / RECORD_NAME).exists():  # each time: it is another one after the run was made longer
        write_atomically(folder / RECORD_NAME, (run / RECORD_NAME).read_bytes())
    save_weights(model, folder / WEIGHTS_NAME, record_sha256=record_sha256 or None)
