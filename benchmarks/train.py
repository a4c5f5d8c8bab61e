"""How fast training is: clips per second, the milliseconds of each part of a step, memory, and how much of the device's
matrix rate is used.

The trainer itself runs, as `attengait train` runs it, on a store or on one synthetic batch that lies on the device
already. The matrix rate is that of one large product of random matrices in the same precision, measured in the same run
with the trainer's settings in force. A step's floating-point operations are those of its convolutions and matrix
products, forward and backward, as torch counts them; the losses are left out. The parts of steps that a CUDA graph
computes are not seen.
"""

import functools
import gc
import itertools
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from attengait.benchmarks.process import begin_peak, peak_bytes
from attengait.benchmarks.report import Report, machine, results, versions
from attengait.benchmarks.step_times import PARTS, StepTimes
from attengait.errors import ParameterError, require
from attengait.kernels.runtime.compile import find_compiler
from attengait.model.config import FRAME_PIXELS, ModelConfig
from attengait.model.net import AttenGait
from attengait.model.precision import resolve_device
from attengait.pipelines.cache import choose_cache, open_clips
from attengait.pipelines.channels import only_channels
from attengait.pipelines.runs import memory_errors
from attengait.pipelines.train import batch_plan, open_stores
from attengait.sampling.plan import BatchPlan, ClipBatch
from attengait.store.description import channel_names, select_channels
from attengait.store.joined import JoinedStores
from attengait.store.sequences import SequenceRecord, columns_of
from attengait.system.progress import SILENT, Progress
from attengait.training.config import TrainingConfig, make_config, settings_of
from attengait.training.environment import read_environment
from attengait.training.graphs import CHECKED_REPLAYS
from attengait.training.run_files import read_metrics
from attengait.training.trainer import Trainer

WARM_UP_STEPS = 1 + CHECKED_REPLAYS
"""The first step, and those in which CUDA graphs are recorded and checked."""
PROFILED_STEPS = 3
SYNTHETIC_SUBJECTS = 74
"""As many as are trained on in CASIA-B; they decide the width of the classifiers."""
MATRIX_SIDE = {"cuda": 8192, "cpu": 2048}
MATRIX_SECONDS = 0.2
"""How long matrices are multiplied before the rate is taken, and at least for each value of it."""
PROFILE_ROWS = 40

OpenBatches = Callable[[int, int], AbstractContextManager[Iterator[ClipBatch]]]


