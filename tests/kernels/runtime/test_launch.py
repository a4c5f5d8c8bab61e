"""What CuPy is told and what becomes of its complaints: a stand-in for it takes notes, so that no GPU is needed."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attengait.errors import AttenGaitError
from attengait.kernels.runtime import launch
from attengait.kernels.runtime.launch import CudaDevice


class CompileError(Exception):
    """Not a RuntimeError, as CuPy's is none."""


class Cupy(SimpleNamespace):
    """As much of CuPy as launching needs; `modules` are the code and options it was given, `launches` the calls."""

    def __init__(self) -> None:
        self.modules: list[tuple[str, tuple[str, ...]]] = []
        self.launches: list[tuple[Any, ...]] = []
        runtime = SimpleNamespace(getDeviceCount=lambda: 1, getDeviceProperties=lambda index: {"name": b"NVIDIA H100"})
        self.RawModule = self.make_module
        device = SimpleNamespace(use=lambda: None)
        compiler = SimpleNamespace(CompileException=CompileError)
        stream = SimpleNamespace(synchronize=lambda: self.launches.append(("synchronize",)))
        self.cuda = SimpleNamespace(
            get_current_stream=lambda: stream, runtime=runtime, compiler=compiler, Device=lambda index: device
        )

    def make_module(self, *, code: str, options: tuple[str, ...]) -> SimpleNamespace:
        self.modules.append((code, options))
        return SimpleNamespace(get_function=lambda name: lambda *call: self.launches.append((name, *call)))


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Cupy:
    cupy = Cupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(launch, "cuda_missing", lambda: None)
    return cupy


def launch_find_rows(device: CudaDevice, size: int = 64) -> None:
    device.launch("pictures/crop.cu", "find_rows", (1, 1, 5), (np.int32(7),), {"SIZE": size})


def test_a_kernel_is_compiled_once_for_its_defines_and_launched_over_the_grid(cupy: Cupy) -> None:
    device = CudaDevice()
    for size in (64, 64, 32):
        launch_find_rows(device, size)
    assert [options[-2:] for _, options in cupy.modules] == [(f"-DSIZE={size}", "--fmad=false") for size in (64, 32)]
    assert cupy.launches == [("find_rows", (1, 1, 5), (launch.THREADS,), (np.int32(7),))] * 3


def test_the_kernels_of_a_source_are_compiled_together(cupy: Cupy) -> None:
    device = CudaDevice()
    for kernel in ("find_rows", "find_middles", "find_rows"):
        device.launch("pictures/crop.cu", kernel, (1, 1, 5), (), {"SIZE": 64})
    assert len(cupy.modules) == 1
    assert [name for name, *_ in cupy.launches] == ["find_rows", "find_middles", "find_rows"]


def test_waiting_is_for_the_current_stream(cupy: Cupy) -> None:
    CudaDevice().wait()
    assert cupy.launches == [("synchronize",)]


class Hearing(logging.Handler):
    """Keeps what is said, and lets others wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.event = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        self.event.set()


@pytest.fixture
def hearing() -> Iterator[Hearing]:
    handler = Hearing()
    logging.getLogger(launch.__name__).addHandler(handler)
    yield handler
    logging.getLogger(launch.__name__).removeHandler(handler)


def test_a_slow_compilation_says_what_is_compiled(
    cupy: Cupy, hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_until_it_is_said(**_: object) -> SimpleNamespace:
        assert hearing.event.wait(600)
        return SimpleNamespace(get_function=lambda name: lambda *call: None)

    monkeypatch.setattr(launch, "SLOW_COMPILE_SECONDS", 0)
    cupy.RawModule = compile_until_it_is_said
    launch_find_rows(CudaDevice())
    assert hearing.said == [
        "compiling pictures/crop.cu for NVIDIA H100 (SIZE 64); CuPy keeps the result for later runs"
    ]


def test_a_quick_compilation_says_nothing(cupy: Cupy, hearing: Hearing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SLOW_COMPILE_SECONDS", 600)
    launch_find_rows(CudaDevice())
    assert hearing.said == []
    # The timer ends with the compilation, not ten minutes later.
    for thread in [each for each in threading.enumerate() if isinstance(each, threading.Timer)]:
        thread.join(600)
        assert not thread.is_alive()


@pytest.mark.parametrize("kind", [RuntimeError, ImportError, OSError])
def test_a_missing_nvrtc_is_one_sentence(cupy: Cupy, kind: type[Exception]) -> None:
    def refuse(name: str) -> None:
        raise kind("CuPy failed to load libnvrtc.so.12: OSError: libnvrtc.so.12: cannot open shared object file")

    cupy.RawModule = lambda **_: SimpleNamespace(get_function=refuse)
    sentence = (
        r"^pictures/crop\.cu cannot be compiled for NVIDIA H100: CuPy failed to load libnvrtc[^\n]+; run pip install"
    )
    with pytest.raises(AttenGaitError, match=sentence):
        launch_find_rows(CudaDevice())


def test_a_changed_header_is_never_met_by_what_cupy_kept_of_the_old_one(
    cupy: Cupy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch_find_rows(CudaDevice())
    first, second = launch.HEADERS
    changed = tmp_path / second.name
    changed.write_text(f"{second.read_text()}// longer\n")
    monkeypatch.setattr(launch, "HEADERS", (first, changed))
    launch_find_rows(CudaDevice())
    (before, options), (after, same_options) = cupy.modules
    assert options == same_options
    assert before != after


def test_a_source_that_does_not_compile_is_one_sentence(cupy: Cupy) -> None:
    def refuse(**_: object) -> None:
        raise CompileError("\nnvrtc: error: invalid value for --gpu-architecture (-arch)\n")

    cupy.RawModule = refuse
    with pytest.raises(
        AttenGaitError, match=r"^pictures/crop\.cu cannot be compiled for NVIDIA H100: nvrtc: error: [^\n]+$"
    ):
        launch_find_rows(CudaDevice())


def refuse_import() -> None:
    cause = OSError("libnvrtc.so.12: cannot open shared object file")
    raise ImportError("\n=====\nFailed to import CuPy.\n=====\n") from cause


def refuse_driver() -> int:
    raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")


@pytest.mark.parametrize(("failure", "reason"), [(refuse_import, "libnvrtc"), (refuse_driver, "cudaErrorInsuff")])
def test_a_cupy_that_does_not_fit_the_machine_is_one_sentence(
    cupy: Cupy, failure: Callable[[], int], reason: str
) -> None:
    cupy.cuda.runtime.getDeviceCount = failure
    with pytest.raises(AttenGaitError, match=rf"^CuPy cannot use the GPU: {reason}[^\n]+$"):
        CudaDevice()


def test_a_gpu_that_is_not_there_is_named(cupy: Cupy) -> None:
    with pytest.raises(AttenGaitError, match="there is no GPU 3: this machine has 1, counted from 0"):
        CudaDevice(3)
