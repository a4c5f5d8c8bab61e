"""No two threads of a kernel use the same memory without order: found from the accesses, not from the results."""

import os
import re
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from attengait.kernels.farneback.cuda import CudaFlow
from attengait.kernels.flow.backends import FarnebackParameters
from attengait.kernels.pictures.encode import ENCODINGS
from attengait.kernels.runtime.launch import SOURCES, HostDevice
from attengait.synth.motion import motion_pair

recorded, map_kernels = import_module("recorded"), import_module("map_kernels")
RecordingDevice, RaceError = recorded.RecordingDevice, recorded.RaceError

pytestmark = pytest.mark.skipif(
    "g++" not in os.path.realpath(shutil.which("c++") or ""), reason="the C++ compiler is not GCC"
)


def run_flow(device: HostDevice) -> None:
    """More than one tile in both directions, and pyramid levels of two sizes."""
    frames = [*motion_pair("noise", 67, 70), *motion_pair("zoom", 67, 70)]
    list(CudaFlow(FarnebackParameters(iterations=2, levels=1), device=device).flows(frames, [(0, 1), (2, 3)]))


def run_pictures(device: HostDevice) -> None:
    """One silhouette is wider than a block has threads once it is resized."""
    frames, silhouettes = list(motion_pair("zoom", 40, 70)), np.zeros((2, 40, 70), np.uint8)
    silhouettes[0, 5:38, 20:40] = silhouettes[1, 20:26, 3:60] = 255
    flow = CudaFlow(FarnebackParameters(iterations=1, levels=0), device=HostDevice())
    flows, squares = flow.farneback.flow(np.stack(frames), np.array([(0, 1), (1, 0)], np.int32))
    flow.farneback.device = device
    for encoding in ENCODINGS:
        flow.farneback.pictures(flows, squares, silhouettes, encoding, 16)


def run_patch_norm(device: HostDevice) -> None:
    """A pixel in one thread and in several, with pixels left over in the last block; two frames to a slice."""
    for features, format, pool in ((8, "bfloat16", False), (64, "float32", True), (64, "float16", False)):
        map_kernels.patch_norm(device, features=features, format=format, pool=pool, frames=66, height=2, width=5)


def run_windows(device: HostDevice) -> None:
    """Frames that fill no window of the last bins."""
    map_kernels.windows(device, features=8, format="bfloat16", clips=1, frames=17)


RUNS: dict[str, Callable[[HostDevice], None]] = {
    "farneback/farneback.cu": run_flow,
    "patch_norm/patch_norm.cu": run_patch_norm,
    "pictures/crop.cu": run_pictures,
    "windows/windows.cu": run_windows,
}
"""What launches every kernel of a source. A new source needs an entry."""


