"""How fast each flow backend is here: pairs of frames per second, for sizes of pictures and of batches.

A backend is given frames in the host's memory and hands back float32 flow there; the pairs are neighbours of one
sequence. OpenCV and `cpu` run on one core, as one worker of preprocessing does. On a GPU the kernels are measured on
their own as well: frames and flow stay there, each kernel's share is taken by events, and the bytes that they must move
are set against the copy rate measured in the same run.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.benchmarks.report import Report, machine, measure_in_turns, results, versions
from attengait.errors import ParameterError
from attengait.kernels.farneback.cuda import DeviceFarneback, pair_bytes
from attengait.kernels.farneback.weights import pyramid
from attengait.kernels.flow.backends import (
    BACKENDS,
    FarnebackParameters,
    FlowBackend,
    Gray,
    check_backend,
    make_backend,
)
from attengait.kernels.runtime.launch import CudaDevice, cuda_missing
from attengait.synth.motion import motion_pair

SIZES = ((64, 64), (320, 240), (1280, 720))
"""Width and height of the pictures, in pixels."""
BATCHES = (1, 32)
"""Pairs that are given to a backend at once."""
GPU_BATCH = 256
"""Pairs at once where frames and flow stay on a GPU, as far as its memory goes."""
PIXELS_PER_MEASUREMENT = 320 * 240 * 24
"""A batch is repeated until so many pixels went through, so that no measurement is too short."""
COPY_BYTES = 1 << 28


def present_backends() -> list[str]:
    """The backends that can be used here."""
    return [name for name, backend in BACKENDS.items() if backend.missing() is None]


def benchmark_flow(
    *,
    flows: Sequence[str] | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
    batches: Sequence[int] = BATCHES,
    repeats: int = 5,
) -> Report:
    """Measure backends (by default all that can be used) in turns; `sizes` are (width, height).

    Raises ParameterError for values out of range and unknown backends, AttenGaitError for those that are missing.
    """
    for name, values, least in (("batches", batches, 1), ("repeats", [repeats], 1)):
        for value in values:
            if value < least:
                raise ParameterError(f"{name} is {value}, but must be at least {least}")
    for width, height in sizes:
        if min(width, height) < 32:
            raise ParameterError(f"sizes is {width}x{height}, but must be at least 32x32 pixels")
    names = list(flows) if flows else present_backends()
    for name in names:
        check_backend(name)
    if "opencv" not in names:
        names.insert(0, "opencv")
    parameters = FarnebackParameters()
    backends = {name: make_backend(name, parameters) for name in names}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        rows = [row for size in sizes for row in _measure_size(backends, size, batches, repeats)]
    finally:
        cv2.setNumThreads(threads)
    report: Report = {
        "machine": machine(),
        "versions": versions("attengait", "numpy", "nvidia-dali", "cupy-cuda12x", "cupy-cuda13x")
        | {"opencv": cv2.__version__},
        "repeats": repeats,
        "results": rows,
    }
    if "cuda" in names and cuda_missing() is None:
        report["gpu"] = _measure_gpu(CudaDevice(), parameters, sizes, GPU_BATCH, repeats)
    return report


def format_table(report: Report) -> str:
    """The report for people: one row for each size and batch, and below what the GPU's kernels do."""
    names = list(dict.fromkeys(row["backend"] for row in report["results"]))
    lines = [f"pairs/s (median of {report['repeats']}, one core each for opencv and cpu)"]
    lines.append(f"{'size':>10} {'batch':>6}" + "".join(f" {name:>14}" for name in names) + "   of opencv")
    cells = {(row["size"], row["batch"], row["backend"]): row["pairs_per_s"] for row in report["results"]}
    for size, batch in dict.fromkeys((row["size"], row["batch"]) for row in report["results"]):
        rates = [cells[size, batch, name] for name in names]
        ratios = ", ".join(f"{rate / rates[names.index('opencv')]:.2f}" for rate in rates)
        lines.append(f"{size:>10} {batch:>6}" + "".join(f" {rate:14,.1f}" for rate in rates) + f"   {ratios}")
    if "gpu" in report:
        gpu = report["gpu"]
        lines.append(f"\n{gpu['name']}: copies {gpu['copy_gb_per_s']:,.0f} GB/s; frames and flow on the device:")
        for row in gpu["results"]:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in row["shares"].items())
            lines.append(
                f"{row['size']:>10} {row['batch']:>6} {row['us_per_pair']:10,.2f} us/pair {row['pairs_per_s']:12,.0f} "
                f"pairs/s, {row['of_copy_rate']:.2f} of the copy rate; {shares}"
            )
    about = report["machine"]
    numbers = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines.append(f"{about['cpu']}, {about['cores']} cores, load {about['load']}; {numbers}")
    return "\n".join(lines)


