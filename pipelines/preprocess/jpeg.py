"""Grey pictures read by several threads, JPEG ones decoded by DALI: on a GPU, where they then stay.

Other formats are decoded by OpenCV, since DALI has nothing to offer there: on the CPU it decodes PNG to the same values
as OpenCV, and no faster. JPEG on the CPU gives OpenCV's values too; on a GPU values may differ a little, so the
versions of what decodes are recorded in a store, and which pictures OpenCV decoded because DALI refused them. Any other
failure of DALI, such as too little memory, stops the run: else the values would depend on what else a machine does.
"""

import importlib.util
import logging
import re
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
_REFUSALS = (
    re.compile(r"nvImageCodec failure: '#(3|4|13|14|19)'"),
    re.compile(r"Failed to decode sample #\d+ ?:(?!.*(memory|alloc|cuda))", re.IGNORECASE),
)
"""What DALI says of a picture. The numbers are those of nvimgcodec.h: a bad code stream or one that is not supported,
an incomplete one."""

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

    A picture that DALI refuses is decoded by OpenCV, and the first time the log says so. Raises AttenGaitError for any
    other failure of DALI.
    """

    def __init__(self, device: Device, *, num_threads: int) -> None:
        self._device = device
        self._num_threads = num_threads
        self.refused: dict[str, str] = {}
        """The paths of pictures that DALI refused so far, and what it said."""
        self._lock = threading.Lock()
        self._pipeline: Any = None

    def __call__(self, paths: Iterable[str]) -> Iterator[Gray | None]:
        """Yield the pictures in turn, uint8 [H, W], JPEG ones on the device; None for one that is not whole."""
        paths = iter(paths)
        while batch := list(islice(paths, BATCH_PICTURES)):
            yield from self._read(batch)

    def _read(self, paths: Sequence[str]) -> list[Gray | None]:
        files = [read_complete(path) for path in paths]
        jpegs = {i: (paths[i], data) for i, data in enumerate(files) if data is not None and is_jpeg(paths[i])}
        grays = dict(zip(jpegs, self._decode([*jpegs.values()]), strict=True)) if jpegs else {}
        for i, data in enumerate(files):
            if data is not None and grays.get(i) is None:
                grays[i] = decode_gray(data)
        return [grays.get(i) for i in range(len(files))]

    def _decode(self, pictures: Sequence[tuple[str, bytes]]) -> list[Gray | None]:
        """Decode a batch of paths and contents by DALI; None for one that it refuses."""
        try:
            return list(self._run([data for _, data in pictures]))
        except _RefusedError as error:
            if len(pictures) > 1:  # which one it is, is not said
                return [gray for picture in pictures for gray in self._decode([picture])]
            if not self.refused:
                _log.warning("DALI cannot decode some pictures, OpenCV does it: %s", error)
            self.refused[pictures[0][0]] = str(error)
            return [None]

    def _run(self, files: list[bytes]) -> list[Gray]:
        with self._lock:
            xp = self._device.xp  # and the GPU is the current one of this thread
            pipeline = self._pipeline = self._pipeline or self._build()
            try:
                (pictures,) = pipeline.run(files=[np.frombuffer(data, np.uint8) for data in files])
            except (MemoryError, RuntimeError) as error:
                self._pipeline = None  # who knows what state it is in
                why = reason(error) or type(error).__name__
                if any(refusal.match(why) for refusal in _REFUSALS):
                    raise _RefusedError(why) from None
                raise AttenGaitError(f"DALI failed to decode pictures on {self._device.name}: {why}") from error
        # Views: DALI's default executor leaves a batch's memory to whoever holds it.
        return [xp.from_dlpack(pictures[i])[..., 0] for i in range(len(files))]

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


class _RefusedError(Exception):
    """One of the pictures is none that DALI decodes."""
