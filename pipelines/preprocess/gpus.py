"""Preprocessing on GPUs: a process for each and those that read for it, all taking shards from the same list.

To take a shard, a process makes a file in the run's temporary folder that must not exist yet. So a faster process
takes more shards. What a process then does is in `attengait.pipelines.preprocess.shards`. The bytes of a shard
depend neither on who makes it nor on how many do.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2

from attengait.datasets.pictures import read_one_by_one
from attengait.datasets.source import SourceSequence
from attengait.errors import AttenGaitError, ParameterError, require
from attengait.kernels.farneback.cuda import CudaFlow, check_parameters
from attengait.kernels.flow import nvof
from attengait.kernels.flow.backends import BACKENDS, FlowBackend
from attengait.kernels.flow.nvof import HardwareFlow
from attengait.kernels.runtime.gpu import find_driver
from attengait.kernels.runtime.launch import CudaDevice, Device
from attengait.pipelines.preprocess import jpeg
from attengait.pipelines.preprocess.shards import make_shards
from attengait.pipelines.preprocess.shared_pictures import pin_nothing
from attengait.preprocessing.flow import FlowRecipe
from attengait.preprocessing.recipe import Recipe
from attengait.store.shards import ShardTask
from attengait.system.workers import run_in_workers

MakeDevice = Callable[[int], Device]
"""From a GPU's number, counted from 0; it must be picklable."""

ON_GPUS = ("cuda", "nvof")
"""Back ends that run on the GPUs that are asked for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcesses:
    """Flow recipes with the back end `cuda` or `nvof`, in one process for each GPU (an Executor)."""

    gpus: tuple[int, ...]
    """Their numbers, counted from 0; each gets a process."""
    num_readers: int
    """Processes that read and decode for each GPU; threads of its own process where DALI decodes JPEG pictures."""
    flow: str = "cuda"
    """The back end: cuda or nvof."""
    make_device: MakeDevice = CudaDevice
    """For cuda; tests put the host in the place of a GPU."""

    def __post_init__(self) -> None:
        if not self.gpus or len(set(self.gpus)) < len(self.gpus) or min(self.gpus) < 0:
            raise ParameterError(f"gpus is {list(self.gpus)}, but must be different numbers from 0 on, at least one")
        if self.num_readers < 1:
            raise ParameterError(f"workers is {self.num_readers}, but must be at least 1")
        require(self.flow in ON_GPUS, "flow", self.flow, " or ".join(ON_GPUS))

    def check(self, recipe: Recipe) -> None:
        """See Executor."""
        flow = self._recipe(recipe)
        if self.flow == "nvof":
            _check_nvof(self.gpus)
            return
        check_parameters(flow.farneback)
        if self.make_device is CudaDevice:
            # Only the driver is asked. CuPy would keep a context on each GPU, with some of its memory, in this process.
            if sentence := BACKENDS["cuda"].missing():
                raise AttenGaitError(f"flow backend cuda cannot be used: {sentence}")
            number = len(find_driver().gpus)
            if absent := [gpu for gpu in self.gpus if gpu >= number]:
                raise AttenGaitError(f"there is no GPU {absent[0]}: this machine has {number}, counted from 0")

    def versions(self, sequences: Sequence[SourceSequence]) -> dict[str, str]:
        """See Executor."""
        return jpeg.versions() if self._has_jpeg(sequences) and not jpeg.missing() else {}

    def run(self, recipe: Recipe, tasks: list[ShardTask], on_poll: Callable[[], None]) -> None:
        """See Executor."""
        flow = self._recipe(recipe)
        by_dali = self._has_jpeg(source for task in tasks for _, source in task.sequences)
        if by_dali and (sentence := jpeg.missing()):
            _log.warning("OpenCV decodes the JPEG pictures, on the CPU: %s", sentence)
            by_dali = False
        works = [
            _Work(
                gpu=gpu,
                recipe=flow,
                shards=tasks,
                num_readers=self.num_readers,
                make_device=self.make_device,
                by_dali=by_dali,
            )
            for gpu in self.gpus[: len(tasks)]
        ]
        run_in_workers(_work, works, num_workers=len(works), on_poll=on_poll)

    def _has_jpeg(self, sequences: Iterable[SourceSequence]) -> bool:
        """Whether there are JPEG pictures that the kernels of `cuda` can take where DALI decodes them."""
        return self.flow == "cuda" and jpeg.has_jpeg(sequences)

    def _recipe(self, recipe: Recipe) -> FlowRecipe:
        if recipe.flow != self.flow:
            what = f"flow is {recipe.flow!r}" if recipe.flow else f"modality is {recipe.modality!r}"
            raise ParameterError(f"{what}, but must be computed by the flow {self.flow} to run on GPUs")
        # Whatever computes flow by this back end reads blocks and makes pictures of them.
        return cast(FlowRecipe, recipe)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What the process of one GPU is told."""

    gpu: int
    recipe: FlowRecipe
    shards: list[ShardTask]
    """All of the run; others take from them too."""
    num_readers: int
    make_device: MakeDevice
    by_dali: bool
    """Whether DALI decodes JPEG pictures."""


