"""benchmarks/gpu.sh: its steps, what it says and keeps of them, and what is kept when it is stopped.

A program in the place of Python notes what it is asked to run, so that neither a GPU nor time is needed.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from attengait.cli.main import app

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
STEPS = ["doctor", "tests", "flow", "store", "preprocess", "loader", "train", "demo", "nvdec"]
STEPS += ["ncu", "memcheck", "racecheck", "initcheck"]

FAKE_PYTHON = """#!/usr/bin/env bash
# What gpu.sh itself asks is answered; all else is noted, and answered by ANSWERS.
case $1 in
-) [[ $2 != */* ]] || exec @PYTHON@ "$@"
   [[ " $* " != *" ${MISSING-nothing} "* ]] || echo "$MISSING" # packages are asked for
   exit ;;
-c) exit 1 ;;
esac
printf '%q ' "$@" >>"$CALLS"
echo >>"$CALLS"
source "$ANSWERS"
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the script with steps; `gpu` is what nvidia-smi says, `answers` what Python does, in bash."""

    def start(*steps: str, gpu: str = "", answers: str = "", **environment: str) -> subprocess.Popen[str]:
        tools = tmp_path / "bin"
        tools.mkdir(exist_ok=True)
        programs = {
            "nvidia-smi": f"#!/bin/sh\n{f'echo {shlex.quote(gpu)}' if gpu else 'exit 9'}\n",
            "python-here": FAKE_PYTHON.replace("@PYTHON@", sys.executable),
            "compute-sanitizer": '#!/bin/sh\nshift 4; exec "$@"\n',
            "ncu": '#!/bin/sh\nwhile [ "$1" != --metrics ]; do shift; done; shift 2; exec "$@"\n',
        }
        for name, text in programs.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        (tmp_path / "answers").write_text(answers)
        settings = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHON": str(tools / "python-here"),
            "CALLS": str(tmp_path / "calls"),
            "ANSWERS": str(tmp_path / "answers"),
            "RESULTS": str(tmp_path / "results"),
            "OUT": str(tmp_path / "out"),
            **environment,
        }
        return subprocess.Popen(
            ["bash", str(SCRIPT), *steps],
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(*steps: str, **options: str) -> subprocess.CompletedProcess[str]:
        process = start(*steps, **options)
        output, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    finish.start = start  # type: ignore[attr-defined]
    return finish


def table(output: str) -> dict[str, str]:
    """What the table says of each step: its result."""
    lines = [line.split() for line in output.splitlines() if not line.startswith(" ")]
    return {words[0]: words[1] if words[1] != "rc" else f"rc {words[2]}" for words in lines if words[0] in STEPS}


def packed(tmp_path: Path, name: str) -> dict[str, str]:
    """The files of the packed results, without their folder."""
    with tarfile.open(tmp_path / "out" / f"{name}.tar.gz") as archive:
        members = [member for member in archive if member.isfile()]
        return {Path(each.name).name: archive.extractfile(each).read().decode() for each in members}  # type: ignore[union-attr]


def test_all_steps_run_on_a_gpu_in_their_order_with_commands_that_there_are(tmp_path: Path, run) -> None:
    answers = """
        case $3 in
        synth) mkdir -p "$WORK/walkers" ;;
        preprocess) mkdir -p "$WORK/walkers.zarr" ;;
        *) echo "what was found"; echo '{"results": [1]}' ;;
        esac"""
    done = run(gpu="NVIDIA H200", answers=answers)
    assert done.returncode == 0, done.stdout
    assert list(table(done.stdout)) == STEPS
    assert set(table(done.stdout).values()) == {"ok"}
    calls = [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]
    commands = [call[2:] for call in calls if call[:2] == ["-m", "attengait"]]
    assert [" ".join(words[:2]) for words in commands if words[0] == "benchmark"] == [
        "benchmark flow",
        "benchmark preprocess",
        "benchmark loader",
        *["benchmark train"] * 5,
    ]
    trained = [" ".join(words) for words in commands if words[:2] == ["benchmark", "train"]]
    for wanted in (
        "--precision bf16 --cache gpu --profile",
        "--precision fp32,fp16",
        "--precision bf16 --cache none",
        "--set deterministic=true",
    ):
        assert sum(wanted in command for command in trained) == 1
    for words in commands:
        check_command(words)
    others = [call for call in calls if call[:2] != ["-m", "attengait"]]
    assert [call[0:2] for call in others] == [
        ["-m", "pytest"],
        ["-m", "attengait.benchmarks.dali_video"],
        ["-m", "attengait.benchmarks.kernels_once"],
        *[["tests/support/run_kernels_sanitised.py", "gpu"]] * 3,
    ]
    files = packed(tmp_path, "NVIDIA-H200")
    assert {f"{step}.log" for step in STEPS} | {"table.txt"} <= set(files)
    assert json.loads(files["flow.json"]) == {"results": [1]}
    assert json.loads(files["train.json"]) == [{"results": [1]}] * 5
    assert "    what was found" in done.stdout
    assert [line.split()[0] for line in files["table.txt"].splitlines()[1:-1]] == STEPS


def check_command(words: list[str]) -> None:
    """Parse a command of ours as it would be; raises for a command or an option that there is not."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("gpu.sh", list(words), resilient_parsing=False)


def test_limits_of_all_steps_are_stated_and_the_whole_ends_before_600_seconds() -> None:
    text = SCRIPT.read_text()
    limits = dict(word.split(":") for word in text.partition("ALL_STEPS=(")[2].partition(")")[0].split())
    assert list(limits) == STEPS
    assert all(10 <= int(limit) <= 300 for limit in limits.values())
    assert "SECONDS_IN_ALL:-570" in text


def test_without_a_gpu_its_steps_are_skipped_and_say_so(tmp_path: Path, run) -> None:
    done = run("doctor", "tests", "demo", "ncu", "memcheck", answers="echo '{\n \"gpus\": []\n}'")
    assert done.returncode == 0
    assert table(done.stdout) == {"doctor": "ok", **dict.fromkeys(("tests", "demo", "ncu", "memcheck"), "skip")}
    assert done.stdout.count("skipped: no NVIDIA GPU (nvidia-smi names none)") == 4
    assert done.stdout.startswith("no GPU, ")
    files = packed(tmp_path, "no-gpu")
    assert json.loads(files["doctor.json"]) == {"gpus": []}
    assert (tmp_path / "calls").read_text() == "-m attengait doctor --json \n"


def test_a_package_that_is_missing_is_named_and_the_step_skipped(run) -> None:
    done = run("loader", "flow", gpu="NVIDIA H200", MISSING="nvidia.dali")
    assert table(done.stdout) == {"loader": "skip", "flow": "ok"}
    assert "skipped: no package nvidia.dali" in done.stdout
    assert done.returncode == 0


def test_without_dali_training_is_measured_from_the_gpu_alone(tmp_path: Path, run) -> None:
    assert run("train", gpu="NVIDIA H200", MISSING="nvidia.dali").returncode == 0
    assert "--cache none" not in (tmp_path / "calls").read_text()
    assert (tmp_path / "calls").read_text().count("--cache gpu") == 4


def test_a_step_that_fails_is_in_the_table_and_the_next_one_runs(tmp_path: Path, run) -> None:
    answers = '[ "$3" != doctor ] || { echo "attengait: error: no driver"; exit 3; }'
    done = run("doctor", "flow", "nonsense", gpu="NVIDIA H200", answers=answers)
    assert done.returncode == 1
    assert table(done.stdout) == {"doctor": "rc 3", "flow": "ok"}
    assert "attengait: error: no driver" in done.stdout
    assert "unknown step nonsense; the steps are: doctor tests" in done.stdout


def test_a_step_that_does_not_end_is_ended_and_no_time_is_left_for_the_next(tmp_path: Path, run) -> None:
    hanging = 'case $* in *flow*) echo $$ >"$CALLS.pid"; echo working; exec sleep 1000 ;; esac'
    done = run("flow", "loader", gpu="NVIDIA H200", answers=hanging, SECONDS_IN_ALL="8")
    assert done.returncode == 1
    assert table(done.stdout) == {"flow": "time", "loader": "time"}
    assert "working" in done.stdout
    assert "no time was left" in done.stdout
    assert not is_running(int((tmp_path / "calls.pid").read_text()))


def is_running(process: int) -> bool:
    """Whether there is a process of this number that has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_a_step_all_before_it_is_packed(tmp_path: Path, run, number: signal.Signals) -> None:
    os.mkfifo(tmp_path / "begun")
    hanging = f'[ "$3" != benchmark ] || {{ echo $$ >{shlex.quote(str(tmp_path))}/begun; exec sleep 1000; }}'
    process = run.start("doctor", "flow", gpu="NVIDIA H200", answers=hanging)
    step = int((tmp_path / "begun").read_text())
    process.send_signal(number)
    process.wait()
    if number == signal.SIGKILL:  # nobody is left who could end the step
        os.kill(step, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    assert "doctor.log" in packed(tmp_path, "NVIDIA-H200")
    assert table(output) == {"doctor": "ok"}


TESTS_OF_MISSING_PACKAGES = """
import pytest
from attengait.errors import AttenGaitError, how_to_install

@pytest.fixture
def lacking():
    import no_such_package.part

def test_import(): import no_such_package
def test_sentence(): raise AttenGaitError(f"DALI is not installed: {how_to_install('cpu')}")
def test_fixture(lacking): pass
def test_failure(): raise AttenGaitError("the store is damaged")
def test_own_module(): import attengait.no_such_module
def test_that_passes(): pass
"""


@pytest.mark.parametrize(
    ("skips", "outcomes"), [("0", "4 failed, 1 passed, 2 errors"), ("1", "2 failed, 1 passed, 4 skipped")]
)
def test_on_a_borrowed_machine_tests_are_skipped_for_lack_of_a_package_and_for_nothing_else(
    tmp_path: Path, skips: str, outcomes: str
) -> None:
    (tmp_path / "conftest.py").write_bytes((SCRIPT.parents[1] / "tests" / "conftest.py").read_bytes())
    (tmp_path / "test_these.py").write_text(TESTS_OF_MISSING_PACKAGES)
    (tmp_path / "test_import.py").write_text("import no_such_package")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "--tb=no", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", "--rootdir", str(tmp_path), str(tmp_path)]
    environment = os.environ | {"ATTENGAIT_SKIP_MISSING": skips, "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outcomes in done.stdout, done.stdout
    if skips == "1":
        assert "no package no_such_package" in done.stdout
        assert "DALI is not installed" in done.stdout
