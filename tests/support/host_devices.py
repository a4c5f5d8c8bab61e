"""Devices for processes that tests start: the host in the place of a GPU, sound or not."""

import os
import signal
import threading

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
