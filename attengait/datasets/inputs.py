"""Files that the plan of a run listed: each must still be there, readable and unchanged when it is used.

What is missing or changed then is no bad file that may be left out. Perhaps a disk or server is gone for a while, and a
store that is finished without it would be wrong. So it is an error of the run, which can be continued later.
"""

import os
from collections.abc import Iterable

import numpy as np

from attengait.datasets.source import SourceSequence
from attengait.errors import AttenGaitError
from attengait.system.files import open_regular, read_regular

_PIECE_BYTES = 1 << 20


class InputError(AttenGaitError):
    """A file that was there when the run was planned, and is now missing, not readable, or another one."""


def read_bytes(path: str) -> bytes:
    """A file's bytes; raises InputError."""
    try:
        return read_regular(path)
    except OSError as error:
        raise InputError(f"{path} can no longer be read: {error.strerror or error}") from None


def require_readable(path: str) -> None:
    """Raise InputError unless a file can be read to its end: a decoder does not say why it sees no more."""
    try:
        with open_regular(path) as file:
            while file.read(_PIECE_BYTES):
                pass
    except OSError as error:
        raise InputError(f"{path} can no longer be read: {error.strerror or error}") from None


def pack_stamps(sizes_and_times: Iterable[tuple[int, int]]) -> bytes:
    """Sizes in bytes and times of last change in nanoseconds, as SourceSequence keeps them."""
    return np.array(list(sizes_and_times), np.int64).tobytes()


def check_unchanged(sequence: SourceSequence) -> None:
    """Raise InputError unless all files of a sequence have the sizes and times with which the run was planned."""
    if not sequence.stamps:
        return
    files = [path for part in sequence.parts.values() for path in part.files]
    stamps = np.frombuffer(sequence.stamps, np.int64).reshape(-1, 2)
    for path, stamp in zip(files, stamps.tolist(), strict=True):
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(f"{path} can no longer be read: {error.strerror or error}") from None
        if [status.st_size, status.st_mtime_ns] != stamp:
            raise InputError(f"{path} changed during the run")
