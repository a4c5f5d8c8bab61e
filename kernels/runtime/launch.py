"""Runs the .cu kernels: on an NVIDIA GPU through CuPy, or on the host, compiled by its C++ compiler.

Both devices have the same few methods. So the code that launches kernels is written once, and the tests on the host run
the code that runs on a GPU. The host is for tests, not for speed: one thread runs one block after the other. Kernels
are compiled at first use. Both compilers keep the result in their caches.
"""

import ctypes
import functools
import importlib
import importlib.util
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, how_to_install
from attengait.kernels.runtime.compile import build, find_compiler, said_when_slow
from attengait.kernels.runtime.gpu import find_driver

SOURCES = Path(__file__).parents[1]
"""Names of sources, such as pictures/crop.cu, are relative to this folder."""
INCLUDES = Path(__file__).parent
HEADERS = (INCLUDES / "device.h", INCLUDES / "pieces.h", INCLUDES / "angle.h")
THREADS = 256
"""Threads of every block, the same as in device.h."""

Array = Any
"""An array on a device: numpy.ndarray on the host, cupy.ndarray on a GPU."""

EXACT_SOURCES = frozenset({"pictures/crop.cu"})
"""Sources whose float32 operations must each be rounded: no fused multiply-add."""

_log = logging.getLogger(__name__)


class Device(Protocol):
    """Something that runs kernels."""

    name: str
    index: int | None
    """Which GPU it is, counted from 0; None on the host."""

    @property
    def xp(self) -> Any:
        """The module that makes arrays there: numpy or cupy."""
        ...

    def launch(
        self, source: str, kernel: str, grid: Sequence[int], arguments: Sequence[Any], defines: Mapping[str, int]
    ) -> None:
        """Start a kernel of a source, such as `pictures/crop.cu`, on a grid of blocks (x, y, z); do not wait for it.

        `arguments` are arrays of the device, and numpy scalars whose types are exactly those of the kernel.
        """
        ...

    def upload(self, array: NDArray[Any]) -> Array:
        """Return an array of the host as one of the device, contiguous."""
        ...

    def download(self, array: Array) -> NDArray[Any]:
        """Return an array of the device as one of the host."""
        ...

    def pin(self, memory: NDArray[np.uint8]) -> Callable[[], None]:
        """Make memory of the host such that the device reads it while others compute; what is returned undoes it."""
        ...

    def start_upload(self, parts: Sequence[NDArray[Any]]) -> Array:
        """Start to copy arrays of the host [n, ...] into one array of the device [sum of n, ...]; do not wait for it.

        The copy has a stream of its own, so it does not wait for what is computed. What is launched afterwards on the
        current stream waits for the copy. Until that is done, the parts must not change, and the array must be kept.
        """
        ...

    def start_download(self, array: Array) -> Callable[[], NDArray[Any]]:
        """Start to copy an array of the device. What is returned waits for the copy, and returns it."""
        ...

    def wait(self) -> None:
        """Return when all that was started before is done, on the current stream."""
        ...

    def free_memory_bytes(self) -> int:
        """Free memory of the device."""
        ...


