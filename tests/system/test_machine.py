"""Cores and memory under the limits of control groups of both versions; the disk's rate."""

from pathlib import Path

import pytest

from attengait.system import machine

GIB = 1 << 30


def tree(root: Path, files: dict[str, str]) -> Path:
    files = {"proc/meminfo": f"MemTotal:  {64 * GIB // 1024} kB\nMemFree: 1 kB\n", **files}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    root = tree(tmp_path, {})
    assert machine.cgroup_cores(root) is None
    assert machine.cgroup_memory_bytes(root) is None
    assert machine.memory_bytes(root) == 64 * GIB
    assert machine.usable_cores(root) == machine.affinity_cores()
    assert machine.memory_bytes(tmp_path / "nowhere") is None


def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/jobs/7\n",
            "sys/fs/cgroup/jobs/7/cpu.max": "max 100000\n",
            "sys/fs/cgroup/jobs/7/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/jobs/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/jobs/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/cpu.max": "900000 100000\n",
        },
    )
    assert machine.cgroup_cores(root) == 1.5
    assert machine.cgroup_memory_bytes(root) == 4 * GIB
    assert machine.usable_cores(root) == min(2, machine.affinity_cores())


def test_a_container_sees_its_own_group_at_the_top(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../../outside\n",
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/memory.max": "max\n",
        },
    )
    assert machine.cgroup_cores(root) == 0.5
    assert machine.usable_cores(root) == 1
    assert machine.cgroup_memory_bytes(root) is None


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_control_groups_of_the_first_version_are_read(tmp_path: Path, folder: str) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n1:name=systemd:/\n",
            f"sys/fs/cgroup/{folder}/cpu.cfs_quota_us": "300000\n",
            f"sys/fs/cgroup/{folder}/cpu.cfs_period_us": "100000\n",
            f"sys/fs/cgroup/{folder}/docker/1/cpu.cfs_quota_us": "-1\n",
            f"sys/fs/cgroup/{folder}/docker/1/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert machine.cgroup_cores(root) == 3
    assert machine.cgroup_memory_bytes(root) == 2 * GIB


def test_no_limit_of_the_first_version_is_none(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert machine.cgroup_memory_bytes(root) is None


def test_this_machine_has_a_core_and_memory() -> None:
    assert 1 <= machine.usable_cores() <= machine.affinity_cores()
    assert (machine.memory_bytes() or 0) > GIB // 8
    assert machine.cpu_model()


def test_the_disk_is_measured_and_nothing_stays(tmp_path: Path) -> None:
    rate = machine.measure_disk(tmp_path, 8 << 20)
    assert rate.write_bytes_per_second > 0
    assert rate.read_bytes_per_second > 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        machine.measure_disk(tmp_path / "nowhere", 1)


MEMINFO = f"MemTotal:  {64 * GIB // 1024} kB\nMemAvailable:  {10 * GIB // 1024} kB\n"


def test_available_memory_is_the_least_of_the_machine_and_the_group(tmp_path: Path) -> None:
    free = tree(tmp_path / "free", {"proc/meminfo": MEMINFO})
    assert machine.available_memory_bytes(free) == 10 * GIB
    for name, limit, available in (("small", 4, 4), ("large", 40, 10)):
        limits = {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/memory.max": f"{limit * GIB}\n"}
        root = tree(tmp_path / name, {"proc/meminfo": MEMINFO, **limits})
        assert machine.available_memory_bytes(root) == available * GIB
    assert machine.available_memory_bytes(tmp_path / "nowhere") is None


def memory_group(folder: str, *, version: int, limit: int, used: int, cached: int) -> dict[str, str]:
    """The files of one control group; sizes in GiB."""
    limit_name, usage_name, cached_name = {
        1: ("limit_in_bytes", "usage_in_bytes", "total_inactive_file"),
        2: ("max", "current", "inactive_file"),
    }[version]
    # The first version also has the figure of the group alone, without the groups below it.
    own = f"inactive_file 1\n{cached_name}_dirty 5\n" if version == 1 else ""
    return {
        f"{folder}/memory.{limit_name}": f"{limit * GIB}\n",
        f"{folder}/memory.{usage_name}": f"{used * GIB}\n",
        f"{folder}/memory.stat": f"anon 12345\nactive_file 77\n{own}{cached_name} {cached * GIB}\n",
    }


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("used", "cached", "left"),
    [(0, 0, 8), (5, 0, 3), (7, 4, 5), (8, 0, 0), (9, 0, 0), (3, 5, 8)],
    ids=["unused", "used", "cached files are free", "full", "over the limit", "more cached than used"],
)
def test_available_memory_is_what_is_left_of_the_limit(
    tmp_path: Path, version: int, used: int, cached: int, left: int
) -> None:
    line, folder = {1: ("4:memory:/job\n", "sys/fs/cgroup/memory/job"), 2: ("0::/job\n", "sys/fs/cgroup/job")}[version]
    group = memory_group(folder, version=version, limit=8, used=used, cached=cached)
    root = tree(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": line, **group})
    assert machine.available_memory_bytes(root) == left * GIB
    assert machine.cgroup_memory_bytes(root) == 8 * GIB


@pytest.mark.parametrize("version", [1, 2])
def test_the_group_with_the_least_left_counts_wherever_it_is(tmp_path: Path, version: int) -> None:
    top, line = {1: ("sys/fs/cgroup/memory", "4:memory:/jobs/7\n"), 2: ("sys/fs/cgroup", "0::/jobs/7\n")}[version]
    own = memory_group(f"{top}/jobs/7", version=version, limit=6, used=1, cached=0)
    # The parent's limit is larger, but its other jobs use most of it.
    parent = memory_group(f"{top}/jobs", version=version, limit=20, used=19, cached=1)
    root = tree(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": line, **own, **parent})
    assert machine.available_memory_bytes(root) == 2 * GIB
    assert machine.cgroup_memory_bytes(root) == 6 * GIB
