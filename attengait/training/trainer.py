"""The training loop: any iterable of batches in, checkpoints and TensorBoard scalars out.

One step: clips and labels -> augmentation -> embeddings [N, 62, D] and logits [N, 62, K] -> triplet + cross entropy +
L2 penalty -> Adam. Everything random in a step is seeded by (seed, step), so that a resumed run continues with the very
same numbers as an undisturbed one.

Several processes may share the batch of each step (`attengait.training.ranks`). What is random is drawn for all of it,
so that the numbers do not depend on how many processes there are.

N clips of a batch, n of them in this process; K classes, D features per part.
"""

import io
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attengait.errors import AttenGaitError
from attengait.model.config import ModelConfig
from attengait.model.loading import shapes_of
from attengait.model.losses import cross_entropy, l2_penalty, send
from attengait.model.net import AttenGait
from attengait.model.precision import autocast, computing, resolve_device
from attengait.sampling.plan import BatchPlan, ClipBatch
from attengait.system.machine import available_memory_bytes
from attengait.system.progress import SILENT, Progress, duration
from attengait.system.stopping import StopRequest
from attengait.training.augment import augment
from attengait.training.checkpoint import load_checkpoint, save_checkpoint
from attengait.training.config import OptimiserSettings, TrainingConfig
from attengait.training.hooked import Hooked
from attengait.training.ranks import ALONE, Ranks, lost
from attengait.training.schedule import learning_rate
from attengait.training.triplets import triplet_term

OpenStream = Callable[[int, int], AbstractContextManager[Iterator[ClipBatch]]]
"""(first step, number of steps) -> this process's slices of the batches of those steps, in order."""


