"""`store_run.py OUT WORKERS COMPUTE`: write the fake store, as the command line would; killed or signalled if told so.

STORE_KILL = "N parent" or "N group": the N-th file or folder that is renamed into place is the last thing that happens
before SIGKILL hits the parent alone or the whole process group. Workers run this file too, so it counts in a file.
"""

import os
import signal
import sys
import threading
from multiprocessing import parent_process

import store_fakes

from attengait.errors import AttenGaitError
from attengait.store.writer import write_store

really_replace = os.replace


def replace_and_die(source, target):
    really_replace(source, target)
    if str(source).endswith(".partial"):  # zarr-python's own
        return
    with open(os.environ["STORE_KILL_COUNTER"], "ab") as counter:
        counter.write(b".")
        count = counter.tell()
    number, whom = os.environ["STORE_KILL"].split()
    if count == int(number):
        if whom == "group":
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getppid() if parent_process() else os.getpid(), signal.SIGKILL)
        threading.Event().wait()  # an orphan never leaves by itself


if "STORE_KILL" in os.environ:
    os.replace = replace_and_die


class Terminated(KeyboardInterrupt):
    pass


def terminate(*_):
    raise Terminated


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminate)
    out, num_workers, compute = sys.argv[1:]
    try:
        summary = write_store(
            store_fakes.job_of(out, compute=getattr(store_fakes, compute), num_workers=int(num_workers))
        )
        print(f"reused {summary.num_shards_reused}")
    except (KeyboardInterrupt, AttenGaitError) as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(1)
