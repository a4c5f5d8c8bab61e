"""Flow by the GPU's optical flow hardware (Turing or later), through DALI's `fn.optical_flow`.

This is not Farneback's method: the hardware matches blocks, in steps of 1/32 pixel, and has other parameters. It gives
one vector for each square of `output_grid` x `output_grid` pixels, in pixels of the full picture. The finest grid of
the device is used. A coarser field is enlarged to full size.

DALI's flow points backwards: for a pixel (x, y) of a frame, it says where this point was in the frame before. Here,
flow says where a point will be in the next frame. So the frames are given to DALI in reverse order. Temporal hints are
off, so that a flow depends on its own two frames only, and not on where a sequence was cut.

This module has not been run on a GPU yet. What can be tested without a GPU is tested. The other tests are marked `gpu`.
"""

import importlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError, how_to_install
from attengait.kernels.flow.backends import FarnebackParameters, Flow, FlowBackend, Gray
from attengait.kernels.runtime.dali import reason
from attengait.kernels.runtime.gpu import FIRST_WITH_HARDWARE_FLOW, find_driver, load_library

GRIDS = (1, 2, 4)
"""Side of the square of pixels that share a vector, finest first. Turing offers only 4."""
PRESET = 0.0
"""The slowest and best of DALI's presets."""
MAX_RUN = 16
"""Pairs given to the hardware at a time: bounds the memory of large pictures."""

_PROBE_SIZE_PX = 256


def missing(gpu: int = 0) -> str | None:
    """None if the hardware of a GPU, counted from 0, can be used, else one sentence that says why not.

    The last check computes a flow.
    """
    driver = find_driver()
    if not driver.gpus:
        return f"it needs an NVIDIA GPU, but {driver.problem}"
    if gpu >= len(driver.gpus):
        return f"there is no GPU {gpu}: this machine has {len(driver.gpus)}, counted from 0"
    found_gpu = driver.gpus[gpu]
    if found_gpu.compute_capability < FIRST_WITH_HARDWARE_FLOW:
        return f"it needs a GPU with optical flow hardware (Turing or later), which {found_gpu.name} lacks"
    if load_library("libnvidia-opticalflow.so.1") is None:
        return (
            "it needs libnvidia-opticalflow.so.1, a part of the NVIDIA driver "
            "(in a container, NVIDIA_DRIVER_CAPABILITIES must include video)"
        )
    try:
        importlib.import_module("nvidia.dali")
    except ImportError as error:
        return f"it needs NVIDIA DALI ({error}): {how_to_install('cuda12', 'cuda13')}"
    found = _try_grids(gpu)
    return found if isinstance(found, str) else None


def recorded_parameters(gpu: int = 0) -> dict[str, Any]:
    """The parameters that decide the result, for the store. Raises AttenGaitError without usable hardware."""
    grid = _finest_grid(gpu)
    return {
        "device": find_driver().gpus[gpu].name,
        "output_grid": grid,
        "preset": PRESET,
        "temporal_hints": False,
        "enlarged": "bilinear",
    }


class HardwareFlow(FlowBackend):
    """Flow by the hardware of a GPU, counted from 0. It does not use Farneback's parameters."""

    def __init__(self, parameters: FarnebackParameters, *, gpu: int = 0) -> None:
        self._grid = _finest_grid(gpu)
        self._pipeline = _pipeline(self._grid, gpu)

    def flows(self, grays: Sequence[Gray], pairs: Sequence[tuple[int, int]]) -> Iterator[Flow]:
        """Yield the pairs' flows; the hardware works on up to MAX_RUN pairs at a time.

        Raises AttenGaitError for pictures of a size that the hardware does not take.
        """
        for run in runs(pairs):
            sequence = backward_sequence(grays, pairs[run.start : run.stop])
            _, height, width, _ = sequence.shape
            try:
                fields = _run(self._pipeline, sequence)
            except RuntimeError as error:
                _pipeline.cache_clear()  # after an error it is of no use
                raise AttenGaitError(
                    f"the optical flow hardware gave no flow of {width} x {height} pictures: {reason(error)}"
                ) from None
            for field in fields[::-1]:
                yield enlarge(field, self._grid, height, width)


