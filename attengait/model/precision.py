"""On which device a network computes, how exactly, and whether its sums always have the same order.

torch keeps all of this as state of the whole process. `computing` sets it while something is computed, and sets it
back. Precisions: `fp32` rounds every product of two numbers to float32. `tf32` is faster on NVIDIA GPUs since Ampere:
products of matrices and convolutions see only the first 10 bits of each number's mantissa. torch takes it for the
convolutions of a GPU unless it is told otherwise. `bf16` and `fp16` compute these products in half precision, by
torch's autocast.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import torch

from attengait.errors import AttenGaitError, ParameterError

_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_AMPERE = (8, 0)
"""Compute capability of the first GPUs that compute in tf32 and bf16."""
_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_REPEATABLE_WORKSPACES = (":4096:8", ":16:8")
"""With these settings cuBLAS takes the same order of sums in every run."""


def resolve_device(device: str, precision: str) -> tuple[torch.device, str]:
    """Turn `auto` into what this machine has; a GPU gets its number.

    Raises ParameterError for a device that is not there, and for tf32 on a device that does not compute in it.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = torch.device("meta")
    if resolved.type not in ("cpu", "cuda"):
        raise ParameterError(f"device is {device!r}, but must be auto, cpu, cuda or cuda:N")
    if resolved.type == "cuda":
        number = torch.cuda.device_count()
        if (resolved.index or 0) >= number:
            raise ParameterError(f"device is {device!r}, but must be on this machine, which has {number} CUDA devices")
        if device == "cuda":
            resolved = torch.device("cuda", torch.cuda.current_device())
    if precision == "auto":
        precision = "bf16" if _computes_in_bf16(resolved) else "fp32"
    if precision == "tf32" and not (resolved.type == "cuda" and _is_ampere(resolved)):
        raise ParameterError(
            f"precision is 'tf32', but must be auto, fp32, bf16 or fp16 on the device {resolved}: only NVIDIA GPUs "
            "since Ampere compute in tf32"
        )
    return resolved, precision


@contextmanager
def computing(device: torch.device, precision: str, *, deterministic: bool = False) -> Iterator[None]:
    """Make `device` the current one, and have float32 computed as `precision` says.

    With `deterministic`, torch and cuDNN use only algorithms that give the same bits in every run on the same machine.
    All is set back afterwards. What other threads compute meanwhile is concerned, too.

    Raises AttenGaitError where `deterministic` is not possible.
    """
    with ExitStack() as settings:
        if device.type == "cuda":
            settings.enter_context(torch.cuda.device(device))
        settings.enter_context(_float32(is_tf32=precision == "tf32"))
        if deterministic:
            settings.enter_context(_repeatable())
        yield


def autocast(device: torch.device, precision: str, *, keeps_casts: bool = True) -> AbstractContextManager[Any]:
    """What half precision is computed in; it changes nothing for fp32 and tf32.

    With `keeps_casts`, the weights in half precision are kept until its end, for those that are used more than once.
    """
    is_on = precision in ("bf16", "fp16")
    return torch.autocast(device.type, _DTYPES[precision], enabled=is_on, cache_enabled=keeps_casts)


def in_float32(device: torch.device) -> AbstractContextManager[Any]:
    """What must not be computed in half precision, inside of `autocast`."""
    # The meta device computes nothing, and torch has no autocast for it.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@contextmanager
def _float32(*, is_tf32: bool) -> Iterator[None]:
    """Have products of float32 matrices and convolutions computed in tf32, or in float32 itself."""
    backends: Any = torch.backends  # not all of it is known to a type checker
    cudnn, cublas, onednn = backends.cudnn, backends.cuda.matmul, backends.mkldnn
    on_gpu: list[Any] = [cudnn.conv, cudnn.rnn, cublas]
    on_cpu: list[Any] = [onednn.conv, onednn.rnn, onednn.matmul]
    before = [operation.fp32_precision for operation in (*on_gpu, *on_cpu)]
    # torch has these flags under older names, too. It raises RuntimeError when they are read and say something else.
    old_cudnn = old_matmul = None
    with suppress(RuntimeError):
        old_cudnn = cudnn.allow_tf32
    with suppress(RuntimeError):
        old_matmul = torch.get_float32_matmul_precision()
    try:
        cudnn.allow_tf32 = is_tf32
        torch.set_float32_matmul_precision("high" if is_tf32 else "highest")
        for operation in on_gpu:
            operation.fp32_precision = "tf32" if is_tf32 else "ieee"
        for operation in on_cpu:
            operation.fp32_precision = "ieee"
        yield
    finally:
        if old_cudnn is not None:
            cudnn.allow_tf32 = old_cudnn
        if old_matmul is not None:
            torch.set_float32_matmul_precision(old_matmul)
        for operation, value in zip((*on_gpu, *on_cpu), before, strict=True):
            operation.fp32_precision = value


@contextmanager
def _repeatable() -> Iterator[None]:
    """Only algorithms whose sums have the same order in every run."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    workspace = os.environ.get(_CUBLAS_WORKSPACE)
    try:
        if workspace not in _REPEATABLE_WORKSPACES:  # read when torch first calls cuBLAS
            os.environ[_CUBLAS_WORKSPACE] = _REPEATABLE_WORKSPACES[0]
        cudnn.deterministic, cudnn.benchmark = True, False
        torch.use_deterministic_algorithms(True)
        yield
    except RuntimeError as error:
        text = str(error)
        if _CUBLAS_WORKSPACE in text:
            raise AttenGaitError(
                f"deterministic is true, but must be false in this process, which called cuBLAS before without the "
                f"environment variable {_CUBLAS_WORKSPACE}: set it to {_REPEATABLE_WORKSPACES[0]} first"
            ) from None
        operation, refused, _ = text.partition(" does not have a deterministic implementation")
        if refused:
            raise AttenGaitError(
                f"deterministic is true, but must be false on this device: torch has no deterministic {operation}"
            ) from None
        raise
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        cudnn.deterministic, cudnn.benchmark = before
        if workspace is None:
            os.environ.pop(_CUBLAS_WORKSPACE, None)
        else:
            os.environ[_CUBLAS_WORKSPACE] = workspace


def _computes_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return _is_ampere(device)
    # Processors without these instructions emulate bf16 more slowly than they compute float32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def _is_ampere(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= _AMPERE
