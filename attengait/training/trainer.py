"""The training loop: any iterable of batches in, checkpoints and TensorBoard scalars out.

One step: clips and labels -> augmentation -> embeddings [N, 62, D] and logits [N, 62, K] -> triplet + cross entropy +
L2 penalty -> optimiser. Everything random in a step is seeded by (seed, step), so that a resumed run continues with the
very same numbers as an undisturbed one.
"""

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
from attengait.model.loading import check_memory
from attengait.model.losses import cross_entropy, l2_penalty, send, smoothed, triplet_loss_per_part
from attengait.model.net import PARTS, AttenGait
from attengait.model.precision import autocast, computing, resolve_device
from attengait.sampling.plan import BatchPlan, ClipBatch
from attengait.system.progress import SILENT, Progress, duration
from attengait.system.stopping import StopRequest
from attengait.training import transforms
from attengait.training.augment import augment
from attengait.training.average import WeightAverage
from attengait.training.checkpoint import load_checkpoint, save_checkpoint
from attengait.training.config import OptimiserSettings, TrainingConfig
from attengait.training.initial import begin_with
from attengait.training.margins import AdaptiveMargins
from attengait.training.micro_batches import MicroBatches
from attengait.training.optimisers import clip, make_optimiser
from attengait.training.schedule import learning_rate

OpenStream = Callable[[int, int], AbstractContextManager[Iterator[ClipBatch]]]
"""(first step, number of steps) -> the batches of those steps, in order."""


