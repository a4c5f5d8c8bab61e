"""Tasks for worker processes that end in every kind of exception, or never."""

import ctypes
import os
import signal

from attengait.errors import AttenGaitError, ParameterError


class NeedsTwoError(Exception):
    """Pickled with its message alone, it cannot be made again."""

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")


class DoublesItsMessageError(Exception):
    """It can be made again, but then it says something else."""

    def __init__(self, path, reason="is damaged"):
        super().__init__(f"{path} {reason}")


class RefusesToTravelError(Exception):
    def __reduce__(self):
        raise TypeError("cannot pickle it")


class DamagedFileError(AttenGaitError):
    def __init__(self, path, reason):
        super().__init__(f"{path} is damaged: {reason}")


class BadOptionError(ParameterError):
    def __init__(self, name, value):
        super().__init__(f"{name} is {value}, but must be 1")


ERRORS = {
    "needs two": lambda: NeedsTwoError("a.png", "bad header"),
    "doubles": lambda: DoublesItsMessageError("a.png"),
    "refuses": lambda: RefusesToTravelError("a.png"),
    "file": lambda: DamagedFileError("a.png", "bad header"),
    "option": lambda: BadOptionError("workers", 0),
    "plain file": lambda: AttenGaitError("a.png is damaged"),
    "plain option": lambda: ParameterError("workers is 0, but must be 1"),
    "value": lambda: ValueError("a bug"),
    "system": lambda: OSError(28, "No space left on device"),
    "interrupt": lambda: KeyboardInterrupt(),
}


def failing_task(kind):
    """Raise the error of that kind; return what is none."""
    if kind not in ERRORS:
        return kind
    raise ERRORS[kind]()


def unsendable_result(_):
    """Return what cannot be pickled."""
    return lambda: None


def never_ends_or_dies(folder):
    """The worker of a task without a folder is killed, as by the system when memory is short."""
    if folder is None:
        os.kill(os.getpid(), signal.SIGKILL)
    never_ends(folder)


def never_ends(folder):
    """Hold the interpreter for ever, as a library may: no other thread of this process runs. Says before who it is."""
    if folder is None:
        raise ValueError("another task failed")
    (folder / f"busy-{os.getpid()}").touch()
    ctypes.PyDLL(None).pause()