def benchmark_train(
    store: str | Path | None = None,
    *,
    settings: Mapping[str, Any],
    precisions: Sequence[str] = ("auto",),
    caches: Sequence[str] = ("auto",),
    cuda_graphs: Sequence[bool] | None = None,
    num_steps: int = 10,
    repeats: int = 5,
    profile: Path | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Measure training with each precision, on a store with each cache, and with and without CUDA graphs.

    Args:
        store: what to train on; None: synthetic clips, for which the data costs nothing.
        settings: those of a training run by their keys, such as {"size": "small", "device": "cuda"}.
        precisions: fp32, bf16, fp16 or auto.
        caches: where a store's frames are kept: auto, none, host or gpu.
        cuda_graphs: values of the setting `cuda_graphs`; None: that of `settings`.
        num_steps: steps of one measurement.
        repeats: measurements.
        profile: a file for a table of what takes the time of a step; it holds one for each row.
        progress: hears how far each row is.

    Raises ParameterError for a value out of range or settings that do not fit the store, AttenGaitError where the store
    cannot be opened or the memory does not suffice.
    """
    for name, value in (("steps", num_steps), ("repeats", repeats)):
        require(value >= 1, name, value, "at least 1")
    for name, values in (("precision", precisions), ("cache", caches)):
        is_accepted = bool(values) and len(set(values)) == len(values)
        require(is_accepted, name, ",".join(values), "different values with commas")
    if store is None and list(caches) != ["auto"]:
        raise ParameterError(f"cache is {','.join(caches)!r}, but must be left out for synthetic clips")
    if cuda_graphs is None:
        cuda_graphs = [settings.get("cuda_graphs", True)]
    elif "cuda_graphs" in settings:
        raise ParameterError("cuda_graphs is set, but must be left out where it is measured")
    is_accepted = 0 < len(cuda_graphs) == len(set(cuda_graphs))
    require(is_accepted, "cuda_graphs", ",".join(map(_word, cuda_graphs)), "true, false or both with a comma")
    rows, tables = [], []
    for precision, cache, graphs in itertools.product(precisions, caches, cuda_graphs):
        config = make_config({**settings, "precision": precision, "cache": cache, "cuda_graphs": graphs})
        more = f", cuda_graphs {_word(graphs)}" if len(cuda_graphs) > 1 else ""
        row, table = _measure(store, config, num_steps, repeats, profile is not None, progress, more)
        rows.append(row)
        tables.append(f"{row['name']}\n{table}")
    if profile is not None:
        profile.write_text("\n".join(tables))
    data = config.data
    device, _ = resolve_device(config.run.device, "fp32")
    return {
        "machine": machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": versions("attengait", "numpy", "torch", "nvidia-dali"),
        "training": {
            "store": None if store is None else str(store),
            "size": config.model.size,
            "subjects_per_batch": data.subjects_per_batch,
            "clips_per_subject": data.clips_per_subject,
            "clip_frames": data.clip_frames,
            "steps": num_steps,
            "repeats": repeats,
            "threads": torch.get_num_threads(),
            "has_compiler": find_compiler() is not None,
        },
        "results": rows,
    }


def format_table(report: Report) -> str:
    """The report for people."""
    about = report["training"]
    clips = "synthetic clips" if about["store"] is None else about["store"]
    shape = " x ".join(str(about[key]) for key in ("subjects_per_batch", "clips_per_subject", "clip_frames"))
    width = max(len(row["name"]) for row in report["results"])
    lines = [
        f"size {about['size']}, batches of {shape} frames, {clips}; median of {about['repeats']} x {about['steps']} "
        "steps; ms of a step:",
        f"{'':{width}} {'clips/s':>9} {'min':>8} {'max':>8} {'step':>8}"
        + "".join(f" {part:>12}" for part in PARTS)
        + f" {'memory':>9} {'TFLOP/s':>8} {'of rate':>7}",
    ]
    for row in report["results"]:
        parts = row["ms"]
        lines.append(
            f"{row['name']:{width}} {row['clips_per_s']:9,.1f} {row['min']:8,.1f} {row['max']:8,.1f} "
            f"{row['ms_per_step']:8,.1f}"
            + "".join(f" {parts[part]:12,.2f}" if parts else f" {'-':>12}" for part in PARTS)
            + f" {row['peak_memory_gib']:5,.2f} GiB {row['tflop_per_s']:8.3g} {row['of_matrix_rate']:7.1%}"
        )
    lines += _about_graphs(report["results"])
    about = report["machine"]
    numbers = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines.append(f"{report['device']}; {about['cpu']}, {about['cores']} cores, load {about['load']}; {numbers}")
    return "\n".join(lines)


def _about_graphs(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Which rows CUDA graphs had a part in, and whether they changed a loss."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        found = row["cuda_graphs"]
        why = f"no CUDA graphs ({found['why_not']})" if found["why_not"] else f"{found['graphs']} CUDA graphs"
        by_reason.setdefault(why, []).append(row["name"])
    yield from (f"{', '.join(names)}: {why}" for why, names in by_reason.items())
    for with_graphs, without in itertools.combinations(rows, 2):
        same = all(with_graphs[key] == without[key] for key in ("precision", "cache"))
        if same and bool(with_graphs["cuda_graphs"]["graphs"]) != bool(without["cuda_graphs"]["graphs"]):
            losses, others = with_graphs["losses"], without["losses"]
            apart = [step for step in losses if losses[step] != others[step]]
            what = f"differ from step {apart[0]} on" if apart else f"are equal to the bit in {len(losses)} logged steps"
            yield f"{with_graphs['name']} and {without['name']}: the losses {what}"


def _word(value: object) -> str:
    return str(value).lower()


@functools.cache
def step_flop(network: ModelConfig, num_clips: int, clip_frames: int) -> int:
    """Floating-point operations of the matrix products and convolutions of one step, forward and backward."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        model = AttenGait(network).train()
        clips = torch.zeros(1, clip_frames, FRAME_PIXELS, FRAME_PIXELS, network.channels, dtype=torch.uint8)
        model.classify(model(clips)).sum().backward()  # type: ignore[no-untyped-call]
    counts = dict(counter.get_flop_counts()["Global"])
    # On a CPU, patch_norm takes means over few features by products with a small matrix. They are not the network's.
    counts.pop(torch.ops.aten.mm, None)
    return num_clips * sum(counts.values())


def matrix_rate(device: torch.device, precision: str, repeats: int) -> float:
    """Floating-point operations per second of a product of two random square matrices: the median."""
    side, dtype = (
        MATRIX_SIDE[device.type],
        {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32),
    )
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, device=device, generator=generator).to(dtype) for _ in range(2))

    def seconds(rounds: int) -> float:
        times = StepTimes(device)
        times.begin_step()
        for _ in range(rounds):
            torch.mm(a, b)
        times.begin_step()
        (milliseconds,), _ = times.milliseconds()
        return milliseconds / 1000

    rounds, started = 1, time.perf_counter()
    while time.perf_counter() - started < MATRIX_SECONDS:
        once = seconds(1)
    rounds = max(1, int(MATRIX_SECONDS / once))
    return rounds * 2 * side**3 / median(seconds(rounds) for _ in range(repeats))


