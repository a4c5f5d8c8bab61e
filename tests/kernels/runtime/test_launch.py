"""What CuPy is told and what becomes of its complaints: a stand-in for it takes notes, so that no GPU is needed."""

import ctypes
import logging
import mmap
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attengait.errors import AttenGaitError
from attengait.kernels.runtime import compile as compiling
from attengait.kernels.runtime import launch
from attengait.kernels.runtime.launch import CudaDevice, Device, HostDevice


class CompileError(Exception):
    """Not a RuntimeError, as CuPy's is none."""


class Event:
    def __init__(self, launches: list[tuple[Any, ...]]) -> None:
        self.launches, self.stream = launches, ""

    def synchronize(self) -> None:
        self.launches.append(("wait here for", self.stream))


class Stream:
    """Notes what it is told; with `cupy` it becomes the current one inside `with`."""

    def __init__(self, name: str, launches: list[tuple[Any, ...]], cupy: "Cupy | None" = None) -> None:
        self.name = self.ptr = name
        self.launches, self.cupy = launches, cupy

    def __enter__(self) -> None:
        assert self.cupy is not None
        self.cupy.current = self

    def __exit__(self, *_: object) -> None:
        assert self.cupy is not None
        self.cupy.current = self.cupy.stream

    def synchronize(self) -> None:
        self.launches.append(("synchronize",))

    def record(self, event: Event) -> Event:
        event.stream = self.name
        return event

    def wait_event(self, event: Event) -> None:
        self.launches.append((self.name, "waits for", event.stream))


class DeviceArray:
    """An array that lies on the host."""

    def __init__(self, values: np.ndarray, launches: list[tuple[Any, ...]]) -> None:
        self.values, self.launches = values, launches
        self.data = SimpleNamespace(ptr=values.ctypes.data)
        self.shape, self.dtype, self.size, self.nbytes = values.shape, values.dtype, values.size, values.nbytes

    def get(self, *, out: np.ndarray, blocking: bool) -> None:
        self.launches.append(("get", blocking))
        out[...] = self.values


class Cupy(SimpleNamespace):
    """As much of CuPy as launching needs; `modules` are the code and options it was given, `launches` the calls."""

    def __init__(self) -> None:
        self.modules: list[tuple[str, tuple[str, ...]]] = []
        self.launches: list[tuple[Any, ...]] = []
        runtime = SimpleNamespace(getDeviceCount=lambda: 1, getDeviceProperties=lambda index: {"name": b"NVIDIA H100"})
        self.RawModule = self.make_module
        device = SimpleNamespace(use=lambda: None)
        compiler = SimpleNamespace(CompileException=CompileError)
        self.stream = Stream("current", self.launches)
        self.current = self.stream
        self.cuda = SimpleNamespace(
            get_current_stream=lambda: self.current,
            runtime=runtime,
            compiler=compiler,
            Device=lambda index: device,
            Stream=lambda non_blocking: Stream(f"uploads, non-blocking {non_blocking}", self.launches, self),
            Event=lambda **flags: Event(self.launches),
            alloc_pinned_memory=lambda size: bytearray(size + 100),  # CuPy rounds up
        )
        runtime.memcpyHostToDevice = 1
        runtime.memcpyAsync = self.copy
        runtime.hostRegister = lambda *call: self.launches.append(("register", *call))
        runtime.hostUnregister = lambda *call: self.launches.append(("unregister", *call))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> "DeviceArray":
        self.launches.append(("empty on", self.current.name))
        return DeviceArray(np.zeros(shape, dtype), self.launches)

    def copy(self, to: int, what: int, size: int, kind: int, stream: str) -> None:
        assert kind == 1
        ctypes.memmove(to, what, size)
        self.launches.append(("copy on", stream, size))

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


def test_an_upload_has_a_stream_of_its_own_for_which_the_current_one_waits(cupy: Cupy) -> None:
    device = CudaDevice()
    parts = [np.arange(12, dtype=np.uint8).reshape(2, 2, 3), np.arange(50, 56, dtype=np.uint8).reshape(1, 2, 3)]
    uploaded = device.start_upload(parts)
    np.testing.assert_array_equal(uploaded.values, np.concatenate(parts))
    own = "uploads, non-blocking True"
    expected = [("empty on", own), ("copy on", own, 12), ("copy on", own, 6), ("current", "waits for", own)]
    assert cupy.launches == expected
    device.start_upload(parts)
    assert cupy.launches == expected * 2


def test_a_download_is_waited_for_only_when_it_is_asked_for(cupy: Cupy) -> None:
    values = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    wait = CudaDevice().start_download(DeviceArray(values, cupy.launches))
    assert cupy.launches == [("get", False)]
    np.testing.assert_array_equal(wait(), values)
    assert cupy.launches == [("get", False), ("wait here for", "current")]


def test_memory_is_registered_and_no_longer(cupy: Cupy) -> None:
    memory = np.zeros(100, np.uint8)
    unpin = CudaDevice().pin(memory)
    assert cupy.launches == [("register", memory.ctypes.data, 100, 0)]
    unpin()
    assert cupy.launches[1:] == [("unregister", memory.ctypes.data)]


def test_memory_that_cannot_be_registered_is_said_once(cupy: Cupy, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("cudaErrorMemoryAllocation: out of memory")

    cupy.cuda.runtime.hostRegister = refuse
    device = CudaDevice()
    for _ in range(2):
        device.pin(np.zeros(100, np.uint8))()
    said = "NVIDIA H100 cannot pin memory, so uploads are slower: cudaErrorMemoryAllocation: out of memory"
    assert [record.getMessage() for record in caplog.records] == [said]
    assert cupy.launches == []


@pytest.mark.parametrize("kind", ["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_what_is_uploaded_from_registered_memory_comes_down_again(kind: str) -> None:
    device: Device = HostDevice() if kind == "host" else CudaDevice()
    with closing(mmap.mmap(-1, 8 << 20)) as memory:
        pictures = np.frombuffer(memory, np.uint8).reshape(-1, 64, 64)
        pictures[:] = np.random.default_rng(0).integers(0, 256, pictures.shape, np.uint8)
        unpin = device.pin(pictures.reshape(-1))
        uploaded = device.start_upload([pictures[5:900], pictures[:3]])
        wait = device.start_download(device.xp.bitwise_xor(uploaded, 255))
        np.testing.assert_array_equal(wait(), 255 - np.concatenate([pictures[5:900], pictures[:3]]))
        unpin()
        del pictures


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
    logging.getLogger(compiling.__name__).addHandler(handler)
    yield handler
    logging.getLogger(compiling.__name__).removeHandler(handler)


def test_a_slow_compilation_says_what_is_compiled(
    cupy: Cupy, hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_until_it_is_said(**_: object) -> SimpleNamespace:
        assert hearing.event.wait(600)
        return SimpleNamespace(get_function=lambda name: lambda *call: None)

    compiling._say.cache_clear()
    monkeypatch.setattr(compiling, "SLOW_COMPILE_SECONDS", 0)
    cupy.RawModule = compile_until_it_is_said
    launch_find_rows(CudaDevice())
    assert hearing.said == [
        "compiling pictures/crop.cu for NVIDIA H100 (SIZE 64); CuPy keeps the result for later runs"
    ]


def test_a_quick_compilation_says_nothing(cupy: Cupy, hearing: Hearing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "SLOW_COMPILE_SECONDS", 600)
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
    *others, last = launch.HEADERS
    changed = tmp_path / last.name
    changed.write_text(f"{last.read_text()}// longer\n")
    monkeypatch.setattr(launch, "HEADERS", (*others, changed))
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
