"""Runs the kernels on the host with sanitizers compiled in, or, with the argument `gpu`, on a GPU (for its sanitizer).

Prints the name of each step that is done.
"""

import sys

import map_kernels
import numpy as np

from attengait.kernels.farneback.cuda import CudaFlow
from attengait.kernels.flow.backends import FarnebackParameters
from attengait.kernels.pictures.encode import ENCODINGS
from attengait.kernels.runtime.launch import CudaDevice, HostDevice
from attengait.synth.motion import motion_pair

FLAGS = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g")
HEIGHT, WIDTH = 71, 93


def main(on_gpu: bool) -> None:
    """Flow, pictures, maps of the network, then, on the host, one step that must be caught."""
    device = CudaDevice() if on_gpu else HostDevice(flags=FLAGS)
    if on_gpu:
        # Every array in memory of its own: out of CuPy's pool, one that is overrun would run into another, unseen.
        device.xp.cuda.set_allocator(None)
    flow = CudaFlow(FarnebackParameters(), device=device)
    # Motion far out of the picture as well: where it points to must not be read.
    pairs = [*motion_pair("noise", HEIGHT, WIDTH), *motion_pair("zoom", HEIGHT, WIDTH)]
    flows = np.stack(list(flow.flows(pairs, [(0, 1), (2, 3)])))
    assert np.isfinite(flows).all()
    print("flow", flush=True)

    silhouettes = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    silhouettes[0, 10:60, 70:] = 255
    silhouettes[1, -1, -1] = 255
    for encoding in ENCODINGS:
        flow.pictures(pairs, [(0, 1), (2, 3)], list(silhouettes), encoding, 64)
    flows[0, 20] = np.nan
    flows[1] *= 1e7
    on_device, outlines = device.upload(flows), device.upload(silhouettes)
    for encoding in ENCODINGS:
        squares = device.upload(np.array([25.0, np.inf], np.float32))
        device.download(flow.farneback.pictures(on_device, squares, outlines, encoding, 64))
    print("pictures", flush=True)

    for format in map_kernels.STORED:
        for features, pool in ((8, False), (64, True)):
            map_kernels.patch_norm(device, features=features, format=format, pool=pool)
        map_kernels.windows(device, features=24, format=format)
    print("maps", flush=True)
    if on_gpu:
        return

    print("overflow", flush=True)
    size = (np.int32(WIDTH), np.int32(2 * HEIGHT + 1))
    arguments = (silhouettes, np.zeros(4, np.int32), *size)
    device.launch("pictures/crop.cu", "find_rows", (1, 1, 1), arguments, {"SIZE": 64, "BAND": 4})


main(on_gpu=sys.argv[1:] == ["gpu"])