def bytes_per_pair(height: int, width: int, parameters: FarnebackParameters) -> int:
    """Bytes that the kernels read and write for a pair and its one new frame, when each array is read once a launch."""
    total = 0
    levels = pyramid(width, height, parameters)
    for i, level in enumerate(levels):
        image, five, flow = 4, 5 * 4, 8
        num_pixels = level.width * level.height
        total += height * width + num_pixels * image  # shrink
        total += num_pixels * (image + five)  # expand
        for iteration in range(parameters.iterations):
            coarser = levels[i + 1] if i + 1 < len(levels) else None
            read_flow = num_pixels * flow if iteration else coarser.width * coarser.height * flow if coarser else 0
            total += read_flow + num_pixels * 3 * five  # set_up: both expansions, the equations
            total += num_pixels * (five + flow)  # solve
    return total


def turning_frames(num: int, width: int, height: int) -> NDArray[np.uint8]:
    """A texture that turns a little from frame to frame, uint8 [num, height, width]."""
    pair = motion_pair("rotation", height, width)
    return np.stack([pair[i % 2] for i in range(num)])


def _measure_size(
    backends: Mapping[str, FlowBackend], size: tuple[int, int], batches: Sequence[int], repeats: int
) -> list[dict[str, Any]]:
    width, height = size
    rows = []
    for batch in batches:
        grays = list(turning_frames(batch + 1, width, height))
        pairs = [(i, i + 1) for i in range(batch)]
        rounds = max(1, PIXELS_PER_MEASUREMENT // (batch * width * height))

        runs = {name: partial(_run, flow, grays, pairs, rounds) for name, flow in backends.items()}
        rates = measure_in_turns(runs, repeats=repeats)
        for row in results(rates, "pairs_per_s"):
            rows.append({"backend": row.pop("name"), "size": f"{width}x{height}", "batch": batch, **row})
    return rows


def _run(flow: FlowBackend, grays: Sequence[Gray], pairs: Sequence[tuple[int, int]], rounds: int, _: int) -> int:
    return sum(1 for _ in range(rounds) for _ in flow.flows(grays, pairs))


class _TimedDevice:
    """A device that notes how long each kernel takes, by events on the stream."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self.events: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def launch(self, source: str, kernel: str, *rest: Any) -> None:
        """See Device."""
        events = self._device.xp.cuda.Event(), self._device.xp.cuda.Event()
        events[0].record()
        self._device.launch(source, kernel, *rest)
        events[1].record()
        self.events.append((kernel, *events))

    def shares(self) -> dict[str, float]:
        """Share of each kernel in the time of all; forgets what was noted."""
        cuda = self._device.xp.cuda
        cuda.Device().synchronize()
        milliseconds: dict[str, float] = {}
        for kernel, start, end in self.events:
            milliseconds[kernel] = milliseconds.get(kernel, 0.0) + cuda.get_elapsed_time(start, end)
        self.events.clear()
        return {kernel: value / sum(milliseconds.values()) for kernel, value in milliseconds.items()}


def _measure_gpu(
    device: CudaDevice,
    parameters: FarnebackParameters,
    sizes: Sequence[tuple[int, int]],
    largest_batch: int,
    repeats: int,
) -> Report:
    xp = device.xp

    def seconds_of(run: Callable[[], object]) -> float:
        run()
        times = []
        for _ in range(repeats):
            xp.cuda.Device().synchronize()
            started = time.perf_counter()
            run()
            xp.cuda.Device().synchronize()
            times.append(time.perf_counter() - started)
        return median(times)

    source, target = xp.zeros(COPY_BYTES, xp.uint8), xp.empty(COPY_BYTES, xp.uint8)

    def copy() -> None:
        target[:] = source

    copy_rate = 2 * COPY_BYTES / seconds_of(copy)
    timed = _TimedDevice(device)
    rows = []
    for width, height in sizes:
        batch = min(largest_batch, max(1, device.free_memory_bytes() // (2 * pair_bytes(height, width))))
        frames = device.upload(turning_frames(batch + 1, width, height))
        pairs = device.upload(np.array([(i, i + 1) for i in range(batch)], np.int32))
        kernels = DeviceFarneback(device, parameters)
        seconds = seconds_of(partial(kernels.flow, frames, pairs)) / batch
        observed = DeviceFarneback(timed, parameters)
        observed.flow(frames, pairs)
        timed.shares()
        observed.flow(frames, pairs)
        rows.append(
            {
                "size": f"{width}x{height}",
                "batch": batch,
                "us_per_pair": seconds * 1e6,
                "pairs_per_s": 1 / seconds,
                "of_copy_rate": bytes_per_pair(height, width, parameters) / seconds / copy_rate,
                "shares": timed.shares(),
            }
        )
    return {"name": device.name, "copy_gb_per_s": copy_rate / 1e9, "results": rows}
