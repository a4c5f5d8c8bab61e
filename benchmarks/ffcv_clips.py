"""FFCV's file of clips, which are cut beforehand, since its arrays all have one size.

Each sequence is cut into clips that follow each other without overlap. FFCV reads them in random order. So it delivers
other clips than the plan, and no clip begins anywhere else: a training on them sees fewer different clips.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.benchmarks.ways import Batch, Way
from attengait.errors import AttenGaitError
from attengait.sampling.plan import PlannedBatch

FILE_NAME = "clips.beton"
MIN_PAGE_BYTES = 8 << 20
"""FFCV's usual page, which must hold a clip."""


def cut_clips(sequences: Sequence[NDArray[np.uint8]], clip_frames: int) -> NDArray[np.uint8]:
    """The clips [N, T, H, W, C] that follow each other in each sequence; what is left at its end is no clip."""
    clips = [
        frames[first : first + clip_frames]
        for frames in sequences
        for first in range(0, len(frames) - clip_frames + 1, clip_frames)
    ]
    return np.stack(clips)


def write_clips(folder: Path, clips: NDArray[np.uint8]) -> None:
    """Write `folder`/clips.beton. Raises AttenGaitError with what FFCV says.

    FFCV forks, which a process with other threads must not do: so another process writes.
    """
    array = folder / "clips.npy"
    np.save(array, clips)
    words = [sys.executable, "-m", __name__, str(array), str(folder / FILE_NAME)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    array.unlink()
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise AttenGaitError(f"ffcv did not write its file, exit status {done.returncode}: {last}")


class FfcvWay(Way):
    """FFCV's loader in random order, from the page cache, in as many threads as there are workers."""

    gives_planned_clips = False

    def __init__(self, file: Path, num_clips: int, clip_shape: tuple[int, ...], num_workers: int) -> None:
        super().__init__("ffcv", [file])
        self._num_clips, self._clip_shape, self._num_workers = num_clips, clip_shape, num_workers
        self._loader: Any = None
        self._epoch = (0, 0)

    def batches(self, planned: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """As many batches of the same size as are planned, but not these."""
        epoch = (len(planned), len(planned[0].starts))
        if self._loader is None or self._epoch != epoch:
            self._loader, self._epoch = self._open(*epoch), epoch
        for (clips,) in self._loader:
            yield clips.reshape(-1, *self._clip_shape)

    def let_go(self) -> None:
        """See Way."""
        self._loader = None

    def _open(self, num_batches: int, batch_size: int) -> Any:
        from ffcv.fields.decoders import NDArrayDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import ToTensor

        # An epoch is one measurement, not all clips of the file.
        drawn = np.random.default_rng(0).integers(self._num_clips, size=num_batches * batch_size)
        return Loader(
            str(self.files[0]),
            batch_size=batch_size,
            num_workers=max(1, self._num_workers),
            os_cache=True,
            order=OrderOption.RANDOM,
            indices=drawn,
            pipelines={"clip": [NDArrayDecoder(), ToTensor()]},
        )


def _write(array: str, out: str) -> None:
    from ffcv.fields import NDArrayField
    from ffcv.writer import DatasetWriter

    clips = np.load(array, mmap_mode="r")
    page_bytes = max(MIN_PAGE_BYTES, 1 << int(clips[0].nbytes).bit_length())
    field = NDArrayField(np.dtype(np.uint8), clips.shape[1:])
    writer = DatasetWriter(out, {"clip": field}, page_size=page_bytes, num_workers=1)
    writer.from_indexed_dataset(_Items(clips))


class _Items:
    """Samples of one field, as FFCV's writer takes them."""

    def __init__(self, clips: NDArray[np.uint8]) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8]]:
        return (self._clips[int(index)],)


if __name__ == "__main__":
    _write(*sys.argv[1:])
