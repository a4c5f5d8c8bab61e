"""The kernels of the network's maps (patch_norm.cu, windows.cu) launched on any device, on small random maps."""

import numpy as np

from attengait.kernels.patch_norm.cuda import GpuKernels
from attengait.kernels.patch_norm.maps import Maps
from attengait.kernels.windows.clips import BINS, KERNEL_ROWS, SIDE, Clips, num_windows
from attengait.kernels.windows.cuda import GpuWindows

STORED = {"float32": np.float32, "bfloat16": np.uint16, "float16": np.float16}


def stored(values, format):
    """Values as they lie in memory; bfloat16 is the upper half of a float32."""
    values = np.asarray(values, np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16) if format == "bfloat16" else values.astype(STORED[format])


def loaded(array):
    """The inverse of `stored`."""
    return (array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else array.astype(np.float32)


def address(array):
    """Where an array of the host or of CuPy begins."""
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def patch_norm(device, *, features, format="float32", pool=False, frames=3, height=6, width=10, scale=1.0):
    """y, dz and the sums da, dgain and dbias, as float32. z and dy are random and of size `scale`."""
    maps = Maps(frames=frames, height=height, width=width, features=features, format=format, pool=pool)
    kernels = GpuKernels(maps=maps, device=device)
    random = np.random.default_rng(1)
    z = scale * random.standard_normal((frames, height * (1 + pool), width * (1 + pool), features))
    dy = scale * random.standard_normal((frames, height, width, features))
    a, gain, bias = (
        random.standard_normal(shape).astype(np.float32) for shape in ((height, width), features, features)
    )
    a[0], a[1] = 0, 1 / 484
    inputs = [device.upload(array) for array in (stored(z, format), a, gain, bias, stored(dy, format))]
    y, dz, da, dgain, dbias = (
        device.upload(np.full(shape, 77, dtype))
        for shape, dtype in (
            (dy.shape, STORED[format]),
            (z.shape, STORED[format]),
            ((kernels.slices, height, width), np.float32),
            ((kernels.partial_sums, features), np.float32),
            ((kernels.partial_sums, features), np.float32),
        )
    )
    z, a, gain, bias, dy = inputs
    kernels.forward(*map(address, (z, a, gain, bias, y)))
    kernels.backward(*map(address, (dy, z, a, gain, dz, da, dgain, dbias)))
    maps_made = [loaded(device.download(array)) for array in (y, dz)]
    return maps_made + [device.download(array).sum(0) for array in (da, dgain, dbias)]


def windows(device, *, features, format="float32", clips=2, frames=19, scale=1.0):
    """The rows' shares, dx and the shares of dkernels, as float32."""
    kernels = GpuWindows(clips=Clips(clips=clips, frames=frames, features=features, format=format), device=device)
    random = np.random.default_rng(1)
    x = scale * random.standard_normal((clips, frames, SIDE, SIDE, features))
    weights = random.standard_normal((KERNEL_ROWS, SIDE, features)).astype(np.float32)
    dsums = (scale * random.standard_normal((clips, num_windows(frames), features))).astype(np.float32)
    inputs = [device.upload(array) for array in (stored(x, format), weights, dsums)]
    rows, dx, dweights = (
        device.upload(np.full(shape, 77, dtype))
        for shape, dtype in (
            ((clips, frames, SIDE, len(BINS), features), np.float32),
            (x.shape, STORED[format]),
            ((len(BINS), SIDE, SIDE, SIDE, features), np.float32),
        )
    )
    x, weights, dsums = inputs
    kernels.forward(*map(address, (x, weights, rows)))
    kernels.backward(*map(address, (dsums, x, weights, dx, dweights)))
    return [device.download(rows), loaded(device.download(dx)), device.download(dweights)]
