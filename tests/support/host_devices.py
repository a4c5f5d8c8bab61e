"""Devices for processes that tests start: the host in the place of a GPU, sound or not."""

import os
import signal
import threading
from collections import deque
from functools import partial

import numpy as np

from attengait.kernels.runtime.launch import HostDevice


def host_device(index):
    return HostDevice()


def noted_device(index):
    """Notes the process that makes it."""
    with open(os.environ["DEVICE_PROCESSES"], "a") as file:
        file.write(f"{os.getpid()}\n")
    return HostDevice()


class Failing(HostDevice):
    def launch(self, *arguments):
        raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED:\n unspecified launch failure")


def failing_device(index):
    """The second GPU fails; others wait for ever, so that it is the second that fails."""
    return Failing() if index == 1 else Waiting()


class Waiting(HostDevice):
    def launch(self, *arguments):
        threading.Event().wait()


class Dying(HostDevice):
    def launch(self, *arguments):
        os.kill(os.getpid(), signal.SIGKILL)


def dying_device(index):
    return Dying()


def failing(*_, **__):
    """In the place of anything."""
    raise OSError(28, "No space left on device")


def dying(*_, **__):
    """In the place of anything."""
    os.kill(os.getpid(), signal.SIGKILL)


def answering(what):
    """Answer, with the process that does it; fail; or die when the answer is to be sent."""
    if what == "fail":
        failing()
    if what == "die":
        return DiesWhenSent()
    return what, os.getpid()


class DiesWhenSent:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)
        return bytes, (1,)


class Late(HostDevice):
    """Does nothing before somebody waits for it: the latest that a GPU may read what it was given."""

    def __init__(self):
        super().__init__()
        self._to_do = deque()
        self.num_begun = self.most_begun = 0

    def launch(self, *arguments):
        self._to_do.append(partial(super().launch, *arguments))

    def start_upload(self, parts):
        whole = np.full((sum(map(len, parts)), *parts[0].shape[1:]), 77, parts[0].dtype)
        self._to_do.append(partial(np.concatenate, parts, out=whole))
        return whole

    def start_download(self, array):
        copy, arrived = np.empty_like(array), threading.Event()
        self._to_do += [partial(np.copyto, copy, array), arrived.set]
        self.num_begun += 1
        self.most_begun = max(self.most_begun, self.num_begun)

        def wait():
            while not arrived.is_set():
                self._to_do.popleft()()
            self.num_begun -= 1
            return copy

        return wait

    def download(self, array):
        return self.start_download(array)()


def late_device(index):
    return Late()


def add_one(memory):
    """To the first four bytes of a SharedMemory."""
    memory.map(4)[:4] += 1