STEPS_UNREAD = {"cpu": 0, "cuda": 1}
"""So many steps may be begun after one whose losses were not read yet, so that a GPU never waits for Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """How a run does, after each step."""

    step: int
    """Steps done."""
    num_steps: int
    learning_rate: float
    losses: dict[str, float]
    """total, triplet, cross_entropy (absent in the epochs without), l2 and the gradient_norm, of this step."""
    clips_per_second: float
    """Over the last 20 steps."""
    data_wait_share: float
    """Share of that time spent waiting for the next batch."""
    remaining_seconds: float

    def __str__(self) -> str:
        shown = ("total", "triplet", "cross_entropy", "l2")
        losses = "  ".join(f"{name} {self.losses[name]:.3f}" for name in shown if name in self.losses)
        return (
            f"{losses}  {self.clips_per_second:.1f} clips/s  waiting for data {self.data_wait_share:.0%}  "
            f"{duration(self.remaining_seconds)} left"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """How a run ended.

    >>> result.steps <= result.num_steps
    True
    >>> attengait.load_model(result).config == model.config
    True
    """

    run: Path
    """The folder of the run; `attengait.load_model` and `attengait.embed` take the result for it."""
    steps: int
    """Steps done, those of earlier calls included."""
    num_steps: int
    interrupted_by: int | None
    """The signal that stopped it, if any."""

    def __fspath__(self) -> str:
        return str(self.run)


@dataclass(slots=True, kw_only=True)
class Trainer:
    """One run on one device, or the part of one of several processes. `run` must be a folder that exists."""

    config: TrainingConfig
    run: Path
    plan: BatchPlan
    """Of the batches of all processes."""
    channels: int
    """Of the clips."""
    open_stream: OpenStream
    sequence_name: Callable[[int], str]
    input_channels: tuple[str, ...] = ()
    """Names of the clips' channels, where these are only some of the store's."""
    record_sha256: str = ""
    """The digest of the run's record, to which weights and checkpoints are bound; empty where there is none."""
    progress: Progress = SILENT
    stop: StopRequest = field(default_factory=StopRequest)
    """Looked at between two steps: a run that is asked to stop leaves a checkpoint and ends."""
    ranks: Ranks = ALONE
    """The processes that train the run. The first of them writes its files and reports its progress."""

    def train(self, *, resume: bool = False) -> TrainingResult:
        """Train from the start, or from the run's checkpoint, to the end, a stop setting or a request to stop.

        On a CPU it is faster after `attengait.system.memory.keep_freed_memory()`, which the command line calls.

        Raises AttenGaitError when a loss or gradient is not finite, naming the step, the batch's sequences and the
        learning rate, where the last checkpoint stays (on a GPU, this is seen one step later); and where the setting
        `deterministic` is not possible. OtherProcessError when another process has failed.
        """
        config = self.config
        device, precision = resolve_device(self.ranks.device(config.run.device), config.run.precision)
        # The caller's random state stays as it is. Only this device and the CPU are seeded.
        with (
            computing(device, precision, deterministic=config.run.deterministic),
            torch.random.fork_rng([device] if device.type == "cuda" else []),
        ):
            try:
                return self._train(device, precision, resume=resume)
            except RuntimeError as error:
                raise (None if self.ranks.is_alone else lost(error)) or error from None

    def _train(self, device: torch.device, precision: str, *, resume: bool) -> TrainingResult:
        config = self.config
        _seed(config.run.seed, device)
        network = config.model.network(
            channels=self.channels, num_subjects=len(self.plan.subjects), input_channels=self.input_channels
        )
        _check_memory(network)
        model = AttenGait(network).to(device).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.0, eps=1e-7, fused=True)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        state: dict[str, Any] = {"model": model, "optimiser": optimiser, "scaler": scaler}
        state["record_sha256"] = self.record_sha256
        first_step = 0
        if resume:
            first_step = load_checkpoint(self.run, **state)

        def save(step: int) -> None:
            if self.ranks.is_first:
                save_checkpoint(self.run, step=step, **state)

        num_steps = config.optimiser.total_epochs * self.plan.steps_per_epoch
        last_step = min(num_steps, config.run.stop_after_steps or num_steps)
        meter, saved, stopped_by = _Meter(num_steps), -1, self.stop.signal
        step = first_step
        if step < last_step:  # else a finished run is resumed: nothing is opened, and nothing loaded
            with (
                self.open_stream(first_step, last_step - first_step) as stream,
                closing(self._open_scalars(first_step)) as scalars,  # later, as loading may be interrupted
                closing(Hooked(model, device, self.ranks)) as hooked,
                self.stop.hearing(),
            ):
                batches, unread = iter(stream), deque[_Step]()
                report = partial(self._report, meter, scalars, num_steps, last_step)
                while True:
                    # All end at the same step, whichever of them is asked to.
                    stopped_by = self.ranks.largest(self.stop.signal or 0) or None
                    if stopped_by is not None or step == last_step:
                        break
                    waiting_since = time.perf_counter()
                    batch = next(batches)
                    waited_seconds = time.perf_counter() - waiting_since
                    if batch.step != step:
                        raise RuntimeError(f"the stream delivered the batch of step {batch.step}, expected {step}")
                    rate = self._rate(step)
                    unread.append(self._step(hooked, optimiser, scaler, batch, rate, waited_seconds, precision))
                    step += 1
                    is_saved = step % config.run.checkpoint_every_steps == 0 or step == last_step
                    while len(unread) > (0 if is_saved else STEPS_UNREAD[device.type]):
                        report(unread.popleft(), scaler)
                    if is_saved:
                        save(step=step)
                        saved = step
                while unread:
                    report(unread.popleft(), scaler)
                if saved != step:
                    save(step=step)
        self.ranks.largest(0)  # nobody leaves before the last checkpoint is written
        return TrainingResult(run=self.run, steps=step, num_steps=num_steps, interrupted_by=stopped_by)

    def _open_scalars(self, first_step: int) -> Any:
        """TensorBoard's writer; in all processes but the first, something to close."""
        if not self.ranks.is_first:
            return io.StringIO()
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.run / "tensorboard"), purge_step=first_step + 1)

    def _rate(self, step: int) -> float:
        settings, per_epoch = self.config.optimiser, self.plan.steps_per_epoch
        total, rate = settings.total_epochs * per_epoch, settings.learning_rate * self.config.data.num_replicas
        return learning_rate(step, rate, settings.warmup_epochs * per_epoch, total)

    def _step(
        self,
        hooked: Hooked,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        batch: ClipBatch,
        rate: float,
        waited_seconds: float,
        precision: str,
    ) -> "_Step":
        """Do one optimiser step, or begin it on a GPU; nothing here waits for a GPU."""
        config, model, device = self.config, hooked.model, hooked.device
        seed = step_seed(config.run.seed, batch.step)
        _seed(seed, device)  # dropout
        generator = torch.Generator().manual_seed(seed)
        clips = batch.clips.to(device, non_blocking=True)
        # The batch's own labels may be on a GPU, and reading them would wait for it.
        labels = torch.from_numpy(self.plan.batch(batch.step).labels)  # [N]
        one_hot = functional.one_hot(self.ranks.own(labels), model.config.num_classes).float()  # [n, K]
        mixed = augment(clips, send(one_hot, device), config.optimiser, generator, self.ranks)
        with_classes = batch.step < config.optimiser.epochs * self.plan.steps_per_epoch
        with autocast(device, precision):
            embeddings, logits = hooked(mixed.frames, with_classes=with_classes)  # [n, 62, D], [n, 62, K]
        triplet = triplet_term(
            embeddings.float(), labels, config.optimiser, replicas=config.data.num_replicas, ranks=self.ranks
        )
        losses = loss_terms(model, triplet, logits, mixed.targets, config.optimiser)
        total = losses["total"]
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimiser)
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        for group in optimiser.param_groups:
            group["lr"] = rate
        scaler.step(optimiser)
        scaler.update()
        values = self.ranks.mean(torch.stack([*(value.detach() for value in losses.values()), norm]))
        return _Step(
            batch=batch,
            rate=rate,
            waited_seconds=waited_seconds,
            names=(*losses, "gradient_norm"),
            values=values.to("cpu", non_blocking=True),
            done=torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None,
        )

    def _report(
        self, meter: "_Meter", scalars: Any, num_steps: int, last_step: int, step: "_Step", scaler: torch.amp.GradScaler
    ) -> None:
        """Wait for a step and report its losses; raises AttenGaitError where one is not finite."""
        losses = step.read()
        # The loss scaler skips a step whose scaled gradients overflow and scales less, which it has done by now; it
        # cannot help below scale 1.
        finite_gradients = math.isfinite(losses["gradient_norm"]) or (scaler.is_enabled() and scaler.get_scale() >= 1)
        if not (math.isfinite(losses["total"]) and finite_gradients):
            self._refuse_nan(step.batch, step.rate, "loss" if finite_gradients else "gradient")
        done = step.batch.step + 1
        num_clips = len(step.batch.labels) * self.ranks.world_size
        report = meter.update(done, num_clips, step.waited_seconds, losses, step.rate)
        if not self.ranks.is_first:
            return
        if done % self.config.run.log_every_steps == 0 or done in (1, last_step):
            _write_scalars(scalars, report)
        self.progress.update("Training", done, num_steps, unit="steps", detail=report)

    def _refuse_nan(self, batch: ClipBatch, rate: float, what: str) -> None:
        sequences = self.plan.batch(batch.step).sequences  # of all processes
        names = ", ".join(dict.fromkeys(self.sequence_name(int(index)) for index in sequences))
        raise AttenGaitError(
            f"training stopped at step {batch.step}: the {what} is not finite (learning rate {rate:.3g}; sequences "
            f"{names}); the last checkpoint in {self.run} is kept, try a lower learning_rate or precision=fp32"
        )


