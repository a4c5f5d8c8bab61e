"""Runs the four flow kernels and patch_norm once, warmed up, between the marks at which a profiler begins and ends.

    ncu --profile-from-start off python -m attengait.benchmarks.kernels_once

The sizes are those of preprocessing (320 x 240 pixels, the published parameters) and of training (the first maps of the
small network).
"""

import numpy as np
import torch

from attengait.benchmarks.flow import turning_frames
from attengait.kernels.farneback.cuda import DeviceFarneback
from attengait.kernels.flow.backends import FarnebackParameters
from attengait.kernels.runtime.launch import CudaDevice, Device
from attengait.model.patch_norm import patch_norm

PAIRS, FRAMES = 64, 480
FEATURES, SIDE = 32, 64


def run_flow(device: Device, num_pairs: int, *, width: int = 320, height: int = 240) -> None:
    """The flow of `num_pairs` pairs: every kernel at every level and iteration."""
    frames = device.upload(turning_frames(num_pairs + 1, width, height))
    pairs = device.upload(np.array([(i, i + 1) for i in range(num_pairs)], np.int32))
    DeviceFarneback(device, FarnebackParameters()).flow(frames, pairs)


def run_patch_norm(device: torch.device, num_frames: int) -> None:
    """patch_norm of bf16 maps [num_frames, 64, 64, 32], forward and backward, without pooling and with it."""
    for pool in (False, True):
        side = SIDE // (1 + pool)
        z = torch.randn(num_frames, SIDE, SIDE, FEATURES, device=device, dtype=torch.bfloat16, requires_grad=True)
        a = torch.rand(side, side, device=device, requires_grad=True)
        gain, bias = (torch.rand(FEATURES, device=device, requires_grad=True) for _ in range(2))
        y = patch_norm(z, a, gain, bias, pool=pool)
        y.backward(torch.randn_like(y))  # type: ignore[no-untyped-call]


def main() -> None:
    """All of it twice on the first GPU; only the second time is between the marks."""
    device, torch_device = CudaDevice(), torch.device("cuda", 0)
    for is_marked in (False, True):
        if is_marked:
            torch.cuda.synchronize()
            torch.cuda.profiler.start()  # type: ignore[no-untyped-call]
        run_flow(device, PAIRS)
        run_patch_norm(torch_device, FRAMES)
        torch.cuda.synchronize()
    torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]
    print("flow and patch_norm: done")


if __name__ == "__main__":
    main()
