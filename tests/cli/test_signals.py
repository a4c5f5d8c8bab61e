"""A command that is stopped while it starts says so in one sentence, with the status of its signal."""

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from attengait.cli.signals import SENTENCE

STOPPED = """
import os, signal, sys, time

module, how, number = sys.argv[1], sys.argv[2], int(sys.argv[3])

def send():
    os.kill(os.getpid(), number)

class Sends:
    def __del__(self):
        send()

class Importing:
    def find_spec(self, name, path, target=None):
        if name != module:
            return None
        sys.meta_path.remove(self)
        if how == "once":
            send()
        if how == "three times":
            try:
                send()
            finally:
                try:
                    send()
                finally:
                    send()
        if how == "twice, as in C++":
            try:
                send()
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                os.abort()
        if how == "in a destructor":
            Sends()
        if how == "as another error":
            try:
                send()
            except KeyboardInterrupt:
                raise ImportError(name) from None
        if how == "in a text that is executed":
            exec("send()", globals())

sys.meta_path.insert(0, Importing())
sys.argv = ["attengait", *sys.argv[4:]]
if sys.argv[1:] == ["wait"]:
    from attengait.cli.main import app

    @app.command("wait")
    def wait():
        import tabnanny
        time.sleep(60)

from attengait.cli.start import main
main()
"""
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def hear_interrupts() -> None:
    """Whatever the tests were started with."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def stopped(
    *words: str, module: str, how: str, number: int, before: Callable[[], None] = hear_interrupts
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", STOPPED, module, how, str(int(number)), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=before)


@pytest.mark.parametrize("number", STATUS)
def test_while_the_command_line_is_imported(number: signal.Signals) -> None:
    done = stopped("--help", module="typer", how="once", number=number)
    assert (done.returncode, done.stderr) == (STATUS[number], f"{SENTENCE}\n")


@pytest.mark.parametrize(
    ("how", "number"),
    [
        ("once", signal.SIGTERM),
        ("three times", signal.SIGINT),
        ("three times", signal.SIGTERM),
        ("twice, as in C++", signal.SIGTERM),
        ("in a destructor", signal.SIGINT),
        ("as another error", signal.SIGTERM),
        ("in a text that is executed", signal.SIGINT),
    ],
)
def test_while_a_command_imports_what_it_uses(how: str, number: signal.Signals) -> None:
    done = stopped("wait", module="tabnanny", how=how, number=number)
    assert (done.returncode, done.stderr) == (STATUS[number], f"{SENTENCE}\n")


def test_what_was_ignored_from_the_start_stays_ignored() -> None:
    """As under nohup, or in the background of a script; SIGTERM is how to stop it then."""
    done = stopped("--help", module="typer", how="once", number=signal.SIGINT, before=ignore_interrupts)
    assert (done.returncode, done.stderr) == (0, "")
    done = stopped("--help", module="typer", how="once", number=signal.SIGTERM, before=ignore_interrupts)
    assert done.returncode == 143
