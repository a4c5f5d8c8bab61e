"""Finds NVIDIA GPUs by asking the driver: in milliseconds, and without any GPU library.

The libraries of the driver (libcuda, libnvidia-ml) are called through ctypes, so neither torch nor CuPy is loaded. GPUs
that CUDA_VISIBLE_DEVICES hides are not found.
"""

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute in cuda.h
_NAME_BYTES = 256

FIRST_WITH_HARDWARE_FLOW = (7, 5)
"""Compute capability of Turing, the first with optical flow hardware."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One device."""

    name: str
    """Such as NVIDIA H100."""
    memory_bytes: int
    compute_capability: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """What the driver says about itself and its devices."""

    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None
    """Why there is no GPU, as one sentence; None if there is one."""
    version: str | None = None
    """Of the driver, such as 550.54.15."""
    cuda_version: str | None = None
    """The newest CUDA that the driver runs, such as 12.4."""


class _DriverError(Exception):
    """A call that the driver refused."""


@lru_cache(maxsize=1)
def find_driver() -> Driver:
    """Ask the driver, once for each process."""
    cuda = load_library("libcuda.so.1")
    if cuda is None:
        return Driver(problem="no NVIDIA driver is installed (libcuda.so.1 is not found)")
    version = _driver_version()
    try:
        _call(cuda, "cuInit", 0)
        number = ctypes.c_int()
        _call(cuda, "cuDriverGetVersion", ctypes.byref(number))
        cuda_version = format_cuda_version(number.value)
        _call(cuda, "cuDeviceGetCount", ctypes.byref(number))
        gpus = tuple(_describe(cuda, index) for index in range(number.value))
    except _DriverError as error:
        return Driver(problem=f"the NVIDIA driver gives no GPU ({error})", version=version)
    problem = None if gpus else "the NVIDIA driver lists no GPU"
    return Driver(gpus=gpus, problem=problem, version=version, cuda_version=cuda_version)


def format_cuda_version(number: int) -> str:
    """From CUDA's number of a version to the usual text: 12040 is 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"


def load_library(name: str) -> Any:
    """A shared library, or None if it is not installed."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _describe(cuda: Any, index: int) -> Gpu:
    device, value, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(cuda, "cuDeviceGet", ctypes.byref(device), index)
    _call(cuda, "cuDeviceGetName", name, _NAME_BYTES, device)
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(size), device)
    capability = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        _call(cuda, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Gpu(
        name=name.value.decode(errors="replace"),
        memory_bytes=size.value,
        compute_capability=(capability[0], capability[1]),
    )


def _call(cuda: Any, function: str, *arguments: Any) -> None:
    status = getattr(cuda, function)(*arguments)
    if status:
        text = ctypes.c_char_p()
        known = cuda.cuGetErrorName(status, ctypes.byref(text)) == 0 and text.value is not None
        raise _DriverError(f"{function} failed: {(text.value or b'').decode() if known else f'error {status}'}")


def _driver_version() -> str | None:
    nvml = load_library("libnvidia-ml.so.1")
    if nvml is None or nvml.nvmlInit_v2():
        return None
    text = ctypes.create_string_buffer(80)  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
    failed = nvml.nvmlSystemGetDriverVersion(text, len(text))
    nvml.nvmlShutdown()
    return None if failed else text.value.decode(errors="replace")
