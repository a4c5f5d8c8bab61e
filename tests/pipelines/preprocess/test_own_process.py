"""Every thread has its own process, which answers, raises, dies and ends as it should."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest

from attengait.errors import AttenGaitError
from attengait.pipelines.preprocess.own_process import InOwnProcess

answering = import_module("host_devices").answering


def test_each_thread_keeps_one_process_and_gets_its_answers():
    barrier = threading.Barrier(3)

    def ask(number):
        barrier.wait(600)  # so that all three threads take part
        return answering(number)[0], [call(each) for each in (number, number + 10)]

    with InOwnProcess(answering) as call, ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(ask, range(3)))
    processes = set()
    for number, (here, ((first, one), (second, other))) in enumerate(answers):
        assert here == number
        assert (first, second, one) == (number, number + 10, other)
        processes.add(one)
    assert len(processes) == 3
    assert os.getpid() not in processes
    assert multiprocessing.active_children() == []


def test_large_answers_arrive_whole():
    with InOwnProcess(bytes) as call:
        assert len(call(5_000_000)) == 5_000_000


def test_an_exception_is_raised_here_and_the_process_goes_on():
    with InOwnProcess(answering) as call:
        with pytest.raises(OSError, match="No space left"):
            call("fail")
        assert call(1)[0] == 1
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_while_it_answers_is_one_sentence():
    with (
        InOwnProcess(answering) as call,
        pytest.raises(AttenGaitError, match=r"^a process that reads died, perhaps for lack of memory$"),
    ):
        call("die")
    assert multiprocessing.active_children() == []


def test_processes_end_with_their_parent():
    program = """
        import os, signal
        from attengait.pipelines.preprocess.own_process import InOwnProcess
        if __name__ == "__main__":
            call = InOwnProcess(len)
            print(call("four"), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    # The output ends when the last process that holds it is gone.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, "4\n", "")
