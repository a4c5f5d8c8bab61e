"""Cores, memory and disk of this machine, with the limits that a batch system or a container sets (Linux).

`root` is the root of the file system: tests put another tree there.
"""

import math
import mmap
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_BLOCK_BYTES = 4 << 20
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""The files of a limit and of what is used, and the name of cached files in memory.stat: second and first version."""


def cpu_model(root: Path = _ROOT) -> str:
    """The processor's name."""
    for line in _lines(root / "proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def affinity_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_cores(root: Path = _ROOT) -> float | None:
    """How many cores' time the control groups grant, or None without a limit."""
    granted = []
    for folder in _cgroup_folders("cpu", root):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not quota:  # the first version of control groups
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # no limit is "max", in the first version -1
            granted.append(int(quota) / int(period))
    return min(granted, default=None)


def usable_cores(root: Path = _ROOT) -> int:
    """Cores that are worth a worker each: those of the affinity, within what the control groups grant."""
    granted = cgroup_cores(root)
    return affinity_cores() if granted is None else max(1, min(affinity_cores(), math.ceil(granted)))


def memory_bytes(root: Path = _ROOT) -> int | None:
    """The machine's memory; None where it does not say."""
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def available_memory_bytes(root: Path = _ROOT) -> int | None:
    """Memory that can be taken without swapping or being killed; None where nothing says.

    It is the least of what the machine has available and what is left to each control group of this process.
    """
    available = [
        int(line.split()[1]) * 1024 for line in _lines(root / "proc/meminfo") if line.startswith("MemAvailable:")
    ]
    return min([*available, *(group.left_bytes for group in _limited_groups(root))], default=None)


def cgroup_memory_bytes(root: Path = _ROOT) -> int | None:
    """The memory that the control groups grant, used or not; None where they set no limit."""
    return min((group.limit_bytes for group in _limited_groups(root)), default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class _LimitedGroup:
    """A control group that limits the memory of its processes."""

    limit_bytes: int
    used_bytes: int
    """Without the cached files that the kernel drops first when the group needs memory."""

    @property
    def left_bytes(self) -> int:
        return max(0, self.limit_bytes - self.used_bytes)


def _limited_groups(root: Path) -> Iterator[_LimitedGroup]:
    """The group of this process and those above it, as far as they set a limit below the machine's memory."""
    total = memory_bytes(root)
    for folder in _cgroup_folders("memory", root):
        for limit_name, usage_name, cached_name in _MEMORY_FILES:
            limit = _text(folder / limit_name)
            # No limit is "max", in the first version a number larger than any memory.
            if not limit.isdigit() or (total is not None and int(limit) >= total):
                continue
            usage = _text(folder / usage_name)
            cached = [
                int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.startswith(cached_name + " ")
            ]
            used = int(usage) if usage.isdigit() else 0
            yield _LimitedGroup(limit_bytes=int(limit), used_bytes=max(0, used - sum(cached)))


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskRate:
    """How fast one file is written and read, in bytes per second."""

    write_bytes_per_second: float
    """With the time until it is on the disk (fsync)."""
    read_bytes_per_second: float
    """After the system was asked to drop the file from its page cache, which not every file system does."""


def measure_disk(folder: Path, num_bytes: int) -> DiskRate:
    """Write and read a temporary file of about that size, block by block; raises OSError."""
    num_blocks = max(1, num_bytes // _BLOCK_BYTES)
    # Page-aligned; random, so that no file system gets away with compressing it.
    with mmap.mmap(-1, _BLOCK_BYTES) as block, tempfile.TemporaryFile(prefix=".attengait-doctor-", dir=folder) as file:
        block.write(os.urandom(_BLOCK_BYTES))
        descriptor = file.fileno()
        started = time.perf_counter()
        for _ in range(num_blocks):
            _write_all(descriptor, memoryview(block))
        os.fsync(descriptor)
        written = time.perf_counter()
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(descriptor, 0, os.SEEK_SET)
        begun = time.perf_counter()
        while os.readv(descriptor, [block]):
            pass
        read = time.perf_counter()
    size = num_blocks * _BLOCK_BYTES
    return DiskRate(
        write_bytes_per_second=size / (written - started),
        read_bytes_per_second=size / (read - begun),
    )


def _write_all(descriptor: int, block: memoryview) -> None:
    with block:
        done = 0
        while done < len(block):
            done += os.write(descriptor, block[done:])


def _cgroup_folders(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's control group and of those above it, of both versions."""
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            tops = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif controller in controllers.split(","):
            tops = [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup" / controller]
        else:
            continue
        # In a container the path may be that of the world outside; the top is there all the same.
        parts = Path(path.strip("/")).parts
        for top in tops:
            for depth in range(len(parts), -1, -1):
                yield top.joinpath(*parts[:depth])


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    """A file's text without the blanks at its ends; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
