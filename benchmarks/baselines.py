"""What others train from: torch's DataLoader over files of another format, which are made from a store for measuring.

    pickle-dataloader         one pickled array per sequence, loaded whole for each clip, as the incumbent toolkit does:
                              its workers send lists of arrays, from which the parent makes float32 of 0 to 1
    pickle-dataloader, uint8  the same files, as well as a DataLoader can: like the two below
    h5py                      one HDF5 file per sequence, as the published program has it; only the clip is read
    npy-dataloader            one memory-mapped .npy of all frames

Workers are spawned, persist and prefetch; batches are put together by torch's own collation, in shared memory, and stay
uint8. One set of workers serves all formats, one measurement at a time.
"""

import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, default_collate

from attengait.benchmarks.ways import Batch, Way
from attengait.errors import AttenGaitError
from attengait.sampling.plan import PlannedBatch
from attengait.store import Sequences

AS_THE_INCUMBENT = "pickle-dataloader"

Item = tuple[str, int, int]
"""Way, index of the sequence, first frame within it."""

Clip = NDArray[np.uint8] | torch.Tensor

PREFETCHED_BATCHES = 2
"""By each worker: torch's default."""


def write_files(folder: Path, frames: NDArray[np.uint8], sequences: Sequences) -> None:
    """Write `sequences`, whose `start` counts in `frames` [F, H, W, C], in each of the formats."""
    np.save(folder / "frames.npy", frames)
    for i, (start, length) in enumerate(zip(sequences.start.tolist(), sequences.length.tolist(), strict=True)):
        sequence = frames[start : start + length]
        with _pickle_file(folder, i).open("wb") as file:
            pickle.dump(sequence, file, protocol=pickle.HIGHEST_PROTOCOL)
        with h5py.File(_h5_file(folder, i), "w") as file:
            file["data"] = sequence


class ClipFiles(Dataset[Clip]):
    """Clips from the files in `folder`; items are asked for a batch at a time."""

    def __init__(self, folder: Path, starts: NDArray[np.int64], clip_frames: int) -> None:
        self._folder, self._starts, self._clip_frames = folder, starts, clip_frames
        self._frames: NDArray[np.uint8] | None = None
        self._readers: dict[str, Callable[[int, int], NDArray[np.uint8]]] = {
            AS_THE_INCUMBENT: self._from_pickle,
            f"{AS_THE_INCUMBENT}, uint8": self._from_pickle,
            "h5py": self._from_h5,
            "npy-dataloader": self._from_npy,
        }

    def __getitem__(self, item: Item) -> Clip:
        """A clip, uint8 [T, H, W, C]."""
        kind, sequence, first = item
        clip = self._readers[kind](sequence, first)
        return clip if kind == AS_THE_INCUMBENT else torch.from_numpy(clip)

    def __getitems__(self, items: Sequence[Item]) -> list[Clip]:
        """The clips of a batch; the empty one lets go of the files that are kept open."""
        if not items:
            self._frames = None
        return [self[item] for item in items]

    def _from_pickle(self, sequence: int, first: int) -> NDArray[np.uint8]:
        with _pickle_file(self._folder, sequence).open("rb") as file:
            frames: NDArray[np.uint8] = pickle.load(file)
        return frames[first : first + self._clip_frames]

    def _from_h5(self, sequence: int, first: int) -> NDArray[np.uint8]:
        with h5py.File(_h5_file(self._folder, sequence), "r") as file:
            clip: NDArray[np.uint8] = file["data"][first : first + self._clip_frames]
        return clip

    def _from_npy(self, sequence: int, first: int) -> NDArray[np.uint8]:
        if self._frames is None:
            # Writable copies of pages, never made as nobody writes: torch warns of arrays that are read-only.
            self._frames = np.load(self._folder / "frames.npy", mmap_mode="c")
        start = int(self._starts[sequence]) + first
        return self._frames[start : start + self._clip_frames]


