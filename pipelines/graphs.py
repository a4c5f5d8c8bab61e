"""The DALI graphs, one function each. Importing this module needs DALI; see `attengait.pipelines.batches`."""

from collections.abc import Callable
from typing import Any

from nvidia.dali import fn, pipeline_def, types

Source = Callable[[Any], Any]
"""From DALI's BatchInfo, whose `iteration` counts from 0, to a list of uint8 arrays [T, H, W, C], which must stay valid
until their batch is handed out."""


def _frames(source: Source, on_gpu: bool) -> Any:
    """Clips as they are, uint8 [T, H, W, C], on the CPU or copied to the GPU.

    The source gives views of the store. DALI's threads copy them, once, while the caller does something else: for the
    CPU into the memory of the batch that is handed out, for a GPU into pinned memory, from which the batch goes there.
    """
    frames = fn.external_source(source=source, batch=True, batch_info=True, dtype=types.UINT8, ndim=4, no_copy=True)
    return frames.gpu() if on_gpu else fn.copy(frames)


def _ordered_frames(source: Source, on_gpu: bool) -> Any:
    """Clips whose frames have an order of their own.

    The source gives (views, orders int32 [N, T]). DALI's threads pick the frames from the views; this is the only
    copy.
    """
    views, orders = fn.external_source(
        source=source,
        num_outputs=2,
        batch=True,
        batch_info=True,
        dtype=[types.UINT8, types.INT32],
        ndim=[4, 1],
        no_copy=True,
    )
    frames = fn.sequence_rearrange(views, new_order=orders)
    return frames.gpu() if on_gpu else frames


def _gray_pictures(on_gpu: bool) -> Any:
    """Encoded pictures, fed as `files` (uint8 [bytes] each), as grey ones, uint8 [H, W, 1], on the CPU or the GPU."""
    files = fn.external_source(name="files", dtype=types.UINT8, ndim=1)
    # Without the GPU's JPEG hardware, which takes a share of a batch: the bytes must not depend on the model of GPU.
    options = {"device": "mixed", "hw_decoder_load": 0.0} if on_gpu else {"device": "cpu"}
    return fn.decoders.image(files, output_type=types.GRAY, **options)


# Called rather than written as a decorator, which would hide the parameters from the type checker.
frames_pipeline = pipeline_def(_frames)
ordered_frames_pipeline = pipeline_def(_ordered_frames)
gray_pictures_pipeline = pipeline_def(_gray_pictures)
