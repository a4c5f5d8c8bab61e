"""Processes read sequences, and their pictures arrive in shared memory: nothing of them is copied to this process.

The memory is registered with the GPU (pinned), so that it reads it by itself while it computes. The memory has no name
anywhere: the system frees it with the last process that has it, however that ends. Pictures are uint8 [H, W]; those of
a sequence lie side by side, in the order in which they were read.
"""

import mmap
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing import reduction
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from attengait.datasets.source import Fault, Gray, SourceSequence
from attengait.pipelines.preprocess.own_process import InOwnProcess
from attengait.pipelines.preprocess.reading import Keep, ReadSequence
from attengait.preprocessing.flow import Block
from attengait.system.memory import keep_freed_memory

STEP_BYTES = 8 << 20
"""Memory grows by multiples of it, as registering takes long."""
KEPT_BYTES = 256 << 20
"""Larger memory, which few sequences need, goes back to the system after use."""

Pin = Callable[[NDArray[np.uint8]], Callable[[], None]]
"""Registers memory with a device; what it returns undoes that."""


class ReadKeeping(Protocol):
    """`attengait.pipelines.preprocess.reading.read_sequence`, all but the sequence and `keeping` given."""

    def __call__(self, source: SourceSequence, *, keeping: Callable[[], Keep]) -> ReadSequence:
        """Read a sequence."""
        ...


def pin_nothing(memory: NDArray[np.uint8]) -> Callable[[], None]:
    """Register nothing (a Pin): for what computes from any memory."""
    return lambda: None


class SharedMemory:
    """Memory that a process and those that it starts have together. One at a time may grow or shrink it."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = os.memfd_create("attengait") if descriptor is None else descriptor
        self._mapped: NDArray[np.uint8] = np.empty(0, np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        """Only for a process that is being started."""
        return _received, (reduction.DupFd(self._descriptor),)

    @property
    def mapped_bytes(self) -> int:
        """How much of it this process sees."""
        return len(self._mapped)

    def map(self, num_bytes: int) -> NDArray[np.uint8]:
        """All that this process sees of it, `num_bytes` or more; it grows if it must.

        Growing takes no memory: writing does.
        """
        num_bytes = max(num_bytes, len(self._mapped))
        size = -(-num_bytes // STEP_BYTES) * STEP_BYTES
        if os.fstat(self._descriptor).st_size < size:
            os.ftruncate(self._descriptor, size)
        if len(self._mapped) < size:
            self._mapped = np.frombuffer(mmap.mmap(self._descriptor, size), np.uint8)
        return self._mapped

    def clear(self) -> None:
        """Give it back to the system, for all processes. What they see of it must not be used any more."""
        self._mapped = np.empty(0, np.uint8)
        os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Let go of it. What is still used here stays until it no longer is."""
        self._mapped = np.empty(0, np.uint8)
        os.close(self._descriptor)


def _received(descriptor: Any) -> SharedMemory:
    return SharedMemory(descriptor.detach())


class SharedReaders:
    """Reads sequences, for each thread that calls it in a process of its own; a context manager.

    A sequence's pictures lie in one of `num_sequences` shared memories, until it is given back. So never more than
    these may be read and not yet given back.
    """

    def __init__(self, read: ReadKeeping, *, num_sequences: int, pin: Pin = pin_nothing) -> None:
        self._memories = tuple(SharedMemory() for _ in range(num_sequences))
        self._free = deque(range(num_sequences))
        self._pin = pin
        self._unpin: dict[int, Callable[[], None]] = {}
        self._processes = InOwnProcess(partial(_read_into, self._memories, read))

    def __call__(self, source: SourceSequence) -> ReadSequence:
        """Read a sequence. Raises what reading does; AttenGaitError where the process dies."""
        index = self._free.pop()  # the last one that was given back: few are used where few suffice
        placed = self._processes((source, index))
        planes = self._planes(index, placed)
        block = replace(
            placed.block,
            grays=[planes[place] for place in placed.grays],
            silhouettes=[planes[place] for place in placed.silhouettes],
        )
        return ReadSequence(block, placed.faults, partial(self._give_back, index))

    def __enter__(self) -> Self:
        self._processes.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """End all processes, as InOwnProcess does, and let go of the memory."""
        self._processes.__exit__(*error)
        for unpin in self._unpin.values():
            with suppress(RuntimeError):  # of a GPU that failed: the error that led here says more
                unpin()
        for memory in self._memories:
            memory.close()

    def _planes(self, index: int, placed: "_Placed") -> NDArray[np.uint8]:
        """All pictures of a sequence that was read, uint8 [n, H, W]."""
        memory, num_bytes = self._memories[index], int(np.prod(placed.shape))
        is_new = memory.mapped_bytes < num_bytes
        if is_new and index in self._unpin:
            self._unpin.pop(index)()
        whole = memory.map(num_bytes)
        if is_new:
            self._unpin[index] = self._pin(whole)
        return whole[:num_bytes].reshape(placed.shape)

    def _give_back(self, index: int) -> None:
        if self._memories[index].mapped_bytes > KEPT_BYTES:
            self._unpin.pop(index)()
            self._memories[index].clear()
        self._free.append(index)


class _Placed(NamedTuple):
    """A sequence whose pictures are in shared memory."""

    shape: tuple[int, ...]
    """[n, H, W] of all pictures."""
    grays: list[int]
    silhouettes: list[int]
    """Which of them are the block's."""
    block: Block
    """The block without its pictures."""
    faults: list[Fault]


def _read_into(memories: tuple[SharedMemory, ...], read: ReadKeeping, task: tuple[SourceSequence, int]) -> _Placed:
    keep_freed_memory()  # each picture takes what the last one gave back
    source, index = task
    # A frame is read only if it has a silhouette.
    planes = _Planes(memories[index], most=2 * len(source.silhouettes.names))
    block, faults, _ = read(source, keeping=planes.begin)
    return _Placed(
        shape=planes.shape,
        grays=[planes.place(gray) for gray in block.grays],
        silhouettes=[planes.place(silhouette) for silhouette in block.silhouettes],
        block=replace(block, grays=[], silhouettes=[]),
        faults=faults,
    )


class _Planes:
    """The pictures of one sequence in shared memory, at most `most`."""

    def __init__(self, memory: SharedMemory, *, most: int) -> None:
        self._memory, self._most = memory, most
        self.begin()

    def begin(self) -> Keep:
        """Forget what is there; what is returned moves a block's pictures here."""
        self._planes: NDArray[np.uint8] = np.empty((0, 0, 0), np.uint8)
        self._number = 0
        self._last: tuple[Gray, Gray] | None = None
        return self._keep

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, H, W] of those that are here."""
        return self._number, *self._planes.shape[1:]

    def place(self, picture: Gray) -> int:
        """Which one of those here a picture is."""
        return (picture.ctypes.data - self._planes.ctypes.data) // picture.nbytes

    def _keep(self, block: Block) -> Block:
        if not self._number:
            height, width = block.grays[0].shape
            whole = self._memory.map(self._most * height * width)
            self._planes = whole[: self._most * height * width].reshape(self._most, height, width)
        # The last frame of one block may be the first of the next.
        kept = [self._last[1]] if self._last is not None and self._last[0] is block.grays[0] else []
        grays = kept + [self._add(gray) for gray in block.grays[len(kept) :]]
        self._last = block.grays[-1], grays[-1]
        return replace(block, grays=grays, silhouettes=[self._add(silhouette) for silhouette in block.silhouettes])

    def _add(self, picture: Gray) -> Gray:
        plane: Gray = self._planes[self._number]
        plane[:] = picture
        self._number += 1
        return plane
