"""The DALI graphs, one function each. Importing this module needs DALI; see `attengait.pipelines.stream`."""

from collections.abc import Callable
from typing import Any

from nvidia.dali import fn, pipeline_def, types

Source = Callable[[Any], Any]
"""From DALI's BatchInfo, whose `iteration` counts from 0, to a list of uint8 arrays [T, H, W, C]."""


def _frames(source: Source, on_gpu: bool) -> Any:
    """Clips as they are, uint8 [T, H, W, C], on the CPU or copied to the GPU.

    The source gives views of the store; DALI copies them, once, into the memory of the batch that it hands out.
    """
    frames = fn.external_source(source=source, batch=True, batch_info=True, dtype=types.UINT8, ndim=4)
    return frames.gpu() if on_gpu else frames


# Called rather than written as a decorator, which would hide the parameters from the type checker.
frames_pipeline = pipeline_def(_frames)
