"""Whether a stream keeps what it takes: memory, threads and file handles while millions of clips go by.

Looked at after the first batch and then after every tenth of the clips. Files are open, threads at work and batches on
their way for moments at a time, so that looks differ: growth is what even the least of the last five looks has more of
than the least of the five before.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median_low

from attengait.benchmarks.defaults import BATCH_SIZE, CLIP_FRAMES
from attengait.benchmarks.loader import PACKAGES, about_store, check_positive, clip_plan
from attengait.benchmarks.process import usage
from attengait.benchmarks.report import Report, machine, versions
from attengait.errors import ParameterError
from attengait.pipelines.stream import ClipStream
from attengait.store import open_store
from attengait.system.progress import SILENT, Progress

ALLOWED_GROWTH_BYTES = 16 * 2**20
"""Of memory, beside that of two batches: allocators round and keep."""
ALLOWED_GROWTH_THREADS = 8
"""TensorStore begins and ends threads as it needs them."""


def benchmark_soak(
    store_path: str | Path,
    *,
    num_clips: int = 10_000_000,
    batch_size: int = BATCH_SIZE,
    clip_frames: int = CLIP_FRAMES,
    progress: Progress = SILENT,
) -> Report:
    """Stream `num_clips` clips; the report's "growth" lists what grew, in words, and is empty when all is well.

    Raises ParameterError for a parameter out of range,
    AttenGaitError when no sequence is long enough.
    """
    check_positive(batch_size=batch_size, clip_frames=clip_frames)
    num_batches = -(-num_clips // batch_size)
    if num_batches < 10:
        raise ParameterError(f"clips is {num_clips}, but must be at least ten batches of {batch_size}")
    store = open_store(store_path)
    looks = {1: "first batch"} | {num_batches * tenth // 10: f"{tenth}0 %" for tenth in range(1, 11)}
    results = []
    started = time.perf_counter()
    with ClipStream(store, clip_plan(store, store.sequences, batch_size, clip_frames), num_steps=num_batches) as stream:
        for done, batch in enumerate(stream, start=1):
            del batch
            if done in looks:
                seconds = round(time.perf_counter() - started, 1)
                results.append({"name": looks[done], "clips": done * batch_size, "seconds": seconds, **asdict(usage())})
                progress.update("Streaming", done * batch_size, num_batches * batch_size, unit="clips")
    return {
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "store": {**about_store(store), "batch_size": batch_size, "clip_frames": clip_frames},
        "results": results,
        "growth": growth(results[-10:], 2 * batch_size * clip_frames * store.layout.frame_bytes),
    }


def growth(looks: Sequence[Report], batches_bytes: int) -> list[str]:
    """What the medians of the second half of `looks` exceed those of the first in; `batches_bytes` may come and go."""
    half = len(looks) // 2
    allowed = {"threads": ALLOWED_GROWTH_THREADS, "files": 0, "own_bytes": ALLOWED_GROWTH_BYTES + batches_bytes}
    grown = []
    for kind, most in allowed.items():
        early, late = (median_low([look[kind] for look in part]) for part in (looks[:half], looks[half:]))
        if late > early + most:
            is_memory = kind == "own_bytes"
            name, values = ("memory", map(_mib, (early, late))) if is_memory else (kind, map(str, (early, late)))
            grown.append(f"{name} from {' to '.join(values)}")
    return grown


def format_table(report: Report) -> str:
    """The report for people."""
    about = report["store"]
    lines = [
        f"{about['path']} (codec {about['codec']}): batches of {about['batch_size']} clips of {about['clip_frames']} "
        "frames",
        f"{'':11}  {'clips':>12}  {'seconds':>8}  {'memory':>9}  {'mapped':>9}  threads  files",
    ]
    lines += [
        f"{row['name']:11}  {row['clips']:12,}  {row['seconds']:8,.1f}  {_mib(row['own_bytes']):>9}  "
        f"{_mib(row['mapped_bytes']):>9}  {row['threads']:7}  {row['files']:5}"
        for row in report["results"]
    ]
    lines.append(f"from the first half to the second: {'; '.join(report['growth']) or 'nothing grew'}")
    return "\n".join(lines)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"
