"""What this machine has for the work: GPUs, libraries, compilers, cores, memory, disk, and which flow can be computed.

Nothing here is required. If something is missing or broken, the report says so, and goes on. torch is not loaded.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attengait
from attengait.kernels.runtime.compile import find_compiler
from attengait.kernels.runtime.gpu import FIRST_WITH_HARDWARE_FLOW, find_driver, format_cuda_version
from attengait.system import machine
from attengait.system.packages import installed

DISK_BYTES = 64 << 20
"""Size of the file that is written and read."""

WAITING = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What decides how many threads compute, and how long they spin while they wait for one another."""

_COMMAND_SECONDS = 5.0

Report = dict[str, Any]


def examine(folder: Path) -> Report:
    """Return what was found, ready for JSON: sections of entries; `folder` is where the disk is measured.

    An entry is None where there is nothing; an entry or a section that could not be found out is {"problem": sentence}.
    """
    return {
        "attengait": {
            "version": attengait.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "gpu": _safely(_gpus),
        "libraries": {
            "dali": _safely(_dali),
            "cupy": _safely(_cupy),
            "torch": _safely(_torch),
            "opencv": _safely(_opencv),
        },
        "compilers": {"c++": _safely(_cpp), "nvcc": _safely(_nvcc), "nvrtc": _safely(_nvrtc)},
        "processor": _safely(_processor),
        "threads": _safely(_threads),
        "memory": _safely(_memory),
        "disk": _safely(lambda: _disk(folder)),
        "flow": _safely(_flow),
    }


def _safely(find: Callable[[], Any]) -> Any:
    """The result of `find`, or its error: a broken library may raise any exception."""
    try:
        return find()
    except Exception as error:
        return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _gpus() -> Report:
    driver = find_driver()
    return {
        "driver": driver.version,
        "driver_cuda": driver.cuda_version,
        "devices": [
            {
                "name": gpu.name,
                "memory_bytes": gpu.memory_bytes,
                "compute_capability": ".".join(map(str, gpu.compute_capability)),
            }
            for gpu in driver.gpus
        ],
        "problem": driver.problem,
        "hardware_flow": _safely(_hardware_flow),
    }


def _hardware_flow() -> str:
    from attengait.kernels.flow.backends import BACKENDS

    sentence = BACKENDS["nvof"].missing()
    gpus = find_driver().gpus
    if sentence is None:
        return "yes"
    if not gpus or gpus[0].compute_capability < FIRST_WITH_HARDWARE_FLOW:
        return "no"
    return f"unknown: {sentence}"


def _dali() -> Report | None:
    builds = {name: number for name, number in installed("nvidia-dali").items() if "-cuda" in name}
    if not builds:
        return None
    decoders = find_spec("nvidia") is not None and find_spec("nvidia.nvimgcodec") is not None
    found: Report = {
        "builds": builds,
        "decoders": decoders,
        "decoder_packages": installed("nvidia-nvimgcodec", "nvidia-nvjpeg", "nvidia-nvjpeg2k", "nvidia-nvtiff"),
    }
    if len(builds) > 1:
        found["problem"] = "two builds overwrite each other: uninstall both and install one"
    return found


def _cupy() -> Report | None:
    builds = installed("cupy")
    if not builds:
        return None
    return {"builds": builds, "runtime": _safely(_cuda_runtime)}


def _cuda_runtime() -> str:
    return format_cuda_version(import_module("cupy").cuda.runtime.runtimeGetVersion())


def _torch() -> Report | None:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    # Read, not loaded: that takes seconds.
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    cuda = re.search(r"^cuda\b.*=\s*['\"](.+)['\"]", text, re.MULTILINE)
    return {"version": metadata.version("torch"), "cuda": cuda.group(1) if cuda else None}


def _opencv() -> Report:
    cv2 = import_module("cv2")
    built = re.search(r"NVIDIA CUDA:\s+YES", cv2.getBuildInformation()) is not None
    return {"version": cv2.__version__, "cuda": built}


def _cpp() -> str | None:
    compiler = find_compiler()
    return None if compiler is None else _first_line([*shlex.split(compiler), "--version"])


def _nvcc() -> str | None:
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc") or next(
        (found for home in [*homes, "/usr/local/cuda"] if (found := shutil.which("nvcc", path=f"{home}/bin"))), None
    )
    if nvcc is None:
        return None
    release = re.search(r"release ([\d.]+)", _output([nvcc, "--version"]))
    return f"{nvcc} {release.group(1) if release else ''}".strip()


def _nvrtc() -> str | None:
    wheels = installed("nvidia-cuda-nvrtc")
    if not wheels and not installed("cupy"):
        return None
    if wheels:
        return ", ".join(f"{name} {number}" for name, number in wheels.items())
    return "{}.{}".format(*import_module("cupy").cuda.nvrtc.getVersion())


def _processor() -> Report:
    return {
        "model": machine.cpu_model(),
        "cores": os.cpu_count(),
        "affinity_cores": machine.affinity_cores(),
        "cgroup_cores": machine.cgroup_cores(),
        "usable_cores": machine.usable_cores(),
    }


def _threads() -> Report | None:
    """The OpenMP of torch, and what the environment says about how its threads wait for one another."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    libraries = (Path(spec.origin).parent / "lib").glob("lib*omp*.so*")
    names = sorted(path.name for path in libraries if path.name.startswith(("libgomp", "libiomp", "libomp")))
    return {"openmp": names, "environment": {name: os.environ[name] for name in WAITING if name in os.environ}}


def _memory() -> Report:
    return {"bytes": machine.memory_bytes(), "cgroup_bytes": machine.cgroup_memory_bytes()}


def _disk(folder: Path) -> Report:
    free = shutil.disk_usage(folder).free
    found: Report = {"folder": str(folder.resolve()), "free_bytes": free}
    if free < 2 * DISK_BYTES:
        return found | {"problem": "too full to measure"}
    try:
        rate = machine.measure_disk(folder, DISK_BYTES)
    except OSError as error:
        return found | {"problem": f"it cannot be written: {error.strerror or error}"}
    return found | {
        "write_bytes_per_second": round(rate.write_bytes_per_second),
        "read_bytes_per_second": round(rate.read_bytes_per_second),
    }


def _flow() -> Report:
    from attengait.kernels.flow.backends import AUTO, BACKENDS, resolve_backend

    return {
        "auto": resolve_backend(AUTO),
        "backends": {
            name: {"needs": backend.needs, "missing": _safely(backend.missing)} for name, backend in BACKENDS.items()
        },
    }


def _first_line(command: list[str]) -> str:
    return next(iter(_output(command).splitlines()), command[0])


def _output(command: list[str]) -> str:
    """What a command prints; raises OSError or TimeoutExpired."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    return done.stdout
