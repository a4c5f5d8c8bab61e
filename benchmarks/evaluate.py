"""How long an evaluation of many probes against a large gallery takes, and how much memory.

The embeddings are random, some for each subject, and go through the protocol `custom` as a user's do. The rate is
2 x probes x gallery x features operations over the time of the whole evaluation. It is set against plain products of
float64 matrices of the size of a tile, measured before and after in the same run.
"""

import time
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from attengait.benchmarks.process import begin_peak, peak_bytes
from attengait.benchmarks.report import Report, machine, versions
from attengait.errors import ParameterError
from attengait.evaluation import Embeddings, EvaluationOptions, check_names, evaluate_embeddings
from attengait.evaluation.blocks import GALLERY_TILE, PROBE_TILE
from attengait.system.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

PARTS, PART_SIZE = 62, 32
"""Of an embedding of AttenGait."""
_ITEMS_PER_SUBJECT = 10
_MADE_AT_ONCE = 4096
_PRODUCT_SECONDS = 3.0


def benchmark_evaluate(
    *,
    gallery: int = 250_000,
    probes: int = 24_000,
    distances: tuple[str, ...] = ("l2",),
    device: str = "auto",
    progress: Progress = SILENT,
) -> Report:
    """Evaluate with each of the distances.

    Of each: "seconds", "peak_memory_gib" of the whole process with the embeddings (and "peak_gpu_memory_gib"),
    "gflop_per_s", "matrix_gflop_per_s" of the plain product, and "of_matrix_rate". Raises ParameterError for values out
    of range, an unknown distance and a device that is not there.
    """
    for name, value, least in (("gallery", gallery, _ITEMS_PER_SUBJECT), ("probes", probes, 1)):
        if value < least:
            raise ParameterError(f"{name} is {value}, but must be at least {least}")
    for distance in distances:
        check_names("custom", distance)
    if not distances:
        raise ParameterError("distances is empty, but must be one or more names")
    where = _device(device)
    embeddings = _made(gallery, probes)
    return {
        "machine": machine() | ({} if where is None else {"gpu": _gpu_name(where)}),
        "versions": versions("attengait", "numpy", "torch"),
        "device": "cpu" if where is None else str(where),
        "gallery": gallery,
        "probes": probes,
        "features": PARTS * PART_SIZE,
        "results": [_measure(embeddings, gallery * probes, distance, where, progress) for distance in distances],
    }


def format_table(report: Report) -> str:
    """The report for people: a row for each distance."""
    lines = [
        f"{report['probes']:,} probes, a gallery of {report['gallery']:,}, {report['features']} features, on "
        f"{report['device']}",
        f"{'distance':12} {'seconds':>9} {'peak GiB':>9} {'GFLOP/s':>9} {'product':>9}  of the product",
    ]
    lines += [
        f"{row['distance']:12} {row['seconds']:9,.1f} {row['peak_memory_gib']:9.2f} {row['gflop_per_s']:9,.1f} "
        f"{row['matrix_gflop_per_s']:9,.1f}  {row['of_matrix_rate']:.3f}"
        for row in report["results"]
    ]
    about = report["machine"]
    lines.append(f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, load {about['load']}")
    return "\n".join(lines)


def _made(gallery: int, probes: int) -> Embeddings:
    """Random embeddings, the gallery first; those of a subject are around one point."""
    number, num_subjects = gallery + probes, gallery // _ITEMS_PER_SUBJECT
    random = np.random.default_rng(0)
    subjects = np.arange(number) % num_subjects
    features = np.empty((number, PARTS, PART_SIZE), np.float32)
    for start in range(0, number, _MADE_AT_ONCE):
        some = features[start : start + _MADE_AT_ONCE]
        random.standard_normal(out=some, dtype=np.float32)
        # A subject's point is made anew from its number, so that no table of them takes memory.
        for row, subject in zip(some, subjects[start : start + _MADE_AT_ONCE].tolist(), strict=True):
            row += 0.3 * np.random.default_rng([1, subject]).standard_normal((PARTS, PART_SIZE), np.float32)
    return Embeddings(
        features=features,
        subjects=subjects.astype(np.str_),
        sequences=np.where(np.arange(number) < gallery, "gallery", "probe"),
        views=np.full(number, "000"),
        feature_order="parts-first",
    )


def _measure(
    embeddings: Embeddings, num_pairs: int, distance: str, device: "torch.device | None", progress: Progress
) -> dict[str, Any]:
    rates = [_matrix_rate(device)]
    begin_peak()
    _begin_gpu_peak(device)
    started = time.perf_counter()
    result = evaluate_embeddings(
        embeddings,
        protocol="custom",
        distance=distance,
        options=EvaluationOptions(gallery=["walk=gallery"], probes=["walk=probe"]),
        device=device,
        progress=progress,
    )
    seconds = time.perf_counter() - started
    row = {
        "distance": distance,
        "seconds": float(f"{seconds:.4g}"),
        "peak_memory_gib": round(peak_bytes() / 2**30, 3),
        **_gpu_peak(device),
        "rank1": result.metrics["rank1"],
        "tied_probes": result.num_tied,
    }
    rates.append(_matrix_rate(device))
    rate = 2 * num_pairs * PARTS * PART_SIZE / seconds
    matrix_rate = sum(rates) / 2
    return row | {
        "gflop_per_s": float(f"{rate / 1e9:.4g}"),
        "matrix_gflop_per_s": float(f"{matrix_rate / 1e9:.4g}"),
        "of_matrix_rate": round(rate / matrix_rate, 4),
    }


def _matrix_rate(device: "torch.device | None") -> float:
    """Floating-point operations per second of a product of two float64 tiles, with nothing else: the median."""
    size = PARTS * PART_SIZE
    random = np.random.default_rng(0)
    few, many = random.standard_normal((PROBE_TILE, size)), random.standard_normal((size, GALLERY_TILE))
    times: list[float] = []
    if device is None:
        out = np.empty((PROBE_TILE, GALLERY_TILE))
        while sum(times) < _PRODUCT_SECONDS:
            started = time.perf_counter()
            np.matmul(few, many, out=out)
            times.append(time.perf_counter() - started)
    else:
        import torch

        a, b = torch.from_numpy(few).to(device), torch.from_numpy(many).to(device)
        while sum(times) < _PRODUCT_SECONDS:
            started = time.perf_counter()
            for _ in range(10):
                product = a @ b
            product[0, 0].item()  # waits for all of them
            times.append((time.perf_counter() - started) / 10)
    return 2 * few.size * GALLERY_TILE / median(times)


def _device(name: str) -> "torch.device | None":
    if name == "cpu":
        return None
    from attengait.model.precision import resolve_device

    device, _ = resolve_device(name, "fp32")
    return None if device.type == "cpu" else device


def _gpu_name(device: "torch.device") -> str:
    import torch

    return str(torch.cuda.get_device_name(device))


def _begin_gpu_peak(device: "torch.device | None") -> None:
    if device is not None:
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def _gpu_peak(device: "torch.device | None") -> dict[str, float]:
    if device is None:
        return {}
    import torch

    return {"peak_gpu_memory_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 3)}
