"""The loaders that others choose, over files of their formats, which are made from a store for measuring.

    litdata      LitData's chunks, one sequence an item
    mds          MosaicML Streaming's shards, one sequence an item
    arrayrecord  an ArrayRecord file, one sequence a record
    grain        Grain's MapDataset over the same, in threads
    webdataset   tar files, one sequence a sample
    ffcv         clips that are cut beforehand, in one file (see `attengait.benchmarks.ffcv_clips`)

A record is a whole sequence, of which a clip is cut. litdata, mds, arrayrecord and grain can be asked for any
sequence, so they deliver the clips of the plan. Tar files are read from end to end: webdataset delivers a clip of each
sequence in the order of the files, mixed by its shuffle. It is said to deliver other clips, and so is ffcv. litdata,
mds and arrayrecord are read by torch's DataLoader with the pool of `attengait.benchmarks.baselines`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from attengait.benchmarks.baselines import PREFETCHED_BATCHES, DataLoaderWay, Item, LoaderPool
from attengait.benchmarks.ffcv_clips import FILE_NAME, FfcvWay, cut_clips, write_clips
from attengait.benchmarks.ways import Batch, Way
from attengait.errors import ParameterError, how_to_install
from attengait.sampling.plan import PlannedBatch
from attengait.store import Sequences

TAR_SEQUENCES = 64
"""Sequences of one tar file."""
CHUNK_BYTES = 64 << 20
"""Of litdata and mds, which is their usual size."""

Read = Callable[[int], Any]
"""From the index of a sequence to its bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A loader that may be installed."""

    modules: tuple[str, ...]
    """What it needs to import."""
    write: Callable[[Path, Sequence[NDArray[np.uint8]]], None] | None
    """Writes sequences into an empty folder; None where clips are written."""
    open: Callable[[Path], Read] | None
    """Opens what was written for random access; None where there is none."""
    to_install: str = how_to_install("peers")
    """The end of a sentence that says that it is missing."""


def _write_litdata(folder: Path, sequences: Sequence[NDArray[np.uint8]]) -> None:
    from litdata.streaming.cache import Cache

    cache = Cache(str(folder), chunk_bytes=CHUNK_BYTES)
    for i, frames in enumerate(sequences):
        cache[i] = frames.tobytes()
    cache.done()
    cache.merge()


def _open_litdata(folder: Path) -> Read:
    from litdata import StreamingDataset

    dataset = StreamingDataset(str(folder), shuffle=False)
    return lambda index: dataset[index]


def _write_mds(folder: Path, sequences: Sequence[NDArray[np.uint8]]) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"frames": "bytes"}, size_limit=CHUNK_BYTES) as writer:
        for frames in sequences:
            writer.write({"frames": frames.tobytes()})


def _open_mds(folder: Path) -> Read:
    from streaming import LocalDataset

    dataset = LocalDataset(local=str(folder))
    return lambda index: dataset[index]["frames"]


def _write_array_record(folder: Path, sequences: Sequence[NDArray[np.uint8]]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(folder / "sequences.array_record"), "group_size:1")
    for frames in sequences:
        writer.write(frames.tobytes())
    writer.close()


def _open_array_record(folder: Path) -> Read:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    source = ArrayRecordDataSource(str(folder / "sequences.array_record"))
    return lambda index: source[index]


def _write_tar(folder: Path, sequences: Sequence[NDArray[np.uint8]]) -> None:
    from webdataset import ShardWriter

    with ShardWriter(str(folder / "%06d.tar"), maxcount=TAR_SEQUENCES, verbose=0) as writer:
        for i, frames in enumerate(sequences):
            writer.write({"__key__": f"{i:06d}", "frames.bin": frames.tobytes()})


PEERS = {
    "litdata": Peer(modules=("litdata",), write=_write_litdata, open=_open_litdata),
    "mds": Peer(modules=("streaming",), write=_write_mds, open=_open_mds),
    "arrayrecord": Peer(modules=("array_record",), write=_write_array_record, open=_open_array_record),
    "grain": Peer(modules=("grain", "array_record"), write=_write_array_record, open=_open_array_record),
    "webdataset": Peer(modules=("webdataset",), write=_write_tar, open=None),
    "ffcv": Peer(
        modules=("ffcv", "ffcv.loader"),
        write=None,
        open=None,
        to_install="it has no wheels, and pip install ffcv needs a compiler, pkg-config, and the headers of OpenCV and "
        "libturbojpeg",
    ),
}


def check_peers(names: Sequence[str]) -> None:
    """Raise ParameterError for a name that is not known, or is there twice."""
    for name in names:
        if name not in PEERS:
            raise ParameterError(f"peers is {name!r}, but must be among {', '.join(PEERS)}")
    if len(set(names)) < len(names):
        raise ParameterError(f"peers is {','.join(names)!r}, but must name each only once")


def missing_peers(names: Sequence[str]) -> dict[str, str]:
    """Why some of `names` are not measured here, in a sentence each."""
    why = {}
    for name in names:
        try:
            for module in PEERS[name].modules:
                import_module(module)
        except ImportError as error:
            why[name] = f"it cannot be imported ({error}): {PEERS[name].to_install}"
    return why


class PeerClips(Dataset[torch.Tensor]):
    """Clips of one peer's files, for a LoaderPool; the files are opened by the process that reads them."""

    def __init__(self, name: str, folder: Path, frame_shape: tuple[int, ...], clip_frames: int) -> None:
        self._name, self._folder = name, folder
        self._frame_shape, self._clip_frames = frame_shape, clip_frames
        self._read: Read | None = None

    def __getitem__(self, item: Item) -> torch.Tensor:
        """A clip, uint8 [T, H, W, C]."""
        return torch.from_numpy(self.clip(item[1], item[2]))

    def __getitems__(self, items: Sequence[Item]) -> list[torch.Tensor]:
        """The clips of a batch; the empty one lets go of the files."""
        if not items:
            self._read = None
        return [self[item] for item in items]

    def clip(self, sequence: int, first: int) -> NDArray[np.uint8]:
        """The frames from `first` on of a sequence, as memory of their own."""
        if self._read is None:
            open_files = PEERS[self._name].open
            assert open_files is not None
            self._read = open_files(self._folder)
        return cut(self._read(sequence), self._frame_shape, self._clip_frames, first)


