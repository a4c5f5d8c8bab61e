"""Asking the driver for GPUs: a stand-in for libcuda answers as the real one does."""

import ctypes
import subprocess
import sys
from typing import Any

import pytest

from attengait.kernels import gpu
from attengait.kernels.gpu import Driver, Gpu, find_driver, format_cuda_version


class Cuda:
    """libcuda with two devices."""

    def __init__(self, status: int = 0, count: int = 2) -> None:
        self.status, self.count = status, count

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802
        number._obj.value = 12040
        return 0

    def cuDeviceGetCount(self, number: Any) -> int:  # noqa: N802
        number._obj.value = self.count
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = b"H100" if device.value == 0 else b"T4"
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, device: Any) -> int:  # noqa: N802
        size._obj.value = (80 if device.value == 0 else 16) << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: (9, 7), 76: (0, 5)}[attribute][device.value]
        return 0

    def cuGetErrorName(self, status: int, text: Any) -> int:  # noqa: N802
        text._obj.value = b"CUDA_ERROR_NO_DEVICE"
        return 0


def ask(monkeypatch: pytest.MonkeyPatch, cuda: Cuda | None) -> Driver:
    monkeypatch.setattr(gpu, "load_library", lambda name: cuda if name == "libcuda.so.1" else None)
    return find_driver.__wrapped__()


def test_devices_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, Cuda()) == Driver(
        gpus=(
            Gpu(name="H100", memory_bytes=80 << 30, compute_capability=(9, 0)),
            Gpu(name="T4", memory_bytes=16 << 30, compute_capability=(7, 5)),
        ),
        cuda_version="12.4",
    )


@pytest.mark.parametrize(
    ("cuda", "problem"),
    [
        (None, "no NVIDIA driver is installed (libcuda.so.1 is not found)"),
        (Cuda(status=100), "the NVIDIA driver gives no GPU (cuInit failed: CUDA_ERROR_NO_DEVICE)"),
        (Cuda(count=0), "the NVIDIA driver lists no GPU"),
    ],
)
def test_no_gpu_comes_with_its_reason(monkeypatch: pytest.MonkeyPatch, cuda: Cuda | None, problem: str) -> None:
    driver = ask(monkeypatch, cuda)
    assert driver.gpus == ()
    assert driver.problem == problem


def test_versions_are_written_as_people_do() -> None:
    assert [format_cuda_version(number) for number in (11080, 12040, 13000)] == ["11.8", "12.4", "13.0"]


def test_a_library_that_is_not_there_is_none() -> None:
    assert gpu.load_library("libnothing-of-the-kind.so.1") is None
    assert isinstance(gpu.load_library("libc.so.6"), ctypes.CDLL)


def test_the_real_driver_or_its_absence_is_no_crash_and_loads_no_gpu_library() -> None:
    program = (
        "import sys\nfrom attengait.kernels.gpu import find_driver\nd = find_driver()\n"
        "assert d.gpus or d.problem\nprint(sorted({'torch', 'cupy', 'nvidia.dali'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""
