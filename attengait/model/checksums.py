"""CRC-32C of tensors: of their name, type, shape, layout and values, whatever their device."""

from collections.abc import Mapping

import google_crc32c
import torch
from torch import Tensor


def checksum(name: str, tensor: Tensor) -> int:
    """The CRC-32C of one tensor."""
    begun: int = google_crc32c.value(f"{name} {tensor.dtype} {list(tensor.shape)} {_strides(tensor)}\n".encode())
    values = in_memory_order(tensor)
    # As bytes: NumPy does not know all types of torch.
    crc: int = google_crc32c.extend(begun, values.view(torch.uint8).numpy()) if values.numel() else begun
    return crc


def memory_order(tensor: Tensor) -> list[int]:
    """The dimensions of a tensor, the one with the largest stride first."""
    strides = _strides(tensor)
    return sorted(range(tensor.dim()), key=lambda dimension: -strides[dimension])


def in_memory_order(tensor: Tensor) -> Tensor:
    """All values of a tensor on the CPU, [values], as they lie in memory. Nearly always nothing is copied."""
    values = tensor.detach().cpu()
    # For nearly all tensors the first is enough, and takes a fifth of the time.
    return (values if values.is_contiguous() else values.permute(memory_order(values)).contiguous()).view(-1)


def _strides(tensor: Tensor) -> list[int]:
    """Where a dimension has length 1, or none, its stride says nothing, and is 0 here."""
    return [step if length > 1 else 0 for length, step in zip(tensor.shape, tensor.stride(), strict=True)]


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


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a value that is not finite as float32."""
    values = [tensor.detach().float() for tensor in tensors.values()]
    # The sums take a fortieth of the time. They are finite only where all values are.
    if not values or bool(torch.stack([each.sum() for each in values]).isfinite().all()):
        return None
    return next((name for name, each in zip(tensors, values, strict=True) if not bool(each.isfinite().all())), None)
