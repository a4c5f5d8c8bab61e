"""What this process holds: memory, threads and open files, as Linux counts them."""

import os
from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self")


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Of one process at one moment."""

    own_bytes: int
    """Memory that is in use and of nobody else."""
    mapped_bytes: int
    """Memory in use that the system takes back when it needs it: files of a store, and the code of libraries."""
    threads: int
    files: int
    """Open file handles of any kind."""


def usage() -> Usage:
    """Of this process, now."""
    status = _status()
    return Usage(
        own_bytes=status["RssAnon"] + status["RssShmem"],
        mapped_bytes=status["RssFile"],
        threads=status["Threads"],
        files=len(os.listdir(_SELF / "fd")) - 1,  # one is of looking
    )


def begin_peak() -> int:
    """Forget how much memory was ever in use; returns how much is now, in bytes."""
    (_SELF / "clear_refs").write_text("5")
    return _status()["VmRSS"]


def peak_bytes() -> int:
    """The most memory in use at a time since `begin_peak`, or ever."""
    return _status()["VmHWM"]


def _status() -> dict[str, int]:
    """Numbers of /proc/self/status, sizes in bytes."""
    found = {}
    for line in (_SELF / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
    return found
