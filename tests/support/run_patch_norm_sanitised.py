"""Runs patch_norm's code for CPUs with sanitizers compiled in. Prints the numbers of features that were tried."""

import numpy as np

from attengait.kernels.patch_norm import cpu
from attengait.kernels.patch_norm.maps import Maps

cpu.FLAGS = (
    *(flag for flag in cpu.FLAGS if flag not in ("-O3", "-fopenmp")),
    *("-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
)
random = np.random.default_rng(0)


def randn(*shape: int) -> np.ndarray:
    return random.standard_normal(shape, np.float32)


for features in (4, 16, 64):
    a, gain, bias = randn(4, 8), randn(features), randn(features)
    for format, dtype in (("float32", np.float32), ("bfloat16", np.uint16)):
        for pool in (False, True):
            maps = Maps(frames=3, height=4, width=8, features=features, format=format, pool=pool)
            kernels = cpu.CpuKernels(maps=maps, num_threads=1)
            z = (100 * randn(3, 4 * (1 + pool), 8 * (1 + pool), features)).astype(np.int64).astype(dtype)
            y, dz = np.empty((3, 4, 8, features), dtype), np.empty_like(z)
            da, dgain, dbias = (
                np.zeros((kernels.slices, *shape), np.float32) for shape in (a.shape, gain.shape, gain.shape)
            )
            kernels.forward(*(array.ctypes.data for array in (z, a, gain, bias, y)))
            kernels.backward(*(array.ctypes.data for array in (y, z, a, gain, dz, da, dgain, dbias)))
    print(features)
