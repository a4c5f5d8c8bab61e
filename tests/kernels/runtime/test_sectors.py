"""The global memory that each kernel asks for, counted on the host: it writes whole rows, and reads little twice."""

import os
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from attengait.kernels.farneback.cuda import DeviceFarneback
from attengait.kernels.flow.backends import FarnebackParameters

sectors = import_module("sectors")

pytestmark = pytest.mark.skipif(
    "g++" not in os.path.realpath(shutil.which("c++") or ""), reason="the C++ compiler is not GCC"
)

WIDTH, HEIGHT = 128, 96
PIXELS = WIDTH * HEIGHT + WIDTH // 2 * HEIGHT // 2  # of both levels
ITERATIONS = 3
CEILINGS = {
    # Bytes read for each pixel of a frame, or of a pair and iteration: by requests of warps, by blocks.
    "shrink": (78, 11.5),
    "expand": (206, 13.3),
    "set_up": (158, 67),
    "solve": (104, 42.5),
}


@pytest.fixture(scope="module")
def counted() -> "sectors.CountingDevice":
    return sectors.count_pair(WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("kernel", "written"),
    [("shrink", 2 * 4), ("expand", 2 * 5 * 4), ("set_up", ITERATIONS * 5 * 4), ("solve", ITERATIONS * 8)],
)
def test_each_request_of_a_warp_writes_whole_sectors(
    counted: "sectors.CountingDevice", kernel: str, written: int
) -> None:
    """Each sector by one request, although `solve` computes in columns."""
    extra = counted.written[kernel].of_requests - written * PIXELS // sectors.SECTOR_BYTES
    # The last `solve` writes the largest magnitude of some blocks, which have at least 32 x 8 pixels.
    assert 0 <= extra <= (WIDTH * HEIGHT // (32 * 8) if kernel == "solve" else 0)


@pytest.mark.parametrize("kernel", CEILINGS)
def test_what_is_read_keeps_to_its_ceilings(counted: "sectors.CountingDevice", kernel: str) -> None:
    num_pixels = PIXELS * (2 if kernel in ("shrink", "expand") else ITERATIONS)
    read = counted.read[kernel]
    for what, number, ceiling in zip(
        ("requests", "blocks"), (read.of_requests, read.of_blocks), CEILINGS[kernel], strict=True
    ):
        bytes_per_pixel = sectors.SECTOR_BYTES * number / num_pixels
        assert 0.85 * ceiling < bytes_per_pixel <= ceiling, f"{kernel} reads {bytes_per_pixel:.1f} bytes by {what}"


def test_a_pixel_is_coloured_once_for_the_rows_of_a_block() -> None:
    """Counted with one colour everywhere, so that a warp's request to the wheel is one sector, or two at its edge."""
    device = sectors.CountingDevice()
    flows = device.upload(np.full((1, HEIGHT, WIDTH, 2), 1, np.float32))
    silhouettes = device.upload(np.zeros((1, HEIGHT, WIDTH), np.uint8))
    silhouettes[0, 24:72, 50:78] = 255
    squares = device.upload(np.full(1, 2, np.float32))
    DeviceFarneback(device, FarnebackParameters()).pictures(flows, squares, silhouettes, "colour", 64)
    # 64 x 64 pixels have 16 taps, and a warp's 32 flows of 8 bytes are in at least 8 sectors, beside the wheel's 6.
    # A block's four rows of the crop take 6 or 7 rows of the frame, and 64 columns take about 51.
    requests_of_taps = 64 * 64 * 16 // 32 * (8 + 6)
    assert device.read["crop_colours"].of_requests < requests_of_taps / 5


def test_requests_blocks_and_launches_are_counted_as_they_are(tmp_path: Path) -> None:
    source = tmp_path / "planted.cu"
    source.write_text(
        '#include "device.h"\n'
        'extern "C" __global__ void planted(const float* in, float* out) {\n'
        "    __shared__ float sums[THREADS];\n"
        "    PHASE { sums[threadIdx.x] = in[threadIdx.x / 64]; }\n"
        "    PHASE { out[8 * threadIdx.x] = sums[threadIdx.x]; }\n"
        "    PHASE { if (threadIdx.x < 64) out[2048 + 64 * blockIdx.x + threadIdx.x] = sums[0] + in[0]; }\n"
        "}\n"
        "LAUNCH(planted)\n"
    )
    device = sectors.CountingDevice()
    arrays = device.upload(np.zeros(8, np.float32)), device.upload(np.zeros(2048 + 128, np.float32))
    device.launch(str(source), "planted", (2, 1, 1), arrays, {})
    # 8 warps, then 2, read one sector in each of 2 blocks. All threads write to sectors of their own, then 64 of them
    # to 8 sectors. Both blocks write to the same ones at first, then to others.
    assert device.read["planted"] == sectors.Sectors(of_requests=2 * (8 + 2), of_blocks=2, of_launches=1)
    assert device.written["planted"] == sectors.Sectors(
        of_requests=2 * (256 + 8), of_blocks=2 * (256 + 8), of_launches=256 + 2 * 8
    )
