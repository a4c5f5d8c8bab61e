"""Fixtures and rules shared by all tests."""

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

# Tests run beside each other, one for each core: more threads would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

DATA = Path(__file__).parent / "data"
SHARED = Path(os.environ.get("ATTENGAIT_SHARED", Path(__file__).parents[2] / "shared"))


# A command that a shell starts in the background ignores SIGINT, and one under nohup SIGHUP. So would all programs that
# the tests start.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


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