def _measure(
    where: str | Path | None,
    config: TrainingConfig,
    num_steps: int,
    repeats: int,
    profiled: bool,
    progress: Progress,
    more: str,
) -> tuple[Report, str]:
    """One row of the report, with `more` in its name, and the table of the profile."""
    device, precision = resolve_device(config.run.device, config.run.precision)
    observer = _Observer(device, precision, num_steps * repeats, repeats, profiled, progress)
    runtime = {"stop_after_steps": observer.last, "checkpoint_every_steps": observer.last}
    config = make_config(settings_of(config) | runtime | {"precision": precision})
    gc.collect()  # what is left of the row before
    advice = "choose fewer subjects, clips or frames, or a smaller size"
    with memory_errors(advice), _opened(where, config, device) as (plan, channels, cache, open_batches):

        @contextmanager
        def open_stream(first: int, steps: int) -> Iterator[Iterator[ClipBatch]]:
            with open_batches(first, steps) as batches, closing(observer.observe(iter(batches))) as observed:
                yield observed

        with tempfile.TemporaryDirectory(prefix="attengait-train-") as folder, observer.times.watching():
            Trainer(
                config=config,
                run=Path(folder),
                plan=plan,
                channels=channels,
                open_stream=open_stream,
                sequence_name=lambda index: f"number {index} of the store",
            ).train()
            found = read_environment(Path(folder))["starts"][-1]["ended"]["cuda_graphs"]
            losses = {str(line["step"]): line["train/total"] for line in read_metrics(Path(folder))}
    network = config.model.network(channels=channels, num_subjects=len(plan.subjects))
    num_clips = config.data.subjects_per_batch * config.data.clips_per_subject
    steps_ms, parts_ms = observer.times.milliseconds()
    groups = [steps_ms[i : i + num_steps] for i in range(0, len(steps_ms), num_steps)]
    name = (precision if cache is None else f"{precision}, cache {cache}") + more
    (row,) = results({name: [1000 * num_clips * num_steps / sum(group) for group in groups]}, "clips_per_s")
    flop_per_step, ms_per_step = step_flop(network, num_clips, config.data.clip_frames), median(steps_ms)
    flop_per_s = 1000 * flop_per_step / ms_per_step
    row |= {
        "precision": precision,
        "cache": cache,
        "ms_per_step": round(ms_per_step, 3),
        "ms": {part: round(median(values), 3) for part, values in parts_ms.items() if values},
        "peak_memory_gib": round((observer.peak_bytes + found["bytes"]) / 2**30, 3),
        "cuda_graphs": found,
        "losses": losses,
        "flop_per_step": flop_per_step,
        "tflop_per_s": flop_per_s / 1e12,
        "matrix_tflop_per_s": observer.matrix_rate / 1e12,
        "of_matrix_rate": flop_per_s / observer.matrix_rate,
    }
    return row, observer.profile


