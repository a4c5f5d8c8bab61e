"""The runs in a folder: how far each is, how it ended, and its best figures. No torch is loaded for it.

Everything is read from the small files of a run (`config.json`, `environment.json`, `metrics.jsonl`). What a run of
an earlier version does not say is None.
"""

import fcntl
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from attengait.errors import AttenGaitError
from attengait.model.run_folder import RECORD_NAME
from attengait.system.documents import is_intact, read_document
from attengait.training.environment import read_environment
from attengait.training.run_files import read_metrics

_MAX_DEPTH = 4
"""Of folders in folders."""
_FILES = ("checkpoint.pt", "environment.json")
"""One of them is in each run folder, beside config.json."""
_MAX_RECORD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """What is known of one run."""

    path: Path
    """Below the folder that was asked for."""
    state: str
    """running, finished, stopped early, stopped: REASON, failed: REASON, killed, damaged: REASON, or unknown."""
    step: int | None
    """Steps done, as far as they were logged."""
    num_steps: int | None
    loss: float | None
    """The total loss of the last logged step."""
    best_rank1: float | None
    """Of all validations; a fraction of 1."""
    best_step: int | None
    begun: str | None
    """When it was first started, in ISO 8601."""
    ended: str | None
    """When it ended, or was last heard of."""

    def to_dict(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {**asdict(self), "path": str(self.path)}


def list_runs(folder: Path) -> list[RunStatus]:
    """The runs in a folder and in the folders below it, by name; the folder itself if it is one.

    Stores and the insides of runs are not looked into. Raises AttenGaitError where there is no such folder.
    """
    if not folder.is_dir():
        raise AttenGaitError(f"{folder} is no folder: name one with runs in it")
    return [_status(run, run.relative_to(folder)) for run in sorted(_runs_below(folder, _MAX_DEPTH))]


def values_by_step(folder: Path, name: str) -> tuple[list[str], dict[int, list[float | None]]]:
    """The runs in a folder that logged a value such as validation/rank1, and at each step the value of each run.

    Raises AttenGaitError where there is no such folder, and where no run in it has the value.
    """
    logged = {str(run.path): read_metrics(folder / run.path) for run in list_runs(folder)}
    found = {
        path: {line["step"]: value for line in lines if (value := _number(line, name)) is not None}
        for path, lines in logged.items()
    }
    names = [path for path, values in found.items() if values]
    if not names:
        known = sorted({key for lines in logged.values() for line in lines for key in line if "/" in key})
        raise AttenGaitError(f"no run in {folder} has the value {name}: they have {', '.join(known) or 'none at all'}")
    steps = sorted({step for path in names for step in found[path]})
    return names, {step: [found[path].get(step) for path in names] for step in steps}


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # a folder of somebody else
        return
    names = {entry.name for entry in entries}
    if RECORD_NAME in names and names & set(_FILES):
        yield folder
    elif depth and "zarr.json" not in names:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _runs_below(Path(entry.path), depth - 1)


def _status(run: Path, path: Path) -> RunStatus:
    environment, metrics = read_environment(run), read_metrics(run)
    all_starts = environment.get("starts")
    starts = [start for start in all_starts if isinstance(start, dict)] if isinstance(all_starts, list) else []
    last = starts[-1] if starts else {}
    ended = last.get("ended") if isinstance(last.get("ended"), dict) else None
    trained = [line for line in metrics if _number(line, "train/total") is not None]
    validated = [line for line in metrics if _number(line, "validation/rank1") is not None]
    best = max(validated, key=lambda line: (line["validation/rank1"], -line["step"]), default=None)
    return RunStatus(
        path=path,
        state=_state(run, bool(starts), ended),
        step=metrics[-1]["step"] if metrics else None,
        num_steps=_whole(last, "num_steps"),
        loss=_number(trained[-1], "train/total") if trained else None,
        best_rank1=None if best is None else _number(best, "validation/rank1"),
        best_step=None if best is None else best["step"],
        begun=_time(starts[0]) if starts else None,
        ended=_time(ended or (metrics[-1] if metrics else last)),
    )


def _state(run: Path, is_known: bool, ended: Mapping[str, Any] | None) -> str:
    if _is_locked(run):
        return "running"
    try:
        if not is_intact(read_document(run / RECORD_NAME, max_bytes=_MAX_RECORD_BYTES)):
            return f"damaged: {RECORD_NAME} was changed"
    except (OSError, ValueError) as error:
        return f"damaged: {RECORD_NAME} cannot be read ({error})"
    if ended is not None:
        return str(ended.get("how", "unknown"))
    return "killed" if is_known else "unknown"


def _is_locked(run: Path) -> bool:
    """Whether a process trains in a run folder."""
    try:
        with (run / ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _whole(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    return value if type(value) is int else None


def _time(values: Mapping[str, Any]) -> str | None:
    """A time that can be read as one."""
    value = values.get("time")
    try:
        return datetime.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except ValueError:
        return None
