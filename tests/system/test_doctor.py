"""The doctor's report: complete, ready for JSON, and never stopped by what is missing or broken."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attengait.cli.doctor import tables_of
from attengait.kernels.flow.backends import AUTO_ORDER, BACKENDS
from attengait.kernels.runtime.gpu import Driver, Gpu
from attengait.system import doctor, packages

command = importlib.import_module("command")

TURING = Gpu(name="T4", memory_bytes=16 << 30, compute_capability=(7, 5))
PASCAL = Gpu(name="P100", memory_bytes=16 << 30, compute_capability=(6, 0))


@pytest.fixture(autouse=True)
def _small_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_BYTES", 4 << 20)


def text_of(report: dict[str, Any]) -> str:
    tables = tables_of(report)
    return "\n".join([*tables, *(f"{name}: {text}" for rows in tables.values() for name, text in rows)])


def test_the_report_is_complete_and_ready_for_json(tmp_path: Path) -> None:
    report = doctor.examine(tmp_path)
    assert json.loads(json.dumps(report)) == report
    assert list(report["flow"]["backends"]) == list(BACKENDS)
    assert report["flow"]["auto"] in AUTO_ORDER
    assert report["flow"]["backends"]["opencv"]["missing"] is None
    assert report["disk"]["write_bytes_per_second"] > 0
    assert report["libraries"]["torch"]["version"] == metadata.version("torch")
    assert list(tmp_path.iterdir()) == []
    text = text_of(report)
    for part in ("Python", "GPU", "DALI", "CuPy", "torch", "OpenCV", "c++", "nvcc", "nvrtc", "processor", "memory"):
        assert part in text
    assert f"auto: takes {report['flow']['auto']}" in text


def test_it_says_how_threads_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor.WAITING:
        monkeypatch.delenv(name, raising=False)
    (library,) = (name for name in doctor.examine(tmp_path)["threads"]["openmp"] if name.startswith("libgomp"))
    assert f"threads: of torch, by {library}; they spin long while they wait" in text_of(doctor.examine(tmp_path))
    done = command.attengait("doctor", "--folder", tmp_path)
    assert "how they wait: GOMP_SPINCOUNT=3000" in done.stdout, "what the command line sets"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    done = command.attengait("doctor", "--folder", tmp_path)
    assert "how they wait: OMP_WAIT_POLICY=active" in done.stdout, "a user's word is not overruled"
    assert "GOMP_SPINCOUNT" not in os.environ


def test_nothing_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: Any, **options: Any) -> Any:
        raise RuntimeError("worn\n out")

    for name in ("find_driver", "find_spec", "import_module", "installed", "find_compiler"):
        monkeypatch.setattr(doctor, name, broken)
    for name in ("cpu_model", "memory_bytes"):
        monkeypatch.setattr(doctor.machine, name, broken)
    monkeypatch.setattr(shutil, "which", broken)
    monkeypatch.setattr(shutil, "disk_usage", broken)
    monkeypatch.setitem(BACKENDS, "cuda", doctor_backend(broken))
    report = doctor.examine(tmp_path)
    assert json.loads(json.dumps(report)) == report
    assert report["gpu"] == {"problem": "RuntimeError: worn out"}
    text = text_of(report)
    for name in ("GPU", "DALI", "CuPy", "torch", "OpenCV", "c++", "nvcc", "processor", "memory", "disk", "flow"):
        assert f"{name}: " in text
    assert text.count("worn out") >= 11


def doctor_backend(missing: Any) -> Any:
    return SimpleNamespace(needs="luck", missing=missing)


def test_a_backend_whose_check_breaks_is_named_and_auto_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise ImportError("libcublas.so.12: cannot open shared object file")

    monkeypatch.setitem(BACKENDS, "nvof", doctor_backend(broken))
    report = doctor.examine(tmp_path)
    assert "nvof: no: ImportError: libcublas.so.12" in text_of(report)
    assert report["flow"]["backends"]["opencv"]["missing"] is None


@pytest.mark.parametrize(
    ("driver", "sentence", "answer"),
    [
        (Driver(gpus=(TURING,)), None, "yes"),
        (Driver(gpus=(TURING,)), "no DALI", "unknown: no DALI"),
        (Driver(gpus=(PASCAL,)), "which P100 lacks", "no"),
        (Driver(problem="none"), "no GPU", "no"),
    ],
)
def test_hardware_flow_is_yes_no_or_unknown(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, sentence: str | None, answer: str
) -> None:
    monkeypatch.setattr(doctor, "find_driver", lambda: driver)
    monkeypatch.setitem(BACKENDS, "nvof", doctor_backend(lambda: sentence))
    assert doctor._hardware_flow() == answer


def test_gpus_are_listed_with_driver_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(gpus=(TURING, PASCAL), version="550.54", cuda_version="12.4")
    monkeypatch.setattr(doctor, "find_driver", lambda: driver)
    text = text_of(doctor.examine(tmp_path))
    assert "GPU 0: T4, 16.0 GiB, compute 7.5" in text
    assert "GPU 1: P100, 16.0 GiB, compute 6.0" in text
    assert "driver: 550.54, runs CUDA up to 12.4" in text


def test_two_builds_of_dali_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = {"nvidia-dali-cuda120": "2.4.0", "nvidia-dali-cuda130": "2.4.0"}
    monkeypatch.setattr(doctor, "installed", lambda *prefixes: builds if prefixes == ("nvidia-dali",) else {})
    found = doctor._dali()
    assert found is not None
    assert "uninstall both" in found["problem"]


def test_packages_are_found_by_the_beginning_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "cupy-cuda12x": "14.0",
        "cupy": "13.0",
        "cupyx": "1",
        "nvidia-nvjpeg-cu12": "1",
        "Nvidia-nvJPEG2k-cu12": "2",
    }
    distributions = [SimpleNamespace(name=name, version=version) for name, version in names.items()]
    monkeypatch.setattr(metadata, "distributions", lambda: [*distributions, SimpleNamespace(name=None, version="0")])
    assert packages.installed("cupy") == {"cupy": "13.0", "cupy-cuda12x": "14.0"}
    assert packages.installed("nvidia-nvjpeg", "nvidia-nvjpeg2k") == {
        "nvidia-nvjpeg-cu12": "1",
        "nvidia-nvjpeg2k-cu12": "2",
    }


def test_torch_s_cuda_is_read_without_loading_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = tmp_path / "version.py"
    monkeypatch.setattr(doctor, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    version.write_text("__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n")
    assert doctor._torch() == {"version": metadata.version("torch"), "cuda": "13.0"}
    version.write_text("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n")
    assert doctor._torch() == {"version": metadata.version("torch"), "cuda": None}


def test_a_full_and_an_unwritable_disk_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path, num_bytes: int) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.machine, "measure_disk", refuse)
    assert doctor._disk(tmp_path)["problem"] == "it cannot be written: Permission denied"
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=doctor.DISK_BYTES))
    assert doctor._disk(tmp_path)["problem"] == "too full to measure"


def test_it_works_without_the_libraries_and_loads_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('cv2', 'cupy', 'nvidia', 'torch'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.argv = ['attengait', 'doctor', '--json', '--folder', {str(tmp_path)!r}]\n"
        "from attengait.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["libraries"]["opencv"] == {"problem": "ModuleNotFoundError: No module named 'cv2'"}
    assert report["flow"] == {"problem": "ModuleNotFoundError: No module named 'cv2'"}
    assert report["disk"]["write_bytes_per_second"] > 0


def test_a_broken_cupy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("CuPy is not correctly installed")

    monkeypatch.setattr(doctor, "installed", lambda *prefixes: {"cupy-cuda12x": "14.0"})
    monkeypatch.setattr(doctor, "import_module", broken)
    problem = {"problem": "ImportError: CuPy is not correctly installed"}
    assert doctor._cupy() == {"builds": {"cupy-cuda12x": "14.0"}, "runtime": problem}
    runtime = SimpleNamespace(runtimeGetVersion=lambda: 12080)
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(doctor, "import_module", lambda name: cupy if name == "cupy" else importlib.import_module(name))
    assert doctor._cupy() == {"builds": {"cupy-cuda12x": "14.0"}, "runtime": "12.8"}