class _Observer:
    """Hands on the batches of a run, and measures between two steps."""

    def __init__(
        self,
        device: torch.device,
        precision: str,
        num_steps: int,
        repeats: int,
        profiled: bool,
        progress: Progress,
    ) -> None:
        self._device, self._precision, self._repeats, self._progress = device, precision, repeats, progress
        self._end = WARM_UP_STEPS + num_steps
        # One step more, so that the last one measured ends as the others do: with the question for a batch.
        self._first_profiled = self._end + 1
        self.last = self._first_profiled + (PROFILED_STEPS if profiled else 0)
        """The step at which the run is to stop."""
        self.times = StepTimes(device)
        self.matrix_rate = 0.0
        self.peak_bytes = 0
        self.profile = ""

    def observe(self, batches: Iterator[ClipBatch]) -> Generator[ClipBatch]:
        """The same batches."""
        with ExitStack() as stack:
            for step in range(self.last):
                if step == WARM_UP_STEPS:
                    self.matrix_rate = matrix_rate(self._device, self._precision, self._repeats)
                    _begin_peak(self._device)
                if step == self._first_profiled:
                    stack.enter_context(self._profiling())
                if WARM_UP_STEPS <= step <= self._end:
                    self.times.begin_step()
                if step == self._end:
                    self.peak_bytes = _peak_bytes(self._device)
                batch = next(batches)
                if step < self._end:
                    self.times.begin("augmentation")
                yield batch
                self._progress.update(f"Training in {self._precision}", step + 1, self.last, unit="steps")

    @contextmanager
    def _profiling(self) -> Iterator[None]:
        on_gpu = self._device.type == "cuda"
        activity = torch.profiler.ProfilerActivity
        profiler = torch.profiler.profile(activities=[activity.CPU, *([activity.CUDA] if on_gpu else [])])
        try:
            with profiler:
                yield
        finally:  # a stream that has given its last batch is closed, which arrives here as an exception
            order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
            averages = profiler.key_averages()
            self.profile = str(averages.table(sort_by=order, row_limit=PROFILE_ROWS, max_name_column_width=60))


@contextmanager
def _opened(
    where: str | Path | None, config: TrainingConfig, device: torch.device
) -> Iterator[tuple[BatchPlan, int, str | None, OpenBatches]]:
    """The plan, the clips' channels, where frames are kept, and what opens the batches."""
    if where is None:
        plan = _synthetic_plan(config)
        yield plan, 3, None, lambda first, steps: nullcontext(_synthetic_batches(plan, first, steps, device))
        return
    store = open_stores(where)
    parts = store.stores if isinstance(store, JoinedStores) else [store]
    names = channel_names(parts[0].attributes, store.frame_shape[2])
    channels = select_channels(names, config.data.channels)
    plan = batch_plan(store, config)
    cache = choose_cache(config.run.cache, parts, device).cache
    with store.reader(check_frames=config.run.check_frames) as reader:

        def open_batches(first: int, steps: int) -> AbstractContextManager[Iterator[ClipBatch]]:
            clips = open_clips(cache, reader, store.sequences, plan, start_step=first, num_steps=steps, device=device)
            return only_channels(clips, channels)

        yield plan, len(channels), cache, open_batches


def _synthetic_plan(config: TrainingConfig) -> BatchPlan:
    data = config.data
    names = [f"{number:03d}" for number in range(max(SYNTHETIC_SUBJECTS, data.subjects_per_batch))]
    records = [
        SequenceRecord(subject=name, walk="nm-01", view="090", start=i * frames, length=frames, crc32c=0)
        for frames in (data.clip_frames,)
        for i, name in enumerate(names)
    ]
    return BatchPlan(
        columns_of(records),
        names,
        subjects_per_batch=data.subjects_per_batch,
        clips_per_subject=data.clips_per_subject,
        clip_frames=data.clip_frames,
        seed=config.run.seed,
    )


def _synthetic_batches(plan: BatchPlan, first: int, num_steps: int, device: torch.device) -> Iterator[ClipBatch]:
    """The same random clips in every step, with the labels of the plan."""
    shape = (len(plan.batch(first).labels), plan.clip_frames, FRAME_PIXELS, FRAME_PIXELS, 3)
    generator = torch.Generator(device).manual_seed(0)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=generator)
    for step in range(first, first + num_steps):
        planned = plan.batch(step)
        labels = torch.from_numpy(planned.labels).to(device)
        yield ClipBatch(step=step, clips=clips, labels=labels, sequences=planned.sequences)


def _begin_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        begin_peak()


def _peak_bytes(device: torch.device) -> int:
    """Most memory in use since `_begin_peak`: torch's on the GPU, or this process's."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes()
