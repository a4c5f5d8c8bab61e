"""Fixtures and rules shared by all tests, and what a test finds around it.

A test, and every program that it starts, finds the same wherever the tests are started: signals at their defaults, and
of the environment only what says where this machine has its programs, and what is set here. Each test has a home and a
temporary folder of its own. The cache is one for all tests of a session, and empty when it begins: compiled code is
kept there, and each test would compile for minutes otherwise.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType

import pytest

DATA = Path(__file__).parent / "data"
SHARED = Path(os.environ.get("ATTENGAIT_SHARED", Path(__file__).parents[2] / "shared"))

KEPT = {"PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "CONDA_PREFIX", "CXX"}
KEPT |= {"ATTENGAIT_REQUIRE_GPU", "ATTENGAIT_SHARED", "ATTENGAIT_SKIP_MISSING", "ATTENGAIT_TESTS"}
# Of processors that OpenBLAS does not know well, of GPUs, and of the tools that run the tests.
KEPT_PREFIXES = ("OPENBLAS_", "NVPL_", "CUDA_", "NVIDIA_", "PYTEST_", "COV_", "COVERAGE_")
SESSION = "ATTENGAIT_TESTS"
"""The variable with the folder of this session. Whoever finds it set did not make the folder: a process of xdist, or
pytest within a test."""


@pytest.hookimpl(trylast=True)  # pytest itself has then seen what is said of colours
def pytest_configure(config: pytest.Config) -> None:
    """Make the environment a known one, before any test is imported."""
    is_first = SESSION not in os.environ
    session = Path(os.environ.get(SESSION) or tempfile.mkdtemp(prefix="attengait-tests-"))
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # where `tmp_path` is
    for name in [name for name in os.environ if name not in KEPT and not name.startswith(KEPT_PREFIXES)]:
        del os.environ[name]
    os.environ[SESSION] = str(session)
    # Tests run beside each other, one for each core: more threads would only wait for one another.
    os.environ |= {"LC_ALL": "C.UTF-8", "TZ": "UTC", "OMP_NUM_THREADS": "1"}
    time.tzset()
    for name, folder in (
        ("XDG_CACHE_HOME", "cache"),
        ("CUDA_CACHE_PATH", "cache/cuda"),
        ("CUPY_CACHE_DIR", "cache/cupy"),
        ("TORCHINDUCTOR_CACHE_DIR", "cache/torch"),
        ("TRITON_CACHE_DIR", "cache/triton"),
    ):
        os.environ[name] = str(session / folder)
    _live_in(session)
    os.umask(0o022)
    with contextlib.suppress(ImportError):
        from hypothesis import HealthCheck, configuration, settings

        # It has settings of its own for CI. A machine may be slow.
        slow = [HealthCheck.too_slow]
        settings.register_profile("tests", derandomize=True, deadline=None, suppress_health_check=slow)
        settings.load_profile("tests")
        configuration.set_hypothesis_home_dir(session / "hypothesis")
    if is_first:
        config.add_cleanup(lambda: shutil.rmtree(session, ignore_errors=True))


def _live_in(folder: Path) -> None:
    """Make a folder the one that holds the home and the temporary files."""
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    os.environ |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    tempfile.tempdir = str(folder / "tmp")


@pytest.fixture(autouse=True)
def _own_environment(_default_signals: None) -> Iterator[None]:
    """Give each test its own home and temporary folder, and take back what it does to the environment."""
    environment, temporary = dict(os.environ), tempfile.tempdir
    # Removed at the end of the session: libraries remember where their temporary files are.
    _live_in(Path(tempfile.mkdtemp(dir=os.environ[SESSION])))
    os.umask(0o022)
    os.environ["COLUMNS"] = "300"  # no message is wrapped; only here, since pytest's own lines are as wide, too
    yield
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ |= environment
    tempfile.tempdir = temporary


def _hang_on(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


@pytest.fixture(scope="session", autouse=True)
def _default_signals() -> None:
    """Let signals do what they do by default, here and in the programs that tests start.

    A shell starts a command in the background with SIGINT ignored, nohup with SIGHUP ignored, and programs inherit
    that. Tests under nohup still do not end with the terminal: this process has a handler, and no program inherits one.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Python itself ignores these two, and gives them back to the programs that it starts.
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _hang_on if number == signal.SIGHUP else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data() -> Path:
    """The small numeric references kept in the project."""
    return DATA


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large references and real video (ATTENGAIT_SHARED), which a user's clone lacks."""
    if not (SHARED / "reference").is_dir():
        pytest.skip(f"no shared references at {SHARED} (set ATTENGAIT_SHARED)")
    return SHARED


def has_gpu() -> bool:
    """Whether an NVIDIA GPU can be used."""
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` without one, unless ATTENGAIT_REQUIRE_GPU=1: then they run, and fail."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and os.environ.get("ATTENGAIT_REQUIRE_GPU") != "1" and not has_gpu():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU (ATTENGAIT_REQUIRE_GPU=1 makes this a failure)"))


def _missing(error: BaseException | None) -> str | None:
    """What is not installed, if that is what an error says."""
    from attengait.errors import AttenGaitError

    if isinstance(error, ModuleNotFoundError) and not (error.name or "attengait").startswith("attengait"):
        return f"no package {error.name}"
    if isinstance(error, AttenGaitError) and "pip install" in str(error):
        return str(error)
    return None


def _skip_missing(report: pytest.TestReport | pytest.CollectReport, error: BaseException | None, path: str) -> None:
    """With ATTENGAIT_SKIP_MISSING=1, let what fails for lack of a package be skipped.

    That is for machines that are borrowed as they are. Elsewhere a package that is missing is a failure.
    """
    missing = _missing(error) if report.failed and os.environ.get("ATTENGAIT_SKIP_MISSING") == "1" else None
    if missing:
        report.outcome = "skipped"
        report.longrepr = (path, 0, f"Skipped: {missing}")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a file of tests whose imports need a package that is missing, if such are skipped."""
    report = yield
    error = report.call.excinfo.value if report.failed and report.call.excinfo else None  # type: ignore[attr-defined]
    _skip_missing(report, error.__cause__ or error.__context__ or error if error else None, str(collector.path))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a test that needs a package that is missing, if such are skipped."""
    report = yield
    _skip_missing(report, call.excinfo.value if call.excinfo else None, str(item.path))
    return report


@pytest.fixture(autouse=True)
def _linked_folders_keep_one_name() -> None:
    """The linked folders are only ever imported as attengait.kernels and so on, never twice under bare names."""
    twice = {"kernels", "pipelines", "cli", "benchmarks"} & set(sys.modules)
    assert not twice, f"imported under a bare name: {twice}"