def cut(data: Any, frame_shape: tuple[int, ...], clip_frames: int, first: int) -> NDArray[np.uint8]:
    """A clip of a sequence that is given as bytes."""
    frames = np.frombuffer(data, np.uint8).reshape(-1, *frame_shape)
    return frames[first : first + clip_frames].copy()


class GrainWay(Way):
    """Grain's MapDataset over ArrayRecord, in as many threads as it takes by itself."""

    share = 0.1

    def __init__(self, clips: PeerClips, files: Sequence[Path], starts: NDArray[np.int64]) -> None:
        super().__init__("grain", files)
        self._clips, self._starts = clips, starts

    def batches(self, planned: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """See Way."""
        import grain

        items = [
            (int(sequence), int(start - self._starts[sequence]))
            for batch in planned
            for sequence, start in zip(batch.sequences, batch.starts, strict=True)
        ]
        dataset = grain.MapDataset.source(items).map(lambda item: self._clips.clip(*item))
        yield from dataset.batch(len(planned[0].starts)).to_iter_dataset()

    def let_go(self) -> None:
        """See Way."""
        self._clips.__getitems__([])


class WebDatasetWay(Way):
    """WebDataset's tar files by torch's DataLoader: clips of all sequences, in an order of its own."""

    share = 0.1
    gives_planned_clips = False

    def __init__(
        self, files: Sequence[Path], batch_size: int, frame_shape: tuple[int, ...], clip_frames: int, num_workers: int
    ) -> None:
        super().__init__("webdataset", files)
        self._batch_size, self._num_workers = batch_size, num_workers
        self._cut = partial(_random_clip, frame_shape=frame_shape, clip_frames=clip_frames)
        self._loader: Any = None
        self._num_batches = 0

    def batches(self, planned: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """As many batches as are planned, but not these; the same workers go on with the next call."""
        if self._num_batches != len(planned):
            self._loader, self._num_batches = self._open(len(planned)), len(planned)
        for _, clips in zip(planned, self._loader, strict=False):
            yield clips

    def num_batches(self, num_batches: int) -> int:
        """As many for each worker."""
        workers = max(1, self._num_workers)
        return -(-max(super().num_batches(num_batches), PREFETCHED_BATCHES * workers) // workers) * workers

    def let_go(self) -> None:
        """See Way."""
        self._loader, self._num_batches = None, 0

    def _open(self, num_batches: int) -> Any:
        import webdataset

        dataset = webdataset.WebDataset([str(file) for file in self.files], resampled=True, shardshuffle=False)
        dataset = dataset.shuffle(TAR_SEQUENCES).map(self._cut).select(_is_there).batched(self._batch_size)
        workers = self._num_workers
        options = {"multiprocessing_context": "spawn", "persistent_workers": True} if workers else {}
        dataset = dataset.with_epoch(-(-num_batches // max(1, workers)))
        return webdataset.WebLoader(dataset, batch_size=None, num_workers=workers, **options)


def _random_clip(sample: dict[str, Any], *, frame_shape: tuple[int, ...], clip_frames: int) -> NDArray[np.uint8] | None:
    """A clip that begins anywhere; None of a sequence that is too short."""
    num_frames = len(sample["frames.bin"]) // int(np.prod(frame_shape))
    if num_frames < clip_frames:
        return None
    first = int(np.random.default_rng().integers(num_frames - clip_frames + 1))
    return cut(sample["frames.bin"], frame_shape, clip_frames, first)


def _is_there(clip: NDArray[np.uint8] | None) -> bool:
    return clip is not None


def peer_ways(
    names: Sequence[str],
    folder: Path,
    frames: NDArray[np.uint8],
    sequences: Sequences,
    *,
    batch_size: int,
    clip_frames: int,
    num_workers: int,
    stack: ExitStack,
) -> list[Way]:
    """The ways of those of `names` that are installed, over files written to `folder`; `stack` ends their workers.

    `frames` [F, H, W, C] are what the starts of `sequences` count in.
    """
    bounds = zip(sequences.start.tolist(), sequences.length.tolist(), strict=True)
    arrays = [frames[start : start + length] for start, length in bounds]
    frame_shape = frames.shape[1:]
    ways: list[Way] = []
    for name in (name for name in names if name not in missing_peers(names)):
        own = folder / name
        own.mkdir()
        write = PEERS[name].write
        if write is None:
            clips = cut_clips(arrays, clip_frames)
            write_clips(own, clips)
            ways.append(FfcvWay(own / FILE_NAME, len(clips), clips.shape[1:], num_workers))
            continue
        write(own, arrays)
        files = sorted(path for path in own.rglob("*") if path.is_file())
        if name == "webdataset":
            ways.append(WebDatasetWay(files, batch_size, frame_shape, clip_frames, num_workers))
            continue
        records = PeerClips(name, own, frame_shape, clip_frames)
        if name == "grain":
            ways.append(GrainWay(records, files, sequences.start))
            continue
        pool = stack.enter_context(closing(LoaderPool(records, num_workers)))
        ways.append(DataLoaderWay(name, name, files, pool, sequences.start))
    return ways