@pytest.mark.parametrize("source", sorted(path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.cu")))
def test_no_kernel_races(source: str) -> None:
    launched = set()

    class Noting(RecordingDevice):  # type: ignore[misc, valid-type]
        def launch(self, source: str, kernel: str, *rest: object) -> None:
            launched.add((source, kernel))
            super().launch(source, kernel, *rest)

    assert source in RUNS, f"add to RUNS what launches every kernel of {source}"
    device = Noting()
    RUNS[source](device)
    kernels = set(re.findall(r"^LAUNCH\((\w+)\)", (SOURCES / source).read_text(), re.MULTILINE))
    assert launched == {(source, kernel) for kernel in kernels}
    assert device.num_accesses > 100_000


PLANTED = """
#include "device.h"

extern "C" __global__ void planted(int* values, int* out) {
    __shared__ int sums[THREADS];
    __shared__ int total;
    PHASE { sums[threadIdx.x] = values[threadIdx.x]; if (threadIdx.x == 0) total = 0; }
    BODY
}

LAUNCH(planted)
"""


def run_planted(tmp_path: Path, body: str, *, blocks: int = 1) -> np.ndarray:
    source = tmp_path / "planted.cu"
    source.write_text(PLANTED.replace("BODY", body))
    out = np.zeros(256 * 4, np.int32)
    device = RecordingDevice()
    device.launch(str(source), "planted", (blocks, 1, 1), (np.arange(256, dtype=np.int32), out), {})
    return out


NEXT = "(threadIdx.x + 1) % THREADS"


@pytest.mark.parametrize(
    ("body", "blocks", "what"),
    [
        ("PHASE { sums[threadIdx.x] += sums[0]; }", 1, r"thread 0 used|thread \d+ used|several threads used"),
        # Right in either order that the host tries, as each thread reads what no other has changed yet or at all.
        (f"PHASE {{ out[threadIdx.x] = sums[{NEXT}]; sums[threadIdx.x] = 7; }}", 1, "a byte of shared memory"),
        ("PHASE { out[0] = 5; }", 1, "thread 1 writes what thread 0 used"),
        ("PHASE { total += sums[threadIdx.x]; }", 1, "thread 1 reads what thread 0 used"),
        ("PHASE { atomicAdd(&total, 1); if (threadIdx.x == 9) out[0] = total; }", 1, "thread 9 reads what several"),
        ("PHASE { if (threadIdx.x == 3) total = 4; } out[blockIdx.x] = total;", 1, "every thread reads what thread 3"),
        ("PHASE { if (threadIdx.x == 0) out[0] = blockIdx.x; }", 2, "block 1 writes what block 0 used"),
        ("PHASE { out[THREADS * blockIdx.x + threadIdx.x] = out[threadIdx.x] + 1; }", 2, "block 1 reads what block 0"),
        (
            "PHASE { ((char*)out)[3 * threadIdx.x] = 1; *(short*)((char*)out + 2 * threadIdx.x) = 1; }",
            1,
            "a byte of gl",
        ),
    ],
)
def test_a_planted_race_is_found_and_said(tmp_path: Path, body: str, blocks: int, what: str) -> None:
    with pytest.raises(RaceError, match=what):
        run_planted(tmp_path, body, blocks=blocks)


@pytest.mark.parametrize(
    ("body", "blocks"),
    [
        (f"PHASE {{ out[threadIdx.x] = sums[{NEXT}]; }} PHASE {{ sums[threadIdx.x] = 7; }}", 1),
        ("PHASE { atomicAdd(&total, sums[threadIdx.x]); } PHASE { if (threadIdx.x == 0) out[0] = total; }", 1),
        ("PHASE { if (threadIdx.x == 0) total = 4; } PHASE { out[threadIdx.x] = total; }", 1),
        ("PHASE { out[THREADS * blockIdx.x + threadIdx.x] = values[threadIdx.x]; }", 3),
        ("PHASE { atomicMax(out, values[threadIdx.x]); }", 3),
        ("PHASE { ((unsigned char*)out)[threadIdx.x] = 1; }", 1),
    ],
)
def test_what_is_ordered_or_atomic_is_no_race(tmp_path: Path, body: str, blocks: int) -> None:
    assert run_planted(tmp_path, body, blocks=blocks).any()


def test_a_barrier_taken_out_of_a_real_kernel_is_missed_although_the_result_is_right(tmp_path: Path) -> None:
    text = (SOURCES / "pictures/crop.cu").read_text()
    first, barrier = "if (threadIdx.x == 0) top = H, bottom = 0;", "\n    }\n    PHASE {\n"
    assert text.count(first + barrier) == 1
    source = tmp_path / "crop.cu"
    source.write_text(text.replace(first + barrier, first))
    silhouettes = np.zeros((1, 40, 70), np.uint8)
    silhouettes[0, 5:38, 20:40] = 255

    def crops(device: HostDevice, path: Path | str) -> list[int]:
        found = np.zeros(4, np.int32)
        arguments = (silhouettes, found, np.int32(70), np.int32(40))
        device.launch(str(path), "find_rows", (1, 1, 1), arguments, {"SIZE": 64, "BAND": 4})
        return found.tolist()  # type: ignore[no-any-return]

    assert crops(HostDevice(), source) == crops(HostDevice(), "pictures/crop.cu")
    crops(RecordingDevice(), "pictures/crop.cu")
    with pytest.raises(
        RaceError, match=r"find_rows of .*: thread 1 reads what thread 0 used, in block 0, phase 1: a byte of shared"
    ):
        crops(RecordingDevice(), source)