class LoaderPool:
    """A DataLoader over `files` with `num_workers` processes; with none it reads in this one."""

    def __init__(self, files: Dataset[Any], num_workers: int) -> None:
        self.num_workers = num_workers
        self._wanted = _Wanted()
        with warnings.catch_warnings(action="ignore"):  # of more workers than cores, which is what is measured
            self._loader: DataLoader[Any] = DataLoader(
                files,
                batch_sampler=self._wanted,
                num_workers=num_workers,
                persistent_workers=num_workers > 0,
                prefetch_factor=PREFETCHED_BATCHES if num_workers else None,
                multiprocessing_context="spawn" if num_workers else None,
                collate_fn=_collate,
            )
            self.let_go()

    def read(self, wanted: list[list[Item]]) -> Iterator[Any]:
        """What `_collate` makes of the batches `wanted`; raises AttenGaitError when a worker dies."""
        self._wanted.batches = wanted
        try:
            yield from self._loader
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise AttenGaitError("a worker of the DataLoader died, perhaps for lack of (shared) memory") from error

    def let_go(self) -> None:
        """Have each worker let go of its files, as batches are dealt out in turns; the first call starts them."""
        for _ in self.read([[]] * max(1, self.num_workers)):
            pass

    def close(self) -> None:
        """End the workers."""
        del self._loader  # its end is theirs


class DataLoaderWay(Way):
    """Clips of one format by a pool, which whoever made it closes."""

    share = 0.1

    def __init__(self, name: str, kind: str, files: Sequence[Path], pool: LoaderPool, starts: NDArray[Any]) -> None:
        super().__init__(name, files)
        self._kind, self._pool, self._starts = kind, pool, starts

    def batches(self, planned: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """See Way."""
        wanted = []
        for batch in planned:
            firsts = batch.starts - self._starts[batch.sequences]
            pairs = zip(batch.sequences.tolist(), firsts.tolist(), strict=True)
            wanted.append([(self._kind, sequence, first) for sequence, first in pairs])
        for clips in self._pool.read(wanted):
            yield clips if self._kind != AS_THE_INCUMBENT else _to_float(clips)

    def num_batches(self, num_batches: int) -> int:
        """As many for each worker, and enough for all of them to read ahead."""
        workers = max(1, self._pool.num_workers)
        least = max(super().num_batches(num_batches), PREFETCHED_BATCHES * workers)
        return -(-least // workers) * workers

    def let_go(self) -> None:
        """See Way."""
        self._pool.let_go()

    def close(self) -> None:
        """Nothing: the pool serves other formats as well."""


def dataloader_ways(
    folder: Path, sequences: Sequences, clip_frames: int, pools: Sequence[LoaderPool], default_workers: int
) -> list[Way]:
    """Each format by each pool. Only the pool of `default_workers` is not mentioned in the names."""
    pickles = [_pickle_file(folder, i) for i in range(len(sequences))]
    files = {
        AS_THE_INCUMBENT: pickles,
        f"{AS_THE_INCUMBENT}, uint8": pickles,
        "h5py": [_h5_file(folder, i) for i in range(len(sequences))],
        "npy-dataloader": [folder / "frames.npy"],
    }
    ways: list[Way] = []
    for kind, paths in files.items():
        for pool in pools:
            number = pool.num_workers
            suffix = "" if number == default_workers else f", {number} worker{'' if number == 1 else 's'}"
            ways.append(DataLoaderWay(kind + suffix, kind, paths, pool, sequences.start))
    return ways


class _Wanted:
    """The batches that the DataLoader asks its workers for when it is iterated over next."""

    def __init__(self) -> None:
        self.batches: list[list[Item]] = []

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _collate(clips: list[Clip]) -> torch.Tensor | list[NDArray[np.uint8]]:
    """torch's own, or as the incumbent picks frames: one by one into an array for each clip."""
    if clips and isinstance(clips[0], np.ndarray):
        return [np.asarray(list(clip)) for clip in clips]
    batch: torch.Tensor = default_collate(clips) if clips else torch.empty(0)
    return batch


def _to_float(clips: list[NDArray[np.uint8]]) -> torch.Tensor:
    """As the incumbent transforms and converts what its workers sent: float32 of 0 to 1."""
    return torch.from_numpy(np.asarray([clip / 255.0 for clip in clips])).float()


def _pickle_file(folder: Path, sequence: int) -> Path:
    return folder / f"{sequence}.pkl"


def _h5_file(folder: Path, sequence: int) -> Path:
    return folder / f"{sequence}.h5"
