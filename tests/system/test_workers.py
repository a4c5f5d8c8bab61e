"""Results and exceptions arrive from worker processes as what they are."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from importlib import import_module
from multiprocessing import util
from pathlib import Path

import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.preprocess.own_process import InOwnProcess
from attengait.system.workers import WorkerError, run_in_workers

tasks = import_module("failing_tasks")

ARRIVES = [
    ("needs two", WorkerError, "NeedsTwoError: a.png: bad header"),
    ("doubles", WorkerError, "DoublesItsMessageError: a.png is damaged"),
    ("refuses", WorkerError, "RefusesToTravelError: a.png"),
    ("file", AttenGaitError, "a.png is damaged: bad header"),
    ("option", ParameterError, "workers is 0, but must be 1"),
    ("plain file", AttenGaitError, "a.png is damaged"),
    ("plain option", ParameterError, "workers is 0, but must be 1"),
    ("value", ValueError, "a bug"),
    ("system", OSError, "[Errno 28] No space left on device"),
    ("interrupt", KeyboardInterrupt, ""),
]


def in_a_pool(kind):
    run_in_workers(tasks.failing_task, [kind], num_workers=1)


def in_its_own_process(kind):
    with InOwnProcess(tasks.failing_task) as call:
        call(kind)


@pytest.mark.parametrize("run", [in_a_pool, in_its_own_process])
@pytest.mark.parametrize(("kind", "error", "message"), ARRIVES, ids=[kind for kind, _, _ in ARRIVES])
def test_the_real_error_arrives_with_its_traceback(run, kind, error, message):
    with pytest.raises(error) as raised:
        run(kind)
    assert type(raised.value) is error
    assert str(raised.value) == message
    (note,) = raised.value.__notes__
    assert "in failing_task\n    raise ERRORS[kind]()" in note


def test_a_process_that_answered_with_an_error_goes_on():
    with InOwnProcess(tasks.failing_task) as call:
        for kind in ("needs two", "interrupt"):
            with pytest.raises((WorkerError, KeyboardInterrupt)):
                call(kind)
            assert call("no error") == "no error"


def test_a_result_that_cannot_be_pickled_is_said():
    with InOwnProcess(tasks.unsendable_result) as call, pytest.raises(Exception, match=r"unsendable_result.*<lambda>"):
        call(1)
    with pytest.raises(Exception, match=r"unsendable_result.*<lambda>"):
        run_in_workers(tasks.unsendable_result, [1], num_workers=1)


def test_results_arrive_from_all_workers():
    results = []
    run_in_workers(tasks.failing_task, range(5), num_workers=2, on_result=results.append)
    assert sorted(results) == [0, 1, 2, 3, 4]


def test_an_interruption_while_workers_start_leaves_no_traceback_of_theirs(monkeypatch, capfd):
    """The signal comes between the start of a worker and the moment when it is told what to do."""
    start, started = util.spawnv_passfds, []

    def start_and_interrupt(*words):
        started.append(start(*words))
        os.kill(os.getpid(), signal.SIGINT)
        while not heard.wait(0.1):
            pass
        return started[-1]

    def interrupt(number, frame):
        heard.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    # As in a real process, where some thread always hears signals.
    heard, ended = threading.Event(), threading.Event()
    threading.Thread(target=ended.wait, daemon=True).start()
    run_in_workers(abs, [-1], num_workers=1)  # the resource tracker is started
    try:
        monkeypatch.setattr(util, "spawnv_passfds", start_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_in_workers(abs, [-1], num_workers=1)
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before)
    for worker in started:
        with contextlib.suppress(ChildProcessError):  # it was waited for
            os.waitpid(worker, 0)
    assert capfd.readouterr().err == ""


def is_running(process):
    """Whether a process is there and has not ended. (Whoever should fetch its end may have ended before.)"""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def busy_processes(folder):
    return [int(path.name.removeprefix("busy-")) for path in folder.glob("busy-*")]


@pytest.mark.parametrize("run", ["in a pool", "in its own process"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_worker_that_never_answers_does_not_hold_up_a_stop(tmp_path, run, number):
    """Without the kill this waits for ever, which the time limit below ends."""
    call = {
        "in a pool": "run_in_workers(tasks.never_ends, [folder], num_workers=1)",
        "in its own process": "with InOwnProcess(tasks.never_ends) as call: call(folder)",
    }[run]
    program = textwrap.dedent(f"""
        import signal, sys
        from importlib import import_module
        from pathlib import Path
        from attengait.pipelines.preprocess.own_process import InOwnProcess
        from attengait.system.workers import run_in_workers
        tasks, folder = import_module("failing_tasks"), Path(sys.argv[1])
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if __name__ == "__main__":
            {call}
    """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([p for p in sys.path if p])}
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not busy_processes(tmp_path):
            pass
        process.send_signal(number)
        try:
            _, err = process.communicate(timeout=600)
        finally:
            process.kill()
            left = [each for each in busy_processes(tmp_path) if is_running(each)]
            for each in left:
                os.kill(each, signal.SIGKILL)
    assert "KeyboardInterrupt" in err or number == signal.SIGKILL
    assert len(busy_processes(tmp_path)) == 1
    assert not left


def test_a_failed_task_does_not_wait_for_one_that_never_ends(tmp_path):
    with pytest.raises(ValueError, match="another task failed"):
        run_in_workers(tasks.never_ends, [tmp_path, None], num_workers=2)


def test_a_worker_that_never_answers_does_not_hide_that_another_one_died(tmp_path):
    """Without a look at the workers themselves this waits for ever: the pool watches those that it knew before."""
    with pytest.raises(AttenGaitError, match=r"^a worker process died, perhaps for lack of memory$"):
        run_in_workers(tasks.never_ends_or_dies, [tmp_path, None], num_workers=2)