class CudaDevice:
    """An NVIDIA GPU. Kernels run on CuPy's current stream; a caller chooses another one by `with stream:`."""

    def __init__(self, index: int = 0) -> None:
        """Raises AttenGaitError if CuPy or the GPU is missing, or if CuPy does not work with the driver."""
        sentence = cuda_missing()
        if sentence is not None:
            raise AttenGaitError(f"a CUDA device cannot be used: {sentence}")
        try:
            self._cupy = importlib.import_module("cupy")
            num_devices = self._cupy.cuda.runtime.getDeviceCount()
        except (ImportError, RuntimeError) as error:  # built for another CUDA than the driver, or libraries are missing
            raise AttenGaitError(f"CuPy cannot use the GPU: {_one_line(error.__cause__ or error)}") from error
        if not 0 <= index < num_devices:
            raise AttenGaitError(f"there is no GPU {index}: this machine has {num_devices}, counted from 0")
        self.index: int | None = index
        self._device = self._cupy.cuda.Device(index)
        properties = self._cupy.cuda.runtime.getDeviceProperties(index)
        self.name = properties["name"].decode()
        self._modules: dict[tuple[str, frozenset[tuple[str, int]]], Any] = {}
        self._kernels: dict[tuple[str, str, frozenset[tuple[str, int]]], Any] = {}
        self._uploads: Any = None
        self._is_refusal_said = False

    @property
    def xp(self) -> Any:
        """The module cupy, with this GPU made the current one."""
        self._device.use()
        return self._cupy

    def launch(
        self, source: str, kernel: str, grid: Sequence[int], arguments: Sequence[Any], defines: Mapping[str, int]
    ) -> None:
        """See Device. A source is compiled once for its defines.

        Raises AttenGaitError when it cannot be compiled for this GPU, or when there is no NVRTC to compile it with.
        """
        self._device.use()
        key = (source, kernel, frozenset(defines.items()))
        if key not in self._kernels:
            self._kernels[key] = self._compile(source, kernel, defines)
        self._kernels[key](tuple(grid), (THREADS,), tuple(arguments))

    def _compile(self, source: str, kernel: str, defines: Mapping[str, int]) -> Any:
        key = (source, frozenset(defines.items()))
        values = ", ".join(f"{name} {value}" for name, value in sorted(defines.items()))
        what = f"{source} for {self.name} ({values}); CuPy keeps the result for later runs"
        try:
            with said_when_slow(what):
                if key not in self._modules:
                    self._modules[key] = self._module(source, defines)
                return self._modules[key].get_function(kernel)  # CuPy compiles at the first one
        except (self._cupy.cuda.compiler.CompileException, ImportError, OSError, RuntimeError) as error:
            self._modules.pop(key, None)
            why = _one_line(error)
            hint = f"; {how_to_install('cuda12', 'cuda13')}" if "nvrtc.so" in why else ""
            raise AttenGaitError(f"{source} cannot be compiled for {self.name}: {why}{hint}") from error

    def _module(self, source: str, defines: Mapping[str, int]) -> Any:
        options = ["-std=c++17", f"-I{INCLUDES}", *_define_flags(defines)]
        if source in EXACT_SOURCES:
            options.append("--fmad=false")
        # CuPy's cache does not look at the included headers, so their digests are made a part of the source.
        digests = [f"// {header.name}: {sha256(header.read_bytes()).hexdigest()}\n" for header in HEADERS]
        code = (SOURCES / source).read_text() + "".join(digests)
        return self._cupy.RawModule(code=code, options=tuple(options))

    def upload(self, array: NDArray[Any]) -> Array:
        """See Device."""
        return self.xp.asarray(np.ascontiguousarray(array))

    def download(self, array: Array) -> NDArray[Any]:
        """See Device. Waits until the current stream is done."""
        self._device.use()
        downloaded: NDArray[Any] = array.get()
        return downloaded

    def pin(self, memory: NDArray[np.uint8]) -> Callable[[], None]:
        """See Device. Where the driver refuses, a warning says so once, and uploads take longer."""
        self._device.use()
        runtime, address = self._cupy.cuda.runtime, memory.ctypes.data
        try:
            runtime.hostRegister(address, memory.nbytes, 0)
        except RuntimeError as error:
            if not self._is_refusal_said:
                _log.warning("%s cannot pin memory, so uploads are slower: %s", self.name, _one_line(error))
            self._is_refusal_said = True
            return lambda: None

        def unpin() -> None:
            self._device.use()
            runtime.hostUnregister(address)

        return unpin

    def start_upload(self, parts: Sequence[NDArray[Any]]) -> Array:
        """See Device."""
        xp, cuda = self.xp, self._cupy.cuda
        if self._uploads is None:
            # An ordinary stream would wait for the legacy default stream, and that one for it.
            self._uploads = cuda.Stream(non_blocking=True)
        # CuPy gives memory that is freed to the stream it was taken on. So it is taken on the stream that writes first.
        with self._uploads:
            whole = xp.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
            address = whole.data.ptr
            for part in map(np.ascontiguousarray, parts):
                cuda.runtime.memcpyAsync(
                    address, part.ctypes.data, part.nbytes, cuda.runtime.memcpyHostToDevice, self._uploads.ptr
                )
                address += part.nbytes
            arrived = self._uploads.record(cuda.Event(disable_timing=True))
        cuda.get_current_stream().wait_event(arrived)
        return whole

    def start_download(self, array: Array) -> Callable[[], NDArray[Any]]:
        """See Device. It is copied on the current stream, into pinned memory."""
        self._device.use()
        cuda = self._cupy.cuda
        memory = cuda.alloc_pinned_memory(array.nbytes)
        copy: NDArray[Any] = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
        array.get(out=copy, blocking=False)
        # Whoever waits sleeps: the cores are for those that read.
        arrived = cuda.get_current_stream().record(cuda.Event(block=True, disable_timing=True))

        def wait() -> NDArray[Any]:
            self._device.use()
            arrived.synchronize()
            return copy

        return wait

    def wait(self) -> None:
        """See Device."""
        self._device.use()
        self._cupy.cuda.get_current_stream().synchronize()

    def free_memory_bytes(self) -> int:
        """Free memory of the GPU, and the memory that CuPy holds but does not use."""
        self._device.use()
        free, _ = self._cupy.cuda.runtime.memGetInfo()
        return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())


