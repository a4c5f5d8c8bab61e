"""The compiled kernels are clean under sanitizers and have neither slow arithmetic nor spills."""

import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from attengait.kernels.runtime import launch

host, sanitised = import_module("flow_cases").host, import_module("sanitised")


def test_kernels_are_clean_under_sanitizers() -> None:
    """Run in a process of their own, with AddressSanitizer and UndefinedBehaviorSanitizer compiled in."""
    host()
    done = sanitised.run_sanitised("run_kernels_sanitised.py")
    assert done.stdout.split() == ["flow", "pictures", "maps", "overflow"], done.stderr[-3000:]
    # The last step reads past an array on purpose, so that a sanitizer that sees nothing is noticed.
    assert "heap-buffer-overflow" in done.stderr


def test_flow_is_computed_without_64_bit_arithmetic(tmp_path: Path) -> None:
    """It is up to 64 times slower on most GPUs."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc")
    defines = ["-DPOLY_N=5", "-DRADIUS=7", "-DBOX=1", "-DTILE_H=24"]
    command = [compiler, "-arch=sm_90", "-std=c++17", f"-I{launch.INCLUDES}", "-ptx", *defines]
    command += [str(launch.SOURCES / "farneback/farneback.cu"), "-o", str(tmp_path / "kernels.ptx")]
    subprocess.run(command, check=True)
    code = (tmp_path / "kernels.ptx").read_text()
    assert "fma.rn.f32" in code
    assert ".f64" not in code


def test_the_machine_code_does_not_grow_with_the_parameters(tmp_path: Path) -> None:
    """Nor does the time to compile it."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc")
    sizes = {}
    for poly_n, radius, tile_height in ((5, 7, 24), (240, 7, 24), (5, 129, 8)):
        file = tmp_path / f"{poly_n}-{radius}.cubin"
        defines = [f"-DPOLY_N={poly_n}", f"-DRADIUS={radius}", "-DBOX=1", f"-DTILE_H={tile_height}"]
        command = [compiler, "-arch=sm_90", "-std=c++17", f"-I{launch.INCLUDES}", "-cubin", *defines]
        subprocess.run([*command, str(launch.SOURCES / "farneback/farneback.cu"), "-o", str(file)], check=True)
        sizes[poly_n, radius] = file.stat().st_size
    assert max(sizes.values()) <= 1.1 * sizes[5, 7], sizes


ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", ["farneback/farneback.cu", "pictures/crop.cu"])
def test_every_source_compiles_for_real_gpus_without_spilling(source: str, architecture: str, tmp_path: Path) -> None:
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc")
    defines = ["-DPOLY_N=5", "-DRADIUS=7", "-DBOX=1", "-DTILE_H=24", "-DSIZE=64", "-DBAND=4"]
    # What CuPy and launch.py pass to NVRTC.
    flags = ["-ftz=true", *(["-fmad=false"] if source in launch.EXACT_SOURCES else [])]
    command = [
        compiler,
        f"-arch={architecture}",
        "-std=c++17",
        f"-I{launch.INCLUDES}",
        *flags,
        "-cubin",
        "-Xptxas",
        "-v",
        *defines,
    ]
    command += [str(launch.SOURCES / source), "-o", str(tmp_path / "kernels.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = re.findall(r"Compiling entry function '(\w+)'", done.stderr)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    registers = re.findall(r"Used (\d+) registers", done.stderr)
    assert names
    assert len(names) == len(spills) == len(registers)
    for name, (stores, loads), used in zip(names, spills, registers, strict=True):
        print(f"{architecture} {name}: {used} registers, {stores} + {loads} bytes spilled")
    assert all(spill == ("0", "0") for spill in spills)
