"""A host device that records who reads and writes each byte while a kernel runs, and fails where threads race.

The host runs one thread after the other, so a kernel that races may still give the right result in every order that the
tests try. The recorder (race_recorder.cpp) finds such a race from the accesses alone.
"""

import ctypes
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attengait.kernels.runtime import launch
from attengait.kernels.runtime.launch import HostDevice

RECORDER = Path(__file__).with_name("race_recorder.cpp")


class RaceError(AssertionError):
    """Two threads or blocks use the same byte, one of them writes it, and nothing orders them."""


def instrumented(source: str) -> tuple[str, ...]:
    """The flags that compile a recorder with a source in it, so that each access of the source is a call."""
    path = launch.SOURCES / source
    # The digest names the library, whose source is the recorder.
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return (
        f'-DSOURCE="{path}"',
        f"-DDIGEST={digest}",
        *("-O0", "-w", "-fsanitize=thread"),
        *("-nodefaultlibs", "-Wl,--no-as-needed", "-lstdc++", "-lm", "-lc", "-lgcc_s"),  # without libtsan
    )


class RecordingDevice(HostDevice):
    """Slow: each access is a call. `num_accesses` counts those of all launches."""

    def __init__(self) -> None:
        super().__init__()
        self.num_accesses = 0

    def launch(
        self, source: str, kernel: str, grid: Sequence[int], arguments: Sequence[Any], defines: Mapping[str, int]
    ) -> None:
        """See Device. Raises RaceError with the first race that was found."""
        flags = instrumented(source)
        library = launch._host_library(str(RECORDER), frozenset(defines.items()), flags)
        library.recorder_race.restype = ctypes.c_char_p
        library.recorder_accesses.restype = ctypes.c_longlong
        library.recorder_begin()
        self._flags = flags  # the same library is launched
        super().launch(str(RECORDER), kernel, grid, arguments, defines)
        self.num_accesses += library.recorder_accesses()
        if race := library.recorder_race().decode():
            raise RaceError(f"{kernel} of {source}: {race}")
