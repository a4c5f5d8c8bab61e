"""Ctrl-C, SIGTERM and SIGHUP while a command starts: one sentence, and the status of the first signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

INT, TERM, HUP = int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIGHUP)

# Sends signals when a module is looked for: there, or in a destructor, where Python drops exceptions. `ignored` are
# those that whoever started the command ignores.
SCRIPT = """
import os, signal, sys
from attengait.cli import start

module, place, numbers, ignored = sys.argv[1:]
sys.argv[1:] = ["show", "nowhere.zarr", "--out", "a.png"]

def send():
    for number in eval(numbers):
        os.kill(os.getpid(), number)

class Destroyed:
    def __del__(self):
        send()

class Finder:
    def find_spec(self, name, path, target=None):
        if name == module:
            sys.meta_path.remove(self)
            send() if place == "import" else Destroyed()

for number in (1, 2, 15):
    kept = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, signal.SIG_IGN if number in eval(ignored) else kept)
sys.meta_path.insert(0, Finder())
start.main()
"""


def run(cwd: Path, module: str, place: str, numbers: list[int], ignored: list[int]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, module, place, str(numbers), str(ignored)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("module", "place", "numbers", "status"),
    [
        ("attengait.cli.main", "import", [INT], 130),
        ("attengait.cli.main", "import", [TERM, INT], 143),
        ("attengait.store", "import", [INT, INT, INT], 130),
        ("attengait.store", "import", [TERM, INT], 143),
        ("attengait.store", "destructor", [INT], 130),
        ("attengait.store", "import", [HUP], 129),
    ],
)
def test_a_signal_during_the_start_is_one_sentence_and_its_status(
    tmp_path: Path, module: str, place: str, numbers: list[int], status: int
) -> None:
    assert run(tmp_path, module, place, numbers, []) == (status, "attengait: stopped\n")


@pytest.mark.parametrize("module", ["attengait.cli.main", "attengait.store"])
def test_a_signal_that_is_ignored_from_the_start_stays_ignored(tmp_path: Path, module: str) -> None:
    """As under nohup, and of a command in the background of a script. SIGTERM stops it."""
    status, said = run(tmp_path, module, "import", [INT, HUP], [INT, HUP])
    assert (status, said) == (1, "attengait: nowhere.zarr does not exist\n")
    assert run(tmp_path, module, "import", [INT, TERM], [INT]) == (143, "attengait: stopped\n")
