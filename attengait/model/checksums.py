"""CRC-32C of tensors: of their name, type, shape, layout and values, whatever their device."""

from collections.abc import Mapping

import google_crc32c
import torch
from torch import Tensor


def checksum(name: str, tensor: Tensor) -> int:
    """The CRC-32C of one tensor."""
    # Where a dimension has length 1, or none, its stride says nothing.
    strides = [step if length > 1 else 0 for length, step in zip(tensor.shape, tensor.stride(), strict=True)]
    begun: int = google_crc32c.value(f"{name} {tensor.dtype} {list(tensor.shape)} {strides}\n".encode())
    # In the order of the memory, which is nearly always dense: then nothing is copied.
    order = sorted(range(tensor.dim()), key=lambda dimension: -strides[dimension])
    values = tensor.detach().cpu().permute(order).contiguous().reshape(-1)
    # As bytes: NumPy does not know all types of torch.
    crc: int = google_crc32c.extend(begun, values.view(torch.uint8).numpy()) if values.numel() else begun
    return crc


def checksums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The CRC-32C of each tensor."""
    return {name: checksum(name, tensor) for name, tensor in tensors.items()}


def check_tensors(tensors: Mapping[str, Tensor], expected: object) -> None:
    """Raise ValueError, naming the tensor, unless each tensor has the checksum that `expected` says."""
    if not isinstance(expected, dict) or expected.keys() != tensors.keys():
        raise ValueError("its checksums are not those of its tensors")
    for name, tensor in tensors.items():
        if expected[name] != checksum(name, tensor):
            raise ValueError(f"the tensor {name} has another checksum than it was written with")


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite as float32."""
    values = tensor.detach().float()
    # The sum takes a fortieth of the time. It is finite only where all values are.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())
