"""Asking the driver for GPUs: a stand-in for libcuda answers as the real one does."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from attengait.kernels.runtime import gpu
from attengait.kernels.runtime.gpu import Driver, Gpu, find_driver, format_cuda_version


def cuda(status: int = 0, count: int = 2) -> SimpleNamespace:
    """libcuda with two devices; `status` is what its initialisation gives."""

    def answer(*values: Any) -> Callable[..., int]:
        """A function that puts the value of the device it is asked about where its first argument points."""

        def function(target: Any, *rest: Any) -> int:
            value = values[getattr(rest[-1], "value", 0) if len(values) > 1 else 0]
            getattr(target, "_obj", target).value = value
            return 0

        return function

    def set_index(device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def set_attribute(value: Any, attribute: int, device: Any) -> int:
        value._obj.value = {75: (9, 7), 76: (0, 5)}[attribute][device.value]
        return 0

    functions = {
        "cuInit": lambda flags: status,
        "cuDriverGetVersion": answer(12040),
        "cuDeviceGetCount": answer(count),
        "cuDeviceGet": set_index,
        "cuDeviceGetName": answer(b"H100", b"T4"),
        "cuDeviceTotalMem_v2": answer(80 << 30, 16 << 30),
        "cuDeviceGetAttribute": set_attribute,
        "cuGetErrorName": lambda status, text: answer(b"CUDA_ERROR_NO_DEVICE")(text),
    }
    return SimpleNamespace(**functions)


def ask(monkeypatch: pytest.MonkeyPatch, library: object) -> Driver:
    monkeypatch.setattr(gpu, "load_library", lambda name: library if name == "libcuda.so.1" else None)
    return find_driver.__wrapped__()


def test_devices_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, cuda()) == Driver(
        gpus=(
            Gpu(name="H100", memory_bytes=80 << 30, compute_capability=(9, 0)),
            Gpu(name="T4", memory_bytes=16 << 30, compute_capability=(7, 5)),
        ),
        cuda_version="12.4",
    )


@pytest.mark.parametrize(
    ("library", "problem"),
    [
        (None, "no NVIDIA driver is installed (libcuda.so.1 is not found)"),
        (cuda(status=100), "the NVIDIA driver gives no GPU (cuInit failed: CUDA_ERROR_NO_DEVICE)"),
        (cuda(count=0), "the NVIDIA driver lists no GPU"),
    ],
)
def test_no_gpu_comes_with_its_reason(monkeypatch: pytest.MonkeyPatch, library: object, problem: str) -> None:
    driver = ask(monkeypatch, library)
    assert driver.gpus == ()
    assert driver.problem == problem


def test_versions_are_written_as_people_do() -> None:
    assert [format_cuda_version(number) for number in (11080, 12040, 13000)] == ["11.8", "12.4", "13.0"]


def test_a_library_that_is_not_there_is_none() -> None:
    assert gpu.load_library("libnothing-of-the-kind.so.1") is None
    assert isinstance(gpu.load_library("libc.so.6"), ctypes.CDLL)


def test_the_real_driver_or_its_absence_is_no_crash_and_loads_no_gpu_library() -> None:
    program = (
        "import sys\nfrom attengait.kernels.runtime.gpu import find_driver\nd = find_driver()\n"
        "assert d.gpus or d.problem\nprint(sorted({'torch', 'cupy', 'nvidia.dali'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""
