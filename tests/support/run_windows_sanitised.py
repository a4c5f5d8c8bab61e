"""Runs the windows' code for CPUs with sanitizers compiled in. Prints the numbers of frames that were tried."""

import numpy as np

from attengait.kernels.windows import cpu
from attengait.kernels.windows.clips import KERNEL_ROWS, Clips

cpu.FLAGS = (
    *(flag for flag in cpu.FLAGS if flag not in ("-O3", "-fopenmp")),
    *("-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
)
for frames in (16, 17):
    for format, dtype in (("float32", np.float32), ("bfloat16", np.uint16)):
        windows = cpu.CpuWindows(clips=Clips(clips=2, frames=frames, features=16, format=format), num_threads=1)
        x, kernels = np.ones((2, frames, 16, 16, 16), dtype), np.ones((KERNEL_ROWS, 16, 16), np.float32)
        sums, dx = np.empty((2, windows.clips.windows, 16), np.float32), np.empty_like(x)
        dkernels = np.zeros((windows.slices, *kernels.shape), np.float32)
        windows.forward(*(array.ctypes.data for array in (x, kernels, sums)))
        windows.backward(*(array.ctypes.data for array in (sums, x, kernels, dx, dkernels)))
    print(frames)
