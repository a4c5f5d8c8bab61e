"""Run the tests of each kind of fault and print the table of docs/damage.md: python tests/fuzz/kinds.py

Each case must end with the right result, or with one sentence and a status that is not 0. A case that ends with a wrong
result and no word, with something lost, with a traceback, or not at all, fails.
"""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = {
    "a store damaged, edited by hand or mixed with another": (
        "store/test_metadata.py",
        "store/test_packed.py",
        "store/test_verify.py",
        "pipelines/test_damaged_frames.py",
    ),
    "a damaged run, checkpoint or file of embeddings": (
        "model/test_checksums.py",
        "model/test_loading.py",
        "training/test_checkpoint.py",
        "evaluation/test_npz.py",
    ),
    "a hostile pickle": ("datasets/test_unpickling.py",),
    "hostile HDF5 or Keras weights": ("system/test_hdf5.py",),
    "pictures and videos: damaged, huge, of other kinds": (
        "datasets/test_pictures.py",
        "datasets/test_picture_size.py",
        "datasets/test_video.py",
    ),
    "input that is not what it should be": (
        "datasets/test_masks.py",
        "datasets/test_numbering.py",
        "datasets/test_inputs.py",
    ),
    "pipes, devices and hostile names": (
        "system/test_files.py",
        "store/test_special_files.py",
        "cli/test_output.py",
    ),
    "a server that stalls, lies or never ends": (
        "store/test_waiting.py",
        "store/test_remote.py",
        "store/test_remote_failing.py",
        "store/test_remote_writing.py",
    ),
    "full disks, kills, two runs at once": (
        "store/test_resume.py",
        "store/test_writer.py",
        "pipelines/preprocess/test_own_process.py",
        "pipelines/preprocess/test_shards.py",
        "system/test_workers.py",
    ),
    "signals, and errors that nobody foresaw": (
        "cli/test_signals.py",
        "cli/test_start.py",
        "cli/test_last_net.py",
        "training/test_trainer.py",
    ),
    "random input (Hypothesis)": ("fuzz/test_targets.py",),
}


class Count:
    """How many tests of each file passed, and how many did not."""

    def __init__(self) -> None:
        self.passed: dict[str, int] = {}
        self.failed: dict[str, int] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.split("::")[0].removeprefix("tests/")
        if report.failed:
            self.failed[file] = self.failed.get(file, 0) + 1
        elif report.when == "call" and report.passed:
            self.passed[file] = self.passed.get(file, 0) + 1


def main() -> int:
    count = Count()
    files = [str(ROOT / "tests" / file) for group in KINDS.values() for file in group]
    status = pytest.main(["-q", "--rootdir", str(ROOT), *files], plugins=[count])
    print("\n| kind of fault | cases | silent, lost, hung or traceback |\n|---|---:|---:|")
    for kind, group in KINDS.items():
        passed, failed = (sum(each.get(file, 0) for file in group) for each in (count.passed, count.failed))
        print(f"| {kind} | {passed + failed:,} | {failed:,} |")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
