"""Kernels compiled to a GPU's machine code as CuPy has it done, without a GPU or its driver, and read.

NVRTC is loaded as a library (of CuPy's, of torch's or of a CUDA toolkit), and nvdisasm reads what it made.
"""

import ctypes
import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attengait.kernels.runtime.launch import CudaDevice

CUPYS_OWN = ("-ftz=true",)
"""What CuPy adds to the options of a RawModule, beside the architecture (cupy/cuda/compiler.py)."""

SIXTY_FOUR_BIT = re.compile(r"D(ADD|MUL|FMA|SETP|MNMX)\b|\S*F64|MUFU\.\w*64")
LOCAL_MEMORY = re.compile(r"(LDL|STL)\b")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")


def given_to_cupy(source: str, defines: Mapping[str, int]) -> tuple[str, tuple[str, ...]]:
    """The code and the options that CudaDevice gives to CuPy's RawModule for a source."""
    given: list[tuple[str, tuple[str, ...]]] = []

    def take(*, code: str, options: tuple[str, ...], **_: Any) -> SimpleNamespace:
        given.append((code, options))
        return SimpleNamespace(get_function=lambda name: lambda *call: None)

    device: Any = CudaDevice.__new__(CudaDevice)
    device.name, device._kernels, device._modules = "none", {}, {}
    device._device = SimpleNamespace(use=lambda: None)
    compiler = SimpleNamespace(CompileException=Exception)
    device._cupy = SimpleNamespace(RawModule=take, cuda=SimpleNamespace(compiler=compiler))
    device.launch(source, "any", (1, 1, 1), (), defines)
    return given[0]


def _in_packages(pattern: str) -> list[Path]:
    """Folders of installed packages."""
    return [folder for place in sys.path for folder in Path(place or ".").glob(pattern)]


@functools.cache
def find_nvrtc() -> ctypes.CDLL | None:
    """NVRTC of any version from 12 on, or None."""
    folders = [*_in_packages("nvidia/*/lib"), *Path("/usr/local").glob("cuda*/lib64")]
    files = [path for folder in folders for path in folder.glob("libnvrtc.so.1[2-9]")]
    for path in (*sorted(files, reverse=True), Path("libnvrtc.so.13"), Path("libnvrtc.so.12")):
        try:
            # NVRTC looks for the other library by name alone, and finds it where it is loaded already.
            for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins))
            return ctypes.CDLL(str(path))
        except OSError:
            continue
    return None


def compile_by_nvrtc(nvrtc: ctypes.CDLL, code: str, options: Sequence[str], architecture: str) -> bytes:
    """The machine code (cubin) for an architecture, such as sm_90. Raises AssertionError with the compiler's words."""
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None) == 0
    words = [option.encode() for option in (*options, *CUPYS_OWN, f"-arch={architecture}")]
    failed = nvrtc.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert failed == 0, log.value.decode()
    assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    cubin = ctypes.create_string_buffer(size.value)
    assert nvrtc.nvrtcGetCUBIN(program, cubin) == 0
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return cubin.raw


def compile_by_nvcc(code: str, options: Sequence[str], architecture: str, folder: Path) -> bytes:
    """The same by nvcc, which must be installed."""
    source, cubin = folder / "kernels.cu", folder / "kernels.cubin"
    source.write_text(code)
    command = ["nvcc", *options, *CUPYS_OWN, f"-arch={architecture}", "-cubin", str(source), "-o", str(cubin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return cubin.read_bytes()


@functools.cache
def find_disassembler() -> list[str] | None:
    """nvdisasm, of the path, a CUDA toolkit or a package (nvidia-cuda-nvdisasm, Triton), as a command; or None."""
    folders = [*Path("/usr/local").glob("cuda*/bin"), *_in_packages("nvidia/*/bin")]
    folders += _in_packages("triton/backends/nvidia/bin")
    for path in (shutil.which("nvdisasm"), *(str(folder / "nvdisasm") for folder in folders)):
        if path and Path(path).is_file():
            # Some wheels are unpacked without the right to run what is in them.
            return [path] if shutil.which(path) else ["/lib64/ld-linux-x86-64.so.2", path]
    return None


def instructions(disassembler: Sequence[str], cubin: bytes, folder: Path) -> dict[str, list[str]]:
    """The names of the instructions of each kernel, such as LDG.E.CONSTANT; what a kernel calls is a part of it."""
    file = folder / "kernels.cubin"
    file.write_bytes(cubin)
    done = subprocess.run([*disassembler, "-c", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: list(names) for name, names in _kernels(done.stdout)}


def _kernels(text: str) -> Iterator[tuple[str, Iterator[str]]]:
    sections = re.split(r"^\s*\.section\s+\.text\.(\w+),.*$", text, flags=re.MULTILINE)
    for name, body in zip(sections[1::2], sections[2::2], strict=True):
        found = map(_INSTRUCTION.match, body.splitlines())
        yield name, (match[1] for match in found if match and match[1] != "NOP")  # NOPs fill the end up


def counts(names: Sequence[str]) -> tuple[int, int, int]:
    """How many instructions a kernel has: of 64-bit floating point, of local memory (spills), and in all."""
    wide = sum(bool(SIXTY_FOUR_BIT.match(name)) for name in names)
    return wide, sum(bool(LOCAL_MEMORY.match(name)) for name in names), len(names)
