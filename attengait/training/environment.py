"""RUN/environment.json: with what a run was computed. It says so for each time the run was started or continued.

    {"data": what identifies the stores,
     "starts": [{"time", "step", "num_steps", "device", "command", "git", "versions", "machine",
                 "ended": {"time", "step", "how", "cuda_graphs": {"graphs", "bytes", "why_not"}}}]}

`ended` is missing as long as a run goes on, and where it was killed.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attengait
from attengait.errors import AttenGaitError
from attengait.store.location import Location
from attengait.system.documents import read_document
from attengait.system.files import write_atomically
from attengait.system.machine import affinity_cores, cpu_model, memory_bytes
from attengait.system.packages import installed
from attengait.training.run_files import now

ENVIRONMENT_NAME = "environment.json"
_MAX_BYTES = 64 << 20
_GIT_SECONDS = 10.0
_PACKAGES = ("torch", "numpy", "nvidia-dali", "cupy", "opencv", "zarr", "tensorstore", "safetensors")


def note_start(run: Path, about: Mapping[str, Any], step: int) -> None:
    """Add a start after `step` steps. `about` is a summary; a part that it lacks is None."""
    noted = read_environment(run)
    start = {
        "time": now(),
        "step": step,
        "num_steps": about.get("steps", {}).get("total"),
        "device": about.get("device"),
        "command": command_line(sys.argv),
        "git": git_state(Path.cwd()),
        "versions": versions(),
        "machine": {"processor": cpu_model(), "cores": affinity_cores(), "memory_bytes": memory_bytes()},
    }
    data = {key: value for key, value in about.get("data", {}).items() if key in ("stores", "fingerprint")}
    starts = noted.get("starts") if step else None  # a run that begins anew has no past
    _write(run, {"data": data, "starts": [*(starts if isinstance(starts, list) else []), start]})


def note_end(run: Path, step: int, how: str, cuda_graphs: Mapping[str, Any] | None) -> None:
    """Say of the last start how it ended, after `step` steps in all, and how many CUDA graphs computed its steps."""
    noted = read_environment(run)
    starts = noted.get("starts")
    if isinstance(starts, list) and starts and isinstance(starts[-1], dict):
        starts[-1]["ended"] = {"time": now(), "step": step, "how": how, "cuda_graphs": cuda_graphs}
        _write(run, noted)


def read_environment(run: Path) -> dict[str, Any]:
    """What RUN/environment.json says; nothing where it is not there or is damaged."""
    try:
        return read_document(run / ENVIRONMENT_NAME, max_bytes=_MAX_BYTES)
    except (OSError, ValueError):
        return {}


def command_line(words: Sequence[str]) -> list[str]:
    """A command as it was typed: without the folder of its program, and without what is secret in a URL."""
    if not words:
        return []
    program = Path(words[0])
    name = program.parent.name if program.name == "__main__.py" else program.name  # python -m attengait
    return [name, *map(_without_secrets, words[1:])]


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, branch and whether tracked files were changed; None where `folder` is in no repository, or git fails."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "branch": branch, "is_changed": bool(changed)}


def versions() -> dict[str, str]:
    """Of Python, AttenGait and the packages that have a hand in the numbers; of torch also its build, as +cu130."""
    import torch

    own = {"python": platform.python_version(), "attengait": attengait.__version__}
    return own | installed(*_PACKAGES) | {"torch": str(torch.__version__)}


def _git(folder: Path, *words: str) -> str:
    # Without locks, so that a git of the user's does not meet one.
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_GIT_SECONDS,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.strip()


def _without_secrets(word: str) -> str:
    if "://" not in word:
        return word
    try:
        return str(Location.parse(word))
    except AttenGaitError:
        return word.partition("?")[0]


def _write(run: Path, content: Mapping[str, Any]) -> None:
    write_atomically(run / ENVIRONMENT_NAME, (json.dumps(content, indent=2) + "\n").encode())