def runs(pairs: Sequence[tuple[int, int]]) -> list[range]:
    """Cut `pairs` into runs. In a run, the first frame of a pair is the second frame of the pair before it.

    Returns the positions of the pairs of each run, at most MAX_RUN of them. A run of n pairs has n + 1 frames.
    """
    starts = [i for i in range(len(pairs)) if i == 0 or pairs[i][0] != pairs[i - 1][1]]
    return [
        range(first, min(first + MAX_RUN, stop))
        for start, stop in pairwise([*starts, len(pairs)])
        for first in range(start, stop, MAX_RUN)
    ]


def backward_sequence(grays: Sequence[Gray], run: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    """The frames of a run of pairs, last one first, as DALI takes them: uint8 [frames, H, W, 1]."""
    indices = [run[0][0], *(second for _, second in run)]
    return np.stack([grays[i] for i in reversed(indices)])[..., np.newaxis]


def enlarge(field: NDArray[np.float32], grid: int, height: int, width: int) -> Flow:
    """Bring a field [ceil(H / grid), ceil(W / grid), 2] to [H, W, 2]: bilinear, a vector in the middle of its square.

    The vectors are in pixels of the full picture already, so their lengths do not change. Squares may reach beyond the
    right and the lower edge; that part is cut off.
    """
    rows, columns, _ = field.shape
    # cv2.resize has half-pixel centres, so that whole multiples put each vector in the middle of its square.
    full = cv2.resize(field, (columns * grid, rows * grid), interpolation=cv2.INTER_LINEAR) if grid > 1 else field
    return np.array(full[:height, :width], np.float32, order="C")


def flow_graph(output_grid: int) -> Any:
    """The DALI graph: uint8 [F, H, W, 1] to float32 [F - 1, H', W', 2] on the GPU, (dx, dy) in pixels of a frame."""
    from nvidia.dali import fn, types

    frames = fn.external_source(name="frames", layout="FHWC", dtype=types.UINT8, ndim=4)
    return fn.optical_flow(
        frames.gpu(),
        output_grid=output_grid,
        preset=PRESET,
        image_type=types.GRAY,
        enable_temporal_hints=False,
        enable_external_hints=False,
    )


@lru_cache(maxsize=64)
def _pipeline(output_grid: int, gpu: int) -> Any:
    """A built pipeline, kept for the process: it takes pictures of any size."""
    from nvidia.dali import pipeline_def

    # Each run waits for its result: nothing is prefetched.
    options = {"batch_size": 1, "num_threads": 1, "device_id": gpu, "prefetch_queue_depth": 1}
    pipeline = pipeline_def(flow_graph, exec_async=False, exec_pipelined=False, **options)(output_grid)
    pipeline.build()
    return pipeline


def _run(pipeline: Any, sequence: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The fields of one sequence, float32 [frames - 1, H', W', 2]; DALI raises RuntimeError."""
    pipeline.feed_input("frames", [sequence])
    (fields,) = pipeline.run()
    return np.array(fields.as_cpu().at(0), np.float32)


@lru_cache(maxsize=64)
def _try_grids(gpu: int) -> int | str:
    """The finest grid of a GPU, or a sentence that says why there is none."""
    blank = np.zeros((2, _PROBE_SIZE_PX, _PROBE_SIZE_PX, 1), np.uint8)
    problem = "it offers no grid"
    for grid in GRIDS:
        try:
            _run(_pipeline(grid, gpu), blank)
            return grid
        except RuntimeError as error:
            problem = reason(error)
            if "grid size" not in problem:
                break
    return f"the optical flow hardware does not answer: {problem}"


def _finest_grid(gpu: int) -> int:
    found = _try_grids(gpu)
    if isinstance(found, str):
        raise AttenGaitError(found)
    return found
