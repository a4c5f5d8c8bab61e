"""Torch's tensors for our compiled code: their addresses, and the GPU and the stream that they are used on."""

import contextlib
import functools
import logging

import torch
from torch import Tensor

from attengait.errors import AttenGaitError
from attengait.kernels.runtime.launch import CudaDevice, cuda_missing

_log = logging.getLogger(__name__)


def format_of(tensor: Tensor) -> str:
    """Such as float32."""
    return str(tensor.dtype).removeprefix("torch.")


def addresses(*tensors: Tensor) -> list[int]:
    """Where contiguous tensors begin."""
    assert all(tensor.is_contiguous() for tensor in tensors)
    return [tensor.data_ptr() for tensor in tensors]


def gpu_of(tensor: Tensor) -> CudaDevice | None:
    """The GPU of a tensor, for our kernels; None for other tensors, and where CuPy is missing or does not work."""
    return _gpu(tensor.device.index) if tensor.device.type == "cuda" else None


def on_stream_of(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Have our kernels use the stream that torch uses now on a tensor's device."""
    device = gpu_of(tensor)
    if device is None:
        return contextlib.nullcontext()
    stream: contextlib.AbstractContextManager[object] = device.xp.cuda.ExternalStream(
        torch.cuda.current_stream(tensor.device).cuda_stream, tensor.device.index
    )
    return stream


@functools.cache
def _gpu(index: int) -> CudaDevice | None:
    problem = cuda_missing()
    if problem is None:
        try:
            return CudaDevice(index)
        except AttenGaitError as error:
            problem = str(error)
    _log.warning(
        "on GPU %d, PyTorch's operations take the place of our kernels, and training is slower: %s", index, problem
    )
    return None
