"""How much memory a training process uses, as values for its loggers. Nothing here waits for a GPU."""

from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def memory_values(device: torch.device, graph_bytes: int = 0) -> dict[str, float | None]:
    """Bytes of this process in the machine's memory, now and at most, and on a GPU those of torch's tensors and of CUDA
    graphs, which are `graph_bytes` beside the tensors.

    None where the system does not say.
    """
    status = _status()
    values: dict[str, float | None] = {
        "memory/host_bytes": status.get("VmRSS"),
        "memory/host_peak_bytes": status.get("VmHWM"),
    }
    if device.type == "cuda":
        values["memory/gpu_bytes"] = torch.cuda.memory_allocated(device) + graph_bytes
        values["memory/gpu_peak_bytes"] = torch.cuda.max_memory_allocated(device) + graph_bytes
    return values


def _status() -> dict[str, int]:
    """The sizes in /proc/self/status, in bytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) * 1024 for name, _, value in pairs}