class HostDevice:
    """The host. It runs the same sources block by block.

    With `backwards`, the blocks, and the threads of each block, run in the opposite order. This must not change any
    result. `flags` go to the compiler, for example those of a sanitizer.
    """

    def __init__(self, *, backwards: bool = False, flags: Sequence[str] = ()) -> None:
        self.name = "host"
        self.index: int | None = None
        self._backwards = backwards
        self._flags = tuple(flags)
        # Shared memory and indices of a source are variables of its library, so only one launch may run at a time.
        self._lock = threading.Lock()

    @property
    def xp(self) -> Any:
        """The module numpy."""
        return np

    def launch(
        self, source: str, kernel: str, grid: Sequence[int], arguments: Sequence[Any], defines: Mapping[str, int]
    ) -> None:
        """See Device. Returns when the kernel has ended. Raises TypeError for arguments of the wrong size."""
        function = getattr(_host_library(source, frozenset(defines.items()), self._flags), f"launch_{kernel}")
        # As for cudaLaunchKernel, a pointer to each argument. The argument for an array is its address.
        values = [np.uintp(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments]
        held = [np.array([value]) for value in values]
        sizes = (ctypes.c_size_t * len(held))(*(value.itemsize for value in held))
        pointers = (ctypes.c_void_p * len(held))(*(value.ctypes.data for value in held))
        with self._lock:
            wrong = function((ctypes.c_uint * 3)(*grid), int(self._backwards), len(held), sizes, pointers)
        if wrong:
            raise TypeError(f"argument {wrong} of {kernel} in {source} is missing, superfluous or of another size")

    def upload(self, array: NDArray[Any]) -> Array:
        """See Device."""
        return np.ascontiguousarray(array)

    def download(self, array: Array) -> NDArray[Any]:
        """See Device."""
        return np.asarray(array)

    def pin(self, memory: NDArray[np.uint8]) -> Callable[[], None]:
        """See Device. Nothing is to be done."""
        return lambda: None

    def start_upload(self, parts: Sequence[NDArray[Any]]) -> Array:
        """See Device. All is copied on return."""
        return np.concatenate(parts)

    def start_download(self, array: Array) -> Callable[[], NDArray[Any]]:
        """See Device."""
        return lambda: np.asarray(array)

    def wait(self) -> None:
        """See Device. Kernels have ended when `launch` returns."""

    def free_memory_bytes(self) -> int:
        """A small fixed amount, because the host is for tests only."""
        return 1 << 30


def cuda_missing() -> str | None:
    """Return None if there is a GPU and CuPy, else one sentence that says why not. Quick: CuPy is not loaded."""
    driver = find_driver()
    if not driver.gpus:
        return f"it needs an NVIDIA GPU, but {driver.problem}"
    if importlib.util.find_spec("cupy") is None:
        return f"it needs CuPy: {how_to_install('cuda12', 'cuda13')}"
    return None


def _one_line(error: BaseException) -> str:
    """The first line of an error's text that has a letter or a digit."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if any(map(str.isalnum, line))), type(error).__name__)


def host_missing() -> str | None:
    """Return None if the kernels can be compiled for the host, else one sentence that says why not."""
    return None if find_compiler() else "there is no C++ compiler (c++, g++ or clang++; or set CXX)"


@functools.cache
def _host_library(source: str, defines: frozenset[tuple[str, int]], flags: tuple[str, ...]) -> ctypes.CDLL:
    options = ["-O2", "-x", "c++", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-ffp-contract=off", f"-I{INCLUDES}"]
    return ctypes.CDLL(
        str(build(SOURCES / source, flags=[*options, *_define_flags(dict(defines)), *flags], depends=HEADERS))
    )


def _define_flags(defines: Mapping[str, int]) -> list[str]:
    return [f"-D{name}={value}" for name, value in sorted(defines.items())]
