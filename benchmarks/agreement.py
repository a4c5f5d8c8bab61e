"""How closely each flow backend agrees with OpenCV: tables for every kind of motion and set of parameters.

For each pair of pictures the absolute differences of both components of the flow are taken, in pixels; a row gives
their mean, 99.9th percentile and maximum over all pairs of its kind. Where nothing constrains the flow (flat regions,
no motion) it is ill-conditioned, so single pixels may differ by more.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.benchmarks.report import Report, machine, versions
from attengait.datasets.pictures import read_gray
from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.farneback.cuda import CudaFlow
from attengait.kernels.flow.backends import BACKENDS, FarnebackParameters, FlowBackend, Gray, make_backend
from attengait.kernels.runtime.launch import HostDevice, cuda_missing, host_missing
from attengait.synth.motion import MOTIONS, motion_pair

PARAMETER_SETS = {
    "published": FarnebackParameters(),
    "gaussian window": FarnebackParameters(window="gaussian"),
    "winsize 10, 2 levels": FarnebackParameters(winsize=10, levels=2),
    "pyr_scale 0.7": FarnebackParameters(pyr_scale=0.7, levels=5, iterations=2),
    "poly_n 7": FarnebackParameters(poly_n=7, poly_sigma=1.5, winsize=21),
    "1 level, winsize 5": FarnebackParameters(levels=0, iterations=1, winsize=5, poly_n=3, poly_sigma=0.9),
}
"""Sets of parameters that are compared, by what is special about them."""

MEAN_PX, PERCENTILE_PX = 1e-4, 1e-2
"""Tolerances of the mean and of the 99.9th percentile."""

CUDA_ON_HOST = "cuda (on the host)"
"""The CUDA kernels, compiled by the host's compiler."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Agreement on all pairs of one kind."""

    parameters: str
    pairs: str
    backend: str
    mean_px: float
    percentile_99_9_px: float
    max_px: float

    @property
    def agrees(self) -> bool:
        """Whether the mean and the 99.9th percentile are within the tolerances."""
        return self.mean_px <= MEAN_PX and self.percentile_99_9_px <= PERCENTILE_PX


def comparable_backends() -> dict[str, Callable[[FarnebackParameters], FlowBackend]]:
    """How to make each backend here that claims to equal OpenCV's Farneback: cpu and cuda, on the host if need be."""
    found: dict[str, Callable[[FarnebackParameters], FlowBackend]] = {}
    if BACKENDS["cpu"].missing() is None:
        found["cpu"] = lambda parameters: make_backend("cpu", parameters)
    if cuda_missing() is None:
        found["cuda"] = lambda parameters: make_backend("cuda", parameters)
    elif host_missing() is None:
        found[CUDA_ON_HOST] = lambda parameters: CudaFlow(parameters, device=HostDevice())
    return found


def measure_agreement(*, height: int = 240, width: int = 320, frames: Path | None = None, num_real: int = 12) -> Report:
    """Compare every backend that is here with OpenCV.

    Synthetic pairs are `height` x `width` pixels, one of each kind of motion. `frames`, a folder with pictures in its
    sub-folders, adds at most `num_real` pairs of neighbours, evenly picked. Raises AttenGaitError where there is
    nothing to compare or no pair in `frames`.
    """
    if min(height, width) < 32:
        raise ParameterError(f"size is {width}x{height}, but must be at least 32x32 pixels")
    backends = comparable_backends()
    if not backends:
        raise AttenGaitError(f"there is no flow backend to compare with opencv: {host_missing()}")
    kinds = {kind: [motion_pair(kind, height, width)] for kind in MOTIONS}
    if frames is not None:
        kinds["real video"] = _real_pairs(frames, num_real)
    rows = [
        _row(name, kind, backend, make(parameters), pairs, parameters)
        for name, parameters in PARAMETER_SETS.items()
        for kind, pairs in kinds.items()
        for backend, make in backends.items()
    ]
    return {
        "machine": machine(),
        "versions": versions("attengait", "numpy", "cupy-cuda12x", "cupy-cuda13x") | {"opencv": cv2.__version__},
        "size": [width, height],
        "num_real_pairs": len(kinds.get("real video", ())),
        "results": [asdict(row) | {"agrees": row.agrees} for row in rows],
    }


def format_agreement(report: Report) -> str:
    """The table in Markdown."""
    width, height = report["size"]
    lines = [
        "| parameters | pairs | backend | mean px | 99.9th percentile px | maximum px |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["results"]:
        figures = " | ".join(f"{row[key]:.1e}" for key in ("mean_px", "percentile_99_9_px", "max_px"))
        lines.append(f"| {row['parameters']} | {row['pairs']} | {row['backend']} | {figures} |")
    num_off = sum(not row["agrees"] for row in report["results"])
    verdict = f"all {len(report['results'])} rows are" if not num_off else f"{num_off} rows are not"
    real = f"; {report['num_real_pairs']} real pairs" if report["num_real_pairs"] else ""
    lines += [
        "",
        f"Synthetic pairs of {width} x {height} pixels{real}. Against cv2.calcOpticalFlowFarneback, OpenCV "
        f"{report['versions']['opencv']}, {report['machine']['cpu']}: {verdict} within a mean of {MEAN_PX:g} px and "
        f"a 99.9th percentile of {PERCENTILE_PX:g} px.",
    ]
    return "\n".join(lines)


def _row(
    name: str,
    kind: str,
    backend: str,
    flow: FlowBackend,
    pairs: Sequence[tuple[Gray, Gray]],
    parameters: FarnebackParameters,
) -> Row:
    opencv = make_backend("opencv", parameters)
    differences = np.concatenate([_differences(opencv, flow, pair) for pair in pairs])
    return Row(
        parameters=name,
        pairs=kind,
        backend=backend,
        mean_px=float(differences.mean()),
        percentile_99_9_px=float(np.percentile(differences, 99.9)),
        max_px=float(differences.max()),
    )


def _differences(opencv: FlowBackend, flow: FlowBackend, pair: tuple[Gray, Gray]) -> NDArray[np.float32]:
    (theirs,), (ours,) = (each.flows(pair, [(0, 1)]) for each in (opencv, flow))
    differences: NDArray[np.float32] = np.abs(ours - theirs).ravel()
    return differences


def _real_pairs(folder: Path, num_pairs: int) -> list[tuple[Gray, Gray]]:
    neighbours: list[tuple[Path, Path]] = []
    for parent in sorted({path.parent for path in folder.rglob("*.*") if path.is_file()}):
        files = sorted(path for path in parent.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"))
        neighbours += pairwise(files)
    if not neighbours:
        raise AttenGaitError(f"{folder} holds no folder with two pictures")
    pairs = []
    for i in np.linspace(0, len(neighbours) - 1, min(num_pairs, len(neighbours))).astype(int):
        first, second = (read_gray(str(path)) for path in neighbours[i])
        if first is not None and second is not None and first.shape == second.shape:
            pairs.append((first, second))
    if not pairs:
        raise AttenGaitError(f"{folder} holds no two neighbouring pictures that can be read and are of one size")
    return pairs
