"""Checkpoints of a run folder: everything that a resumed run needs to continue with the very same numbers.

    RUN/config.json        settings, training subjects and the store they came from
    RUN/checkpoint.pt      step, weights, optimiser and loss scaler, in one atomic file
    RUN/model.safetensors  the weights alone, for `attengait.load_model`

Batches, augmentation and dropout are pure functions of (seed, step), so no random state needs saving.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attengait.errors import AttenGaitError
from attengait.model.loading import fit_weights, save_weights
from attengait.model.net import AttenGait
from attengait.system.files import write_atomically
from attengait.training.config import TrainingConfig, make_config, settings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What RUN/config.json says about a run."""

    config: TrainingConfig
    subjects: list[str]
    """Training subjects; a label is an index into them."""
    store: dict[str, Any]
    """What identifies the training store: sequences, frames, a digest of its columns, modality and encoding."""


def write_record(run: Path, record: RunRecord) -> None:
    """Write RUN/config.json."""
    fields = {"config": settings_of(record.config), "subjects": record.subjects, "store": record.store}
    write_atomically(run / "config.json", (json.dumps(fields, indent=2) + "\n").encode())


def read_record(run: Path) -> RunRecord:
    """Read RUN/config.json. Raises AttenGaitError where there is none or it is damaged."""
    path = run / "config.json"
    try:
        fields = json.loads(path.read_text())
        return RunRecord(config=make_config(fields["config"]), subjects=fields["subjects"], store=fields["store"])
    except FileNotFoundError:
        raise AttenGaitError(f"{run} is not the folder of a training run: it has no config.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise AttenGaitError(f"{path} is damaged or of another version: {error}") from None


def save_checkpoint(
    run: Path, *, step: int, model: AttenGait, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> None:
    """Write the state after `step` steps.

    Each file is either the old or the new one, never a part. The weights are written first: a run that is killed in
    between repeats the steps since the old checkpoint, and writes the same weights again.
    """
    save_weights(model, run / "model.safetensors")
    buffer = io.BytesIO()
    state = {"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save({**state, "scaler": scaler.state_dict()}, buffer)
    write_atomically(run / "checkpoint.pt", buffer.getvalue())


def load_checkpoint(
    run: Path, *, model: AttenGait, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> int:
    """Restore a run's state in place and return the number of steps done.

    Raises AttenGaitError where the checkpoint is missing, damaged, or does not fit the model (naming the first tensor
    and both shapes).
    """
    path = run / "checkpoint.pt"
    if not path.is_file():
        raise AttenGaitError(f"{run} has no checkpoint.pt to resume from: start it without --resume")
    try:
        # Optimiser state stays on the CPU here: load_state_dict moves it to where the weights are.
        state = torch.load(path, map_location="cpu", weights_only=True)
        step, weights = int(state["step"]), state["model"]
    except Exception as error:
        # torch.load raises many unrelated types (zip, pickle, runtime) for a damaged file.
        raise AttenGaitError(f"{path} cannot be read, it is damaged ({type(error).__name__})") from None
    fit_weights(model, weights, path)
    try:
        optimiser.load_state_dict(state["optimiser"])
        scaler.load_state_dict(state["scaler"])
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise AttenGaitError(f"{path} was written by another version: its optimiser does not fit ({error})") from None
    return step
