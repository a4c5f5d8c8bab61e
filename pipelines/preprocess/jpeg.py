"""Grey pictures read by several threads, JPEG ones decoded by DALI: on a GPU, where they then stay.

Other formats are decoded by OpenCV, since DALI has nothing to offer there: on the CPU it decodes PNG to the same values
as OpenCV, and no faster. JPEG on the CPU gives OpenCV's values too; on a GPU values may differ a little, so the
versions of what decodes are recorded in a store.
"""

import importlib.util
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from attengait.datasets.pictures import Pictures, decode_gray, read_complete
from attengait.datasets.source import FRAMES, SEPARATOR, Gray, SourceSequence
from attengait.errors import AttenGaitError
from attengait.kernels.runtime.dali import reason
from attengait.kernels.runtime.launch import Device
from attengait.system.packages import installed

BATCH_PICTURES = 32
"""Pictures decoded at a time, all of one sequence: what comes of one does not depend on other sequences."""

_SUFFIXES = (".jpg", ".jpeg")
_log = logging.getLogger(__name__)


def missing() -> str | None:
    """Return None where DALI can decode pictures, else one sentence; DALI is not loaded."""
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
        return "NVIDIA DALI is not installed"
    if importlib.util.find_spec("nvidia.nvimgcodec") is None:
        return "DALI's decoders are not installed (nvidia-nvimgcodec-cu12 or -cu13)"
    return None


def is_jpeg(path: str) -> bool:
    """Whether a path names a JPEG picture."""
    return path.lower().endswith(_SUFFIXES)


def has_jpeg(sequences: Iterable[SourceSequence]) -> bool:
    """Whether any of the frames is a JPEG picture."""
    # All names of a sequence at once: there are millions.
    pictures = (s.parts[FRAMES] for s in sequences if s.parts[FRAMES].kind == Pictures.kind)
    names = (each.packed_names.lower() + SEPARATOR for each in pictures)
    return any(suffix + SEPARATOR in each for each in names for suffix in _SUFFIXES)


def versions() -> dict[str, str]:
    """The packages that decode."""
    return installed("nvidia-dali", "nvidia-nvimgcodec", "nvidia-nvjpeg")


class JpegReader:
    """Reads grey pictures (a ReadGrays), JPEG ones by DALI onto a device. For any number of threads at once.

    A batch that DALI refuses is decoded by OpenCV, and the first time the log says so.
    """

    def __init__(self, device: Device, *, num_threads: int) -> None:
        self._device = device
        self._num_threads = num_threads
        self._lock = threading.Lock()
        self._pipeline: Any = None
        self._has_complained = False

    def __call__(self, paths: Iterable[str]) -> Iterator[Gray | None]:
        """Yield the pictures in turn, uint8 [H, W], JPEG ones on the device; None for one that is not whole."""
        paths = iter(paths)
        while batch := list(islice(paths, BATCH_PICTURES)):
            yield from self._read(batch)

    def _read(self, paths: Sequence[str]) -> list[Gray | None]:
        files = [read_complete(path) for path in paths]
        jpegs = [i for i, data in enumerate(files) if data is not None and is_jpeg(paths[i])]
        by_dali = self._decode([data for i in jpegs if (data := files[i]) is not None]) if jpegs else None
        if by_dali is None:
            return [None if data is None else decode_gray(data) for data in files]
        decoded = dict(zip(jpegs, by_dali, strict=True))
        return [
            decoded[i] if i in decoded else None if data is None else decode_gray(data) for i, data in enumerate(files)
        ]

    def _decode(self, files: list[bytes]) -> list[Gray] | None:
        """Decode a batch by DALI; None where it cannot."""
        with self._lock:
            pipeline = self._pipeline = self._pipeline or self._build()
            try:
                (pictures,) = pipeline.run(files=[np.frombuffer(data, np.uint8) for data in files])
            except RuntimeError as error:
                self._pipeline = None  # who knows what state it is in
                if not self._has_complained:
                    self._has_complained = True
                    _log.warning("DALI cannot decode some pictures, OpenCV does it: %s", reason(error))
                return None
        # Views: DALI's default executor leaves a batch's memory to whoever holds it.
        return [self._device.xp.from_dlpack(pictures[i])[..., 0] for i in range(len(files))]

    def _build(self) -> Any:
        try:
            from attengait.pipelines.graphs import gray_pictures_pipeline

            pipeline = gray_pictures_pipeline(
                on_gpu=self._device.index is not None,
                batch_size=BATCH_PICTURES,
                num_threads=self._num_threads,
                device_id=self._device.index,
                prefetch_queue_depth=1,  # each run waits for its own result
            )
            pipeline.build()
        except (ImportError, RuntimeError) as error:
            raise AttenGaitError(f"DALI cannot decode pictures on {self._device.name}: {reason(error)}") from error
        return pipeline