def _check_memory(network: ModelConfig) -> None:
    """Raise AttenGaitError where a network is larger than the memory, before any of it is taken."""
    num_bytes = 4 * sum(math.prod(shape) for shape in shapes_of(network).values())
    available = available_memory_bytes()
    if available is not None and num_bytes > available:
        raise AttenGaitError(
            f"the network has {num_bytes / 1e9:,.1f} GB of weights, more than the {available / 1e9:,.1f} GB of memory "
            "that are left: choose a smaller size, num_classes or blocks_per_stage"
        )


def loss_terms(
    model: AttenGait, triplet: Tensor, logits: Tensor | None, targets: Tensor, settings: OptimiserSettings
) -> dict[str, Tensor]:
    """Return total, triplet, l2 and, where there are logits, cross_entropy, as float32 scalars.

    Of several processes, each has its own losses; their mean is the loss of the batch.

    logits [n, 62, K] or None, targets [n, K].
    """
    terms = {"triplet": triplet, "l2": l2_penalty(model, settings.l2_penalty)}
    if logits is not None:
        terms["cross_entropy"] = settings.cross_entropy_weight * cross_entropy(logits.float(), targets)
    return {"total": torch.stack(list(terms.values())).sum(), **terms}


def step_seed(seed: int, step: int) -> int:
    """Return the 63-bit seed of a step's dropout and augmentation (SplitMix64 of both numbers)."""
    mask = 2**64 - 1
    z = (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + 0x2545F4914F6CDD1D) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1


def _seed(seed: int, device: torch.device) -> None:
    """Seed torch's random numbers on the CPU and on one device; torch.manual_seed would seed every GPU."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _write_scalars(scalars: Any, report: StepReport) -> None:
    for name, value in {**report.losses, "learning_rate": report.learning_rate}.items():
        scalars.add_scalar(f"train/{name}", value, report.step)
    scalars.add_scalar("speed/clips_per_second", report.clips_per_second, report.step)
    scalars.add_scalar("speed/data_wait_share", report.data_wait_share, report.step)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A step that was done, or begun on a GPU."""

    batch: ClipBatch
    rate: float
    waited_seconds: float
    names: tuple[str, ...]
    values: Tensor
    """Of the losses, float32 on the CPU; right after `done`."""
    done: Any
    """A CUDA event; None on a CPU."""

    def read(self) -> dict[str, float]:
        """Wait for the losses."""
        if self.done is not None:
            self.done.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))


class _Meter:
    """Rates over the last steps, for the live line."""

    WINDOW_STEPS = 20

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.history: list[tuple[float, int, float]] = [(time.perf_counter(), 0, 0.0)]  # time, clips, waited seconds

    def update(
        self, step: int, num_clips: int, waited_seconds: float, losses: dict[str, float], rate: float
    ) -> StepReport:
        _, clips, waited = self.history[-1]
        self.history.append((time.perf_counter(), clips + num_clips, waited + waited_seconds))
        del self.history[: -self.WINDOW_STEPS - 1]
        (start, clips_before, waited_before), (end, clips, waited) = self.history[0], self.history[-1]
        seconds = end - start
        return StepReport(
            step=step,
            num_steps=self.num_steps,
            learning_rate=rate,
            losses=losses,
            clips_per_second=(clips - clips_before) / seconds,
            data_wait_share=(waited - waited_before) / seconds,
            remaining_seconds=(self.num_steps - step) * seconds / (len(self.history) - 1),
        )
