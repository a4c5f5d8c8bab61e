"""Whole stores kept in memory: the host's, where clips are views of one array, or a GPU's, where clips are gathered.

What is kept is read once, shard by shard. A raw store on a local disk needs no copy in the host's memory, as the
system's page cache is one already; compressed and remote stores are unpacked only once so.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.resident import ResidentStream
from attengait.pipelines.shared_frames import Room, share_frames, why_not_shared
from attengait.pipelines.stream import ClipStream
from attengait.sampling.plan import BatchPlan
from attengait.store.readers.base import ClipReader, TakeClips
from attengait.store.readers.resident import ResidentReader
from attengait.store.sequences import Sequences
from attengait.store.store import Store
from attengait.system.lookup import check_name
from attengait.system.machine import available_memory_bytes
from attengait.system.progress import SILENT, Progress
from attengait.training.config import CACHES
from attengait.training.ranks import ALONE, Ranks

Cache = Literal["none", "host", "gpu"]

LOAD_FRAMES = 512
"""Frames asked for at once while a store is loaded."""
LOADS_UNDER_WAY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheChoice:
    """Where frames are kept, and why, as a sentence."""

    cache: Cache
    reason: str


def choose_cache(cache: str, stores: Sequence[Store], device: torch.device, *, processes: int = 1) -> CacheChoice:
    """Settle `auto`: a GPU keeps what fits into half of its free memory (the other half is for training); the host
    keeps compressed and remote stores that fit into half of its available memory, once for all `processes` of this
    machine.

    Raises ParameterError for an unknown cache, and for `gpu` where nothing is trained on one; AttenGaitError for `host`
    where memory does not suffice.
    """
    check_name(CACHES, cache, "cache")
    num_bytes = sum(store.layout.num_frames * store.layout.frame_bytes for store in stores)
    size = f"{_gb(num_bytes)} of frames"
    copies = f" once for {processes} processes" if processes > 1 else ""
    if cache == "gpu" and device.type != "cuda":
        raise ParameterError(f"cache is 'gpu', but must be auto, none or host where the device is {device}")
    if cache == "none":
        return CacheChoice(cache="none", reason=f"{size} are read from the store, as asked for")
    if cache == "host":
        left_bytes = available_memory_bytes()
        if left_bytes is not None and num_bytes > left_bytes:
            raise AttenGaitError(f"memory does not suffice to keep {size}{copies}: choose --cache none")
        return CacheChoice(cache="host", reason=f"{size} are kept in memory{copies}, as asked for")
    if cache == "gpu":
        return CacheChoice(cache="gpu", reason=f"{size} are kept on the GPU, as asked for")
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if num_bytes <= free_bytes // 2:
            return CacheChoice(
                cache="gpu", reason=f"{size} are kept on the GPU: they fit into half of its free {_gb(free_bytes)}"
            )
    if all(store.codec == "none" and not store.location.is_remote for store in stores):
        return CacheChoice(cache="none", reason=f"{size} are read from the page cache or the disk, uncompressed")
    available = available_memory_bytes() or 0
    if num_bytes <= available // 2:
        kept = f"{size} are kept in memory{copies}"
        return CacheChoice(cache="host", reason=f"{kept}: they fit into half of the available {_gb(available)}")
    return CacheChoice(
        cache="none", reason=f"{size} are read from the store: they exceed half of the available {_gb(available)}"
    )


def choose_together(cache: str, stores: Sequence[Store], device: torch.device, ranks: Ranks) -> CacheChoice:
    """As `choose_cache`, and the same in all processes: where GPUs differ in their free memory, that of the machines
    decides. Where this differs, too, and where `auto` chose memory that the processes cannot share, nothing is kept.
    Raises what `choose_cache` raises.
    """
    for place in (device, torch.device("cpu")):
        with ranks.all_or_none():  # all choose before any of them takes memory
            choice = choose_cache(cache, stores, place, processes=ranks.local_world_size)
        if len(set(ranks.exchange(choice.cache))) > 1:
            continue
        if cache == "auto" and choice.cache == "host" and (problem := why_not_shared(ranks)):
            return CacheChoice(cache="none", reason=f"frames are read from the store: {problem}")
        return choice
    return CacheChoice(cache="none", reason="frames are read from the store: not all machines have memory for them")


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.3g} GB"


def open_clips(
    cache: Cache,
    reader: ClipReader,
    sequences: Sequences,
    plan: BatchPlan,
    *,
    start_step: int,
    num_steps: int,
    device: torch.device,
    progress: Progress = SILENT,
    ranks: Ranks = ALONE,
) -> ClipStream | ResidentStream:
    """The batches of a plan, or of several processes the slices of one. The frames are first loaded to where they are
    kept. The memory of a machine has them once for all its processes, which must all call this. The reader stays open.

    Raises what `load_frames`, `share_frames` and the streams do.
    """
    steps = {"start_step": start_step, "num_steps": num_steps, "rank": ranks.rank, "world_size": ranks.world_size}
    if cache == "none":
        return ClipStream(reader, plan, device=str(device), **steps)
    starts, lengths = sequences.start[plan.sequences], sequences.length[plan.sequences]
    if cache == "gpu":
        return ResidentStream(load_frames(reader, starts, lengths, device, progress), plan, **steps)

    def load(room: Room | None = None) -> torch.Tensor:
        return load_frames(reader, starts, lengths, torch.device("cpu"), progress, room=room)

    frames = load().numpy() if ranks.is_alone else share_frames(load, ranks)
    return ClipStream(ResidentReader(frames), plan, device=str(device), **steps)


def load_frames(
    reader: ClipReader,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    device: torch.device,
    progress: Progress = SILENT,
    *,
    room: Room | None = None,
) -> torch.Tensor:
    """The frames of sequences, uint8 [F, H, W, C] on `device`, at the same indices as in the store. Other frames are
    undefined. `room` gives the memory for them; by default it is new.

    Raises AttenGaitError for a damaged shard and where memory does not suffice.
    """
    total, done = int(lengths.sum()), 0
    frames: torch.Tensor | None = None
    under_way = deque[tuple[NDArray[np.int64], TakeClips]]()

    def take() -> None:
        nonlocal frames, done
        members, take_clips = under_way.popleft()
        for index, clip in zip(members.tolist(), take_clips(), strict=True):
            if frames is None:
                shape = (int((starts + lengths).max()), *clip.shape[1:])
                frames = _room(shape, device) if room is None else room(shape)
            # torch warns of arrays that must not be written, as those of a mapped store.
            own = clip if clip.flags.writeable else clip.copy()
            frames[starts[index] : starts[index] + len(clip)] = torch.from_numpy(own)
            done += len(clip)
        progress.update("Loading", done, total, unit="frames")

    order = np.argsort(starts, kind="stable")
    pieces = np.cumsum(lengths[order]) // LOAD_FRAMES
    for members in np.split(order, np.flatnonzero(np.diff(pieces)) + 1):
        under_way.append((members, reader.request_clips(starts[members], lengths[members])))
        if len(under_way) > LOADS_UNDER_WAY:
            take()
    while under_way:
        take()
    if frames is None:
        raise AttenGaitError("there are no sequences to keep in memory")
    return frames


def _room(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    try:
        return torch.empty(shape, dtype=torch.uint8, device=device)
    except RuntimeError as error:  # on a CPU torch raises no other
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise AttenGaitError(
            f"the memory of {device} does not suffice to keep {_gb(math.prod(shape))} of frames: choose --cache none"
        ) from None