def _work(work: _Work) -> None:
    # Threads that set the level and set it back would get in each other's way.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    backend, device, reader = _on_gpu(work)
    try:
        make_shards(
            claimed(work.shards),
            work.recipe,
            backend,
            num_readers=work.num_readers,
            # What DALI decodes lies on the GPU of this process.
            in_processes=reader is None,
            read_grays=reader or read_one_by_one,
            refused=reader.refused if reader else {},
            pin=device.pin if device else pin_nothing,
        )
    except (MemoryError, RuntimeError) as error:
        # What CuPy raises does not reach another process as it is.
        reason = " ".join(str(error).split()) or type(error).__name__
        name = device.name if device else "optical flow hardware"
        raise AttenGaitError(f"GPU {work.gpu} ({name}) failed: {reason}") from error


def _on_gpu(work: _Work) -> tuple[FlowBackend, Device | None, jpeg.JpegReader | None]:
    """The back end on its GPU, the device where our kernels run there, and what decodes JPEG pictures there."""
    if work.recipe.flow == "nvof":
        return HardwareFlow(work.recipe.farneback, gpu=work.gpu), None, None
    device = work.make_device(work.gpu)
    reader = jpeg.JpegReader(device, num_threads=work.num_readers) if work.by_dali else None
    return CudaFlow(work.recipe.farneback, device=device), device, reader


def _check_nvof(gpus: Sequence[int]) -> None:
    """Raise AttenGaitError unless the hardware of all these GPUs can be used, and computes what a store records."""
    found: list[tuple[int, dict[str, Any]]] = []
    # In a process that ends, and with it what DALI keeps on each GPU.
    run_in_workers(_nvof_of, (0, *gpus), num_workers=1, on_result=found.append)
    recorded = dict(found)
    for gpu in gpus:
        if recorded[gpu] != recorded[0]:
            raise AttenGaitError(
                f"flow nvof on GPU {gpu} is {recorded[gpu]}, but the store records that of GPU 0, {recorded[0]}: let "
                "the command see GPUs of one model only, with CUDA_VISIBLE_DEVICES"
            )


def _nvof_of(gpu: int) -> tuple[int, dict[str, Any]]:
    if sentence := nvof.missing(gpu):
        raise AttenGaitError(f"flow backend nvof cannot be used: {sentence}")
    return gpu, nvof.recorded_parameters(gpu)


def claimed(tasks: Iterable[ShardTask]) -> Iterator[ShardTask]:
    """Yield those of the shards that no other process has taken, each when it is asked for."""
    for task in tasks:
        try:
            (task.temporary / f"taken-{task.shard}").touch(exist_ok=False)
        except FileExistsError:
            continue
        yield task
