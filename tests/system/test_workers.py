"""Results and exceptions arrive from worker processes as what they are."""

import os
import signal
import subprocess
import sys
import textwrap
from importlib import import_module
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


POOL = "run_in_workers(never_ends, ['hang'], num_workers=1)"
OWN = (
    "with InOwnProcess(never_ends) as call: threading.Thread(target=call, args=('hang',), daemon=True).start(); wait()"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", [POOL, OWN], ids=["pool", "own process"])
def test_a_task_that_never_ends_does_not_hold_up_a_stop(work, number):
    program = f"""
        import signal, threading
        from attengait.pipelines.preprocess.own_process import InOwnProcess
        from attengait.system.workers import run_in_workers
        from failing_tasks import never_ends

        def wait():
            while True:
                signal.pause()

        if __name__ == "__main__":
            signal.signal({number:d}, signal.default_int_handler)
            try:
                {work}
            except KeyboardInterrupt:
                print("stopped")
    """
    path = os.pathsep.join([str(Path(tasks.__file__).parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            worker = int(process.stdout.readline())
            process.send_signal(number)
            said, _ = process.communicate(timeout=60)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert (said, process.returncode) == ("stopped\n", 0)
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_task_that_never_ends_does_not_hide_that_another_worker_died(capfd):
    with pytest.raises(AttenGaitError, match="a worker process died"):
        run_in_workers(tasks.never_ends, ["hang", "die"], num_workers=2)
    capfd.readouterr()
