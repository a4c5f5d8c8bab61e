"""The kernels as a GPU's machine code: NVRTC takes them with CuPy's options, and each keeps to its budget.

`python tests/kernels/runtime/test_machine_code.py` prints what each kernel has now, for the table of ceilings.
"""

import ctypes
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))  # for the command above; pytest has it already

from machine_code import (
    compile_by_nvcc,
    compile_by_nvrtc,
    counts,
    find_disassembler,
    find_nvrtc,
    given_to_cupy,
    instructions,
)

from attengait.kernels.runtime.launch import EXACT_SOURCES, SOURCES

DEFINES = {
    "farneback/farneback.cu": {"POLY_N": 5, "RADIUS": 7, "BOX": 1, "TILE_H": 24},
    "patch_norm/patch_norm.cu": {"FEATURES": 32, "FORMAT": 1, "POOL": 1},
    "pictures/crop.cu": {"SIZE": 64, "BAND": 4},
    "windows/windows.cu": {"FEATURES": 128, "FORMAT": 1},
}
"""The published parameters, and maps of the small network in bf16."""
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")
BUDGET_ARCHITECTURE = "sm_90"
CEILINGS = {
    # 64-bit floating point, local memory (spills), all; the last is a tenth above what CUDA 13 makes.
    "farneback/farneback.cu": {
        "shrink": (0, 0, 435),
        "expand": (0, 0, 456),
        "set_up": (0, 0, 322),
        "solve": (0, 0, 1208),
    },
    "patch_norm/patch_norm.cu": {
        "patch_norm_forward": (0, 0, 932),
        "patch_norm_backward": (0, 0, 2442),
    },
    "pictures/crop.cu": {
        "find_rows": (0, 0, 310),
        "find_middles": (147, 0, 885),
        "crop_colours": (147, 0, 1421),
        "crop_motion": (102, 0, 834),
    },
    "windows/windows.cu": {
        "windows_forward": (0, 0, 521),
        "windows_backward": (0, 0, 555),
    },
}
SOURCE_NAMES = sorted(path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.cu"))


def nvrtc() -> ctypes.CDLL:
    library = find_nvrtc()
    if library is None:
        pytest.skip("no NVRTC (the package nvidia-cuda-nvrtc, or a CUDA toolkit)")
    return library


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCE_NAMES)
def test_nvrtc_compiles_what_cupy_is_given(source: str, architecture: str) -> None:
    code, options = given_to_cupy(source, DEFINES[source])
    assert ("--fmad=false" in options) == (source in EXACT_SOURCES)
    assert compile_by_nvrtc(nvrtc(), code, options, architecture)[:4] == b"\x7fELF"


def test_what_nvrtc_refuses_is_said_in_its_words() -> None:
    with pytest.raises(AssertionError, match='identifier "nonsense" is undefined'):
        compile_by_nvrtc(nvrtc(), "__global__ void kernel() { nonsense; }", (), "sm_90")


def measured(source: str, folder: Path) -> dict[str, tuple[int, int, int]]:
    """What each kernel of a source has, compiled by NVRTC or, where it is missing, by nvcc; skips without both."""
    disassembler = find_disassembler()
    if disassembler is None:
        pytest.skip("no nvdisasm (the package nvidia-cuda-nvdisasm, Triton, or a CUDA toolkit)")
    library = find_nvrtc()
    if library is None and shutil.which("nvcc") is None:
        pytest.skip("neither NVRTC nor nvcc")
    code, options = given_to_cupy(source, DEFINES[source])
    if library is not None:
        cubin = compile_by_nvrtc(library, code, options, BUDGET_ARCHITECTURE)
    else:
        cubin = compile_by_nvcc(code, options, BUDGET_ARCHITECTURE, folder)
    return {name: counts(names) for name, names in instructions(disassembler, cubin, folder).items()}


@pytest.mark.parametrize("source", SOURCE_NAMES)
def test_each_kernel_keeps_to_its_budget(source: str, tmp_path: Path) -> None:
    found = measured(source, tmp_path)
    kernels = set(re.findall(r"^LAUNCH\((\w+)\)", (SOURCES / source).read_text(), re.MULTILINE))
    assert set(found) == kernels
    assert set(CEILINGS[source]) == kernels, "every kernel needs its ceilings"
    for name, numbers in found.items():
        for what, number, ceiling in zip(("64-bit", "spill", "all"), numbers, CEILINGS[source][name], strict=True):
            assert number <= ceiling, f"{name} has {number} instructions ({what}), but {ceiling} are its ceiling"


def test_double_precision_and_spills_are_seen(tmp_path: Path) -> None:
    """Else no budget would ever be exceeded."""
    disassembler = find_disassembler()
    if disassembler is None:
        pytest.skip("no nvdisasm (the package nvidia-cuda-nvdisasm, Triton, or a CUDA toolkit)")
    code = """
        extern "C" __global__ void wide(double* x) { x[0] = sqrt(x[1]) / x[2]; }
        extern "C" __global__ void spilling(int* x) {
            int taken[64];
            for (int i = 0; i < 64; ++i) taken[x[i]] = x[i + 64];
            for (int i = 0; i < 64; ++i) x[i] = taken[x[i + 1]];
        }
        extern "C" __global__ void plain(float* x) { x[0] = x[1] * x[2] + 1.0f; }
    """
    found = instructions(disassembler, compile_by_nvrtc(nvrtc(), code, (), BUDGET_ARCHITECTURE), tmp_path)
    (wide, none, _), (no_wide, spills, _), (*zeros, few) = (counts(found[n]) for n in ("wide", "spilling", "plain"))
    assert (wide > 10, none, no_wide, spills > 60, zeros) == (True, 0, 0, True, [0, 0])
    assert 5 < few < 30


if __name__ == "__main__":
    for each in SOURCE_NAMES:
        print(each, measured(each, Path(tempfile.mkdtemp())))
