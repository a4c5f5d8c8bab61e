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


def test_available_memory_is_within_what_is_granted(tmp_path: Path) -> None:
    meminfo = f"MemTotal:  {64 * GIB // 1024} kB\nMemAvailable:  {10 * GIB // 1024} kB\n"
    free = tree(tmp_path / "free", {"proc/meminfo": meminfo})
    assert machine.available_memory_bytes(free) == 10 * GIB
    limit = {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/memory.max": f"{4 * GIB}\n"}
    assert machine.available_memory_bytes(tree(tmp_path / "job", {"proc/meminfo": meminfo, **limit})) == 4 * GIB
    assert machine.available_memory_bytes(tmp_path / "nowhere") is None
