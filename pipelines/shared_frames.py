"""One copy of a store's frames for all processes of a machine that train together.

The first process of the machine (LOCAL_RANK 0) fills memory that has no name in any folder (a memfd). The others open
it through this process's entry in /proc and map it for reading. So the system frees it with the last process that maps
it, however that ends, and the size of /dev/shm, which is small in containers, does not limit it.
"""

import mmap
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.training.ranks import OtherProcessError, Ranks

Room = Callable[[tuple[int, ...]], torch.Tensor]
"""Memory for frames of a shape, uint8."""

_ADVICE = ": choose --cache none"


def share_frames(load: Callable[[Room], torch.Tensor], ranks: Ranks) -> NDArray[np.uint8]:
    """The frames that `load` puts into the room that it is given, uint8 [F, H, W, C], the same memory in all processes
    of this machine. All processes call this.

    Raises what `load` raises in the process that calls it, OtherProcessError in the others; AttenGaitError where the
    memory of the first process cannot be mapped.
    """
    memory = _Memory()
    with memory:
        with ranks.all_or_none():
            frames = load(memory.room).numpy() if ranks.local_rank == 0 else None
        place = ranks.exchange(memory.place)[ranks.first_of_machine]
        # Only when all have mapped it does the first one close it.
        with ranks.all_or_none():
            if frames is None:
                frames = map_frames(place, ranks)
    return frames


def why_not_shared(ranks: Ranks) -> str | None:
    """Why processes of a machine cannot share memory, as one byte of it shows; None if all can. All processes call
    this, and get the same.

    Raises OtherProcessError where another process has died.
    """
    problem = None
    try:
        share_frames(lambda room: room((1,)), ranks)
    except OtherProcessError as error:
        if not error.is_explained:
            raise
    except AttenGaitError as error:
        problem = str(error).removesuffix(_ADVICE)
    return next(filter(None, ranks.exchange(problem)), None)


class Place(NamedTuple):
    """Where another process of the machine finds frames."""

    process: int
    descriptor: int
    name: str
    """Drawn at random: a process of the same number on another machine has another."""
    shape: tuple[int, ...]


class _Memory:
    """Memory of the first process."""

    def __init__(self) -> None:
        self.place: Place | None = None

    def room(self, shape: tuple[int, ...]) -> torch.Tensor:
        """The memory, once, mapped for writing."""
        name = f"attengait-{secrets.token_hex(8)}"
        num_bytes = int(np.prod(shape))
        try:
            descriptor = os.memfd_create(name)
            self.place = Place(os.getpid(), descriptor, name, shape)
            os.ftruncate(descriptor, num_bytes)
            whole = np.frombuffer(mmap.mmap(descriptor, num_bytes), np.uint8)
        except (OSError, ValueError) as error:
            raise AttenGaitError(f"no memory can be shared by processes here: {error}{_ADVICE}") from None
        return torch.from_numpy(whole.reshape(shape))

    def __enter__(self) -> None:
        """Nothing is taken yet."""

    def __exit__(self, *exception: object) -> None:
        """What is mapped stays."""
        if self.place is not None:
            with suppress(OSError):
                os.close(self.place.descriptor)


def map_frames(place: Place | None, ranks: Ranks) -> NDArray[np.uint8]:
    """The frames of another process, for reading."""
    whose = f"process {ranks.first_of_machine}, which keeps the frames for process {ranks.rank}"
    if place is None:
        raise AttenGaitError(f"{whose}, has no memory to share{_ADVICE}")
    path = f"/proc/{place.process}/fd/{place.descriptor}"
    try:
        if place.name not in os.readlink(path):
            raise AttenGaitError(f"{whose}, is on another machine{_ADVICE}")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise AttenGaitError(f"the memory of {whose}, cannot be opened ({path}: {error.strerror}){_ADVICE}") from None
    try:
        whole = mmap.mmap(descriptor, int(np.prod(place.shape)), prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
    return np.frombuffer(whole, np.uint8).reshape(place.shape)