_OWN_DRAWS = 0x5DEECE66D
"""Makes another seed of a step's seed."""
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
    """One run on one device. `run` must be a folder that exists."""

    config: TrainingConfig
    run: Path
    plan: BatchPlan
    channels: int
    """Of the clips."""
    open_stream: OpenStream
    sequence_name: Callable[[int], str]
    channel_names: tuple[str, ...] = ()
    """Names of the clips' channels, such as flow-u; empty where they are not known."""
    input_channels: tuple[str, ...] = ()
    """The same, where these are only some of the store's."""
    record_sha256: str = ""
    """The digest of the run's record, to which weights and checkpoints are bound; empty where there is none."""
    earlier_sha256: tuple[str, ...] = ()
    """Its digests before the run was made longer."""
    progress: Progress = SILENT
    stop: StopRequest = field(default_factory=StopRequest)
    """Looked at between two steps: a run that is asked to stop leaves a checkpoint and ends."""

    def train(self, *, resume: bool = False) -> TrainingResult:
        """Train from the start, or from the run's checkpoint, to the end, a stop setting or a request to stop.

        On a CPU it is faster after `attengait.system.memory.keep_freed_memory()`, which the command line calls.

        Raises AttenGaitError when a loss or gradient is not finite, naming the step, the batch's sequences and the
        learning rate, where the last checkpoint stays (on a GPU, this is seen one step later); and where the setting
        `deterministic` is not possible.
        """
        config = self.config
        device, precision = resolve_device(config.run.device, config.run.precision)
        # The caller's random state stays as it is. Only this device and the CPU are seeded.
        with (
            computing(device, precision, deterministic=config.run.deterministic),
            torch.random.fork_rng([device] if device.type == "cuda" else []),
        ):
            return self._train(device, precision, resume=resume)

    def _train(self, device: torch.device, precision: str, *, resume: bool) -> TrainingResult:
        config = self.config
        _seed(config.run.seed, device)
        network = config.model.network(
            channels=self.channels, num_subjects=len(self.plan.subjects), input_channels=self.input_channels
        )
        check_memory(network)
        transforms.check_channels(config.augment, self.channel_names or tuple(map(str, range(self.channels))))
        model = AttenGait(network)
        if config.run.init and not resume:
            begin_with(model, config.run.init, self.plan.subjects)
        model = model.to(device).train()
        model.recompute_frames = config.update.recompute_frames
        optimiser = make_optimiser(config.update, model.parameters())
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        average = WeightAverage(model, config.update.ema_decay) if config.update.ema_decay else None
        is_adaptive = config.optimiser.adaptive_margin
        margins = AdaptiveMargins(config.optimiser.margin, PARTS, device) if is_adaptive else None
        state: Any = {"model": model, "optimiser": optimiser, "scaler": scaler, "average": average, "margins": margins}
        state["record_sha256"] = self.record_sha256
        first_step = load_checkpoint(self.run, **state, earlier_sha256=self.earlier_sha256) if resume else 0
        save = partial(save_checkpoint, self.run, **state)

        num_steps = config.optimiser.total_epochs * self.plan.steps_per_epoch
        last_step = min(num_steps, config.run.stop_after_steps or num_steps)
        meter, saved = _Meter(num_steps), -1
        step = first_step
        if step < last_step:  # else a finished run is resumed: nothing is opened, and nothing loaded
            with (
                self.open_stream(first_step, last_step - first_step) as stream,
                closing(_open_scalars(self.run, first_step)) as scalars,  # later, as loading may be interrupted
                self.stop.hearing(),
            ):
                batches, unread = iter(stream), deque[_Step]()
                report = partial(self._report, meter, scalars, num_steps, last_step)
                while step < last_step and self.stop.signal is None:
                    waiting_since = time.perf_counter()
                    batch = next(batches)
                    waited_seconds = time.perf_counter() - waiting_since
                    if batch.step != step:
                        raise RuntimeError(f"the stream delivered the batch of step {batch.step}, expected {step}")
                    rate = self._rate(step)
                    unread.append(
                        self._step(model, optimiser, scaler, margins, batch, rate, waited_seconds, device, precision)
                    )
                    step += 1
                    if average is not None:
                        average.update(model, step)
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
        return TrainingResult(run=self.run, steps=step, num_steps=num_steps, interrupted_by=self.stop.signal)

    def _rate(self, step: int) -> float:
        settings, per_epoch = self.config.optimiser, self.plan.steps_per_epoch
        total = settings.total_epochs * per_epoch
        warmup, schedule = settings.warmup_epochs * per_epoch, self.config.update.schedule
        return learning_rate(step, settings.learning_rate, warmup, total, schedule=schedule)

    def _step(
        self,
        model: AttenGait,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        margins: AdaptiveMargins | None,
        batch: ClipBatch,
        rate: float,
        waited_seconds: float,
        device: torch.device,
        precision: str,
    ) -> "_Step":
        """Do one optimiser step, or begin it on a GPU; nothing here waits for a GPU."""
        config = self.config
        seed = step_seed(config.run.seed, batch.step)
        generator = torch.Generator().manual_seed(seed)
        clips = self._changed(batch.clips.to(device, non_blocking=True), seed)
        # The batch's own labels may be on a GPU, and reading them would wait for it.
        labels = torch.from_numpy(self.plan.batch(batch.step).labels)
        one_hot = functional.one_hot(labels, model.config.num_classes).float()  # [N, K]
        one_hot = smoothed(one_hot, config.optimiser.label_smoothing)
        mixed = augment(clips, send(one_hot, device), config.optimiser, generator)
        with_classes = batch.step < config.optimiser.epochs * self.plan.steps_per_epoch

        def embed(frames: Tensor) -> Tensor:
            _seed(seed, device)  # dropout
            with autocast(device, precision):
                embeddings: Tensor = model(frames)
            return embeddings

        whole = MicroBatches(embed, mixed.frames, config.update.accumulate_steps)
        embeddings = whole.embeddings  # [N, 62, D]
        logits = model.classify(embeddings) if with_classes else None  # [N, 62, K]
        losses = loss_terms(model, embeddings, logits, labels, mixed.targets, config.optimiser, margins)
        total = losses["total"]
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        whole.backward()
        scaler.unscale_(optimiser)
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        clip(model.parameters(), norm, config.update.max_gradient_norm)
        for group in optimiser.param_groups:
            group["lr"] = rate
        scaler.step(optimiser)
        scaler.update()
        values = torch.stack([*(value.detach() for value in losses.values()), norm])
        return _Step(
            batch=batch,
            rate=rate,
            waited_seconds=waited_seconds,
            names=(*losses, "gradient_norm"),
            values=values.to("cpu", non_blocking=True),
            done=torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None,
        )

    def _changed(self, clips: Tensor, seed: int) -> Tensor:
        """Clips changed by the augmentation that is off by default; its draws are its own, so that others stay."""
        settings, num_clips = self.config.augment, len(clips)
        generator = torch.Generator().manual_seed(seed ^ _OWN_DRAWS)
        changes = transforms.draw(settings, num_clips, clips.shape[1], generator)
        return transforms.apply(clips, changes, self.channel_names)

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
        report = meter.update(done, len(step.batch.labels), step.waited_seconds, losses, step.rate)
        if done % self.config.run.log_every_steps == 0 or done in (1, last_step):
            _write_scalars(scalars, report)
        self.progress.update("Training", done, num_steps, unit="steps", detail=report)

    def _refuse_nan(self, batch: ClipBatch, rate: float, what: str) -> None:
        names = ", ".join(dict.fromkeys(self.sequence_name(int(index)) for index in batch.sequences))
        raise AttenGaitError(
            f"training stopped at step {batch.step}: the {what} is not finite (learning rate {rate:.3g}; sequences "
            f"{names}); the last checkpoint in {self.run} is kept, try a lower learning_rate or precision=fp32"
        )


def loss_terms(
    model: AttenGait,
    embeddings: Tensor,
    logits: Tensor | None,
    labels: Tensor,
    targets: Tensor,
    settings: OptimiserSettings,
    margins: AdaptiveMargins | None = None,
) -> dict[str, Tensor]:
    """Return total, triplet, l2 and, where there are logits, cross_entropy, as float32 scalars.

    embeddings [N, 62, D], logits [N, 62, K] or None, labels int64 [N] on the CPU, targets [N, K]. The margins, if any,
    are used instead of the settings', and may grow.
    """
    per_part = triplet_loss_per_part(
        embeddings.float(),
        labels,
        margin=settings.margin if margins is None else margins.values,
        soft_margin=settings.soft_margin,
        normalised=settings.normalise_embeddings,
    )
    if margins is not None:
        margins.update(per_part)
    terms = {"triplet": per_part.sum() / len(embeddings), "l2": l2_penalty(model, settings.l2_penalty)}
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


def _open_scalars(run: Path, first_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)


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
