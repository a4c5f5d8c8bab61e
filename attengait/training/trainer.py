"""The training loop: any iterable of batches in, checkpoints and values for loggers out.

One step: clips and labels -> augmentation -> embeddings [N, 62, D] and logits [N, 62, K] -> triplet + cross entropy +
L2 penalty -> optimiser. Everything random in a step is seeded by (seed, step), so that a resumed run continues with the
very same numbers as an undisturbed one.

Several processes may share the batch of each step (`attengait.training.ranks`). What is random is drawn for all of it,
so that the numbers do not depend on how many processes there are.

N clips of a batch, n of them in this process; K classes, D features per part.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attengait.errors import AttenGaitError
from attengait.model.loading import check_memory
from attengait.model.losses import send, smoothed
from attengait.model.net import PARTS, AttenGait
from attengait.model.precision import computing, resolve_device
from attengait.sampling.plan import BatchPlan, ClipBatch
from attengait.system.progress import SILENT, Progress
from attengait.system.stopping import StopRequest
from attengait.training import transforms
from attengait.training.augment import augment
from attengait.training.average import WeightAverage
from attengait.training.checkpoint import load_checkpoint, save_checkpoint
from attengait.training.config import TrainingConfig
from attengait.training.graphs import StepGraphs, why_without
from attengait.training.hooked import Hooked
from attengait.training.initial import begin_with
from attengait.training.losses import PER_PART, StepInputs, StepLosses, seed_random
from attengait.training.margins import AdaptiveMargins
from attengait.training.optimisers import clip, make_optimiser
from attengait.training.ranks import ALONE, Ranks, lost
from attengait.training.schedule import learning_rate
from attengait.training.step_report import LOSS_SCALE, Meter, Step
from attengait.training.triplets import pairs_of_groups
from attengait.training.watching import Draw, Validate, Watch

OpenStream = Callable[[int, int], AbstractContextManager[Iterator[ClipBatch]]]
"""(first step, number of steps) -> this process's slices of the batches of those steps, in order."""


_OWN_DRAWS = 0x5DEECE66D
"""Makes another seed of a step's seed."""
STEPS_UNREAD = {"cpu": 0, "cuda": 1}
"""So many steps may be begun after one whose losses were not read yet, so that a GPU never waits for Python."""


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
    is_stopped_early: bool = False
    """Whether validations did not become better any more."""

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
    about: Mapping[str, Any] = field(default_factory=dict)
    """The summary of the run, for its loggers."""
    validate: Validate | None = None
    """Recognises the held-out subjects, if the settings say so."""
    draw: Draw | None = None
    """Draws the first batch."""
    ranks: Ranks = ALONE
    """The processes that train the run. The first of them writes its files, validates and reports its progress."""

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
        seed_random(config.run.seed, device)
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
        num_steps = config.optimiser.total_epochs * self.plan.steps_per_epoch
        watch = self._watch(num_steps, device)
        average = WeightAverage(model, config.update.ema_decay) if config.update.ema_decay else None
        is_adaptive = config.optimiser.adaptive_margin
        margins = AdaptiveMargins(config.optimiser.margin, PARTS, device) if is_adaptive else None
        state: Any = {"model": model, "optimiser": optimiser, "scaler": scaler, "average": average, "margins": margins}
        state |= {"record_sha256": self.record_sha256, "validation": watch.best}
        first_step = load_checkpoint(self.run, **state, earlier_sha256=self.earlier_sha256) if resume else 0
        self.ranks.check_same("the checkpoint", str(first_step))

        def save(step: int) -> None:
            if self.ranks.is_first:
                save_checkpoint(self.run, step=step, **state)

        def look(step: int) -> float:
            with average.in_place(model) if average and watch.is_due(step) else nullcontext():
                return watch.look(model, step)

        last_step = min(num_steps, config.run.stop_after_steps or num_steps)
        saved = -1
        stopped_by, is_over = self.stop.signal, watch.is_over
        step = first_step
        # Else a finished run is resumed: nothing is opened, and nothing loaded.
        if (step < last_step or watch.is_missed(step)) and not watch.is_over:
            with (
                self.open_stream(first_step, last_step - first_step) if step < last_step else _no_batches() as stream,
                watch.watching(first_step),  # later, as loading may be interrupted
                closing(Hooked(model, device, self.ranks, num_parts=config.update.accumulate_steps)) as hooked,
                closing(
                    StepGraphs(
                        compute=StepLosses(
                            hooked=hooked,
                            scaler=scaler,
                            margins=margins,
                            precision=precision,
                            settings=config.optimiser,
                            replicas=config.data.num_replicas,
                            ranks=self.ranks,
                        ),
                        parameters=list(model.parameters()),
                        device=device,
                        why_not=why_without(config, device, self.ranks),
                    )
                ) as graphs,
                self.stop.hearing(),
            ):
                watch.graphs = graphs
                batches, unread = iter(stream), deque[Step]()
                meter = Meter(num_steps)  # loading is over
                report = partial(self._report, meter, watch, num_steps, last_step)
                meter.leave_out(look(step))  # a validation that was asked to stop is made up for
                while True:
                    # All end at the same step, whichever of them is asked to, or has validated.
                    stopped_by, is_over = self.ranks.any_stops(self.stop.signal, is_over=watch.is_over)
                    watch.stopped_by = stopped_by
                    if stopped_by is not None or is_over or step == last_step:
                        break
                    waiting_since = time.perf_counter()
                    batch = next(batches)
                    waited_seconds = time.perf_counter() - waiting_since
                    if batch.step != step:
                        raise RuntimeError(f"the stream delivered the batch of step {batch.step}, expected {step}")
                    watch.see(batch)
                    rate = self._rate(step)
                    unread.append(self._step(hooked, graphs, optimiser, scaler, margins, batch, rate, waited_seconds))
                    step += 1
                    if average is not None:
                        average.update(model, step)
                    is_saved = step % config.run.checkpoint_every_steps == 0 or step == last_step
                    while len(unread) > (0 if is_saved or watch.is_due(step) else STEPS_UNREAD[device.type]):
                        report(unread.popleft())
                    meter.leave_out(look(step))
                    if is_saved:
                        save(step=step)
                        saved = step
                        watch.keep(step)
                while unread:
                    report(unread.popleft())
                if saved != step:
                    save(step=step)
                    watch.keep(step)
        self.ranks.largest(0)  # nobody leaves before the last checkpoint is written
        return TrainingResult(
            run=self.run,
            steps=step,
            num_steps=num_steps,
            interrupted_by=stopped_by,
            is_stopped_early=is_over and step < num_steps,
        )

    def _watch(self, num_steps: int, device: torch.device) -> Watch:
        return Watch(
            run=self.run,
            settings=self.config.run,
            num_steps=num_steps,
            device=device,
            record_sha256=self.record_sha256,
            about=self.about,
            validate=self.validate,
            draw=self.draw,
            is_on=self.ranks.is_first,
        )

    def _rate(self, step: int) -> float:
        settings, per_epoch = self.config.optimiser, self.plan.steps_per_epoch
        total, rate = settings.total_epochs * per_epoch, settings.learning_rate * self.config.data.num_replicas
        warmup, schedule = settings.warmup_epochs * per_epoch, self.config.update.schedule
        return learning_rate(step, rate, warmup, total, schedule=schedule)

    def _step(
        self,
        hooked: Hooked,
        graphs: StepGraphs,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        margins: AdaptiveMargins | None,
        batch: ClipBatch,
        rate: float,
        waited_seconds: float,
    ) -> Step:
        """Do one optimiser step, or begin it on a GPU; nothing here waits for a GPU."""
        config, model, device = self.config, hooked.model, hooked.device
        seed = step_seed(config.run.seed, batch.step)
        generator = torch.Generator().manual_seed(seed)
        clips = self._changed(batch.clips.to(device, non_blocking=True), seed)
        # The batch's own labels may be on a GPU, and reading them would wait for it.
        labels = torch.from_numpy(self.plan.batch(batch.step).labels)  # [N]
        one_hot = functional.one_hot(self.ranks.own(labels), model.config.num_classes).float()  # [n, K]
        one_hot = smoothed(one_hot, config.optimiser.label_smoothing)
        mixed = augment(clips, send(one_hot, device), config.optimiser, generator, self.ranks)
        replicas = config.data.num_replicas
        inputs = StepInputs(
            frames=mixed.frames,
            targets=mixed.targets,
            pairs=pairs_of_groups(labels, config.optimiser, replicas=replicas, ranks=self.ranks, device=device),
            with_classes=batch.step < config.optimiser.epochs * self.plan.steps_per_epoch,
        )
        losses = graphs(inputs, seed)
        per_part = losses.pop(PER_PART)
        if margins is not None:
            margins.update(self.ranks.sum(per_part))  # a part is idle where it is so in all groups and processes
        scaler.unscale_(optimiser)
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        clip(model.parameters(), norm, config.update.max_gradient_norm)
        for group in optimiser.param_groups:
            group["lr"] = rate
        scaler.step(optimiser)
        scaler.update()
        # The scale of the next step, as a tensor, since reading it would wait for a GPU.
        scale = scaler.scale(torch.ones_like(norm)) if scaler.is_enabled() else torch.full_like(norm, math.nan)
        values = self.ranks.mean(torch.stack([*losses.values(), norm, scale]))
        return Step(
            batch=batch,
            rate=rate,
            waited_seconds=waited_seconds,
            names=(*losses, "gradient_norm", LOSS_SCALE),
            values=values.to("cpu", non_blocking=True),
            done=torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None,
        )

    def _changed(self, clips: Tensor, seed: int) -> Tensor:
        """Clips changed by the augmentation that is off by default; its draws are its own, so that others stay."""
        share, num_clips = len(clips), len(clips) * self.ranks.world_size
        generator = torch.Generator().manual_seed(seed ^ _OWN_DRAWS)
        changes = transforms.draw(self.config.augment, num_clips, clips.shape[1], generator)
        changes = changes.share(self.ranks.rank * share, (self.ranks.rank + 1) * share)
        return transforms.apply(clips, changes, self.channel_names)

    def _report(self, meter: Meter, watch: Watch, num_steps: int, last_step: int, step: Step) -> None:
        """Wait for a step and report its losses; raises AttenGaitError where one is not finite."""
        losses = step.read()
        scale = losses.pop(LOSS_SCALE)
        # The loss scaler skips a step whose scaled gradients overflow and scales less, which it has done by now; it
        # cannot help below scale 1.
        finite_gradients = math.isfinite(losses["gradient_norm"]) or scale >= 1
        if not (math.isfinite(losses["total"]) and finite_gradients):
            self._refuse_nan(step.batch, step.rate, "loss" if finite_gradients else "gradient")
        done = step.batch.step + 1
        num_clips = len(step.batch.labels) * self.ranks.world_size
        report = meter.update(done, num_clips, step.waited_seconds, losses, step.rate, scale)
        is_logged = done % self.config.run.log_every_steps == 0 or done in (1, last_step)
        watch.hear(done, report.values, is_logged=is_logged)
        if is_logged:
            meter.skipped_steps = 0
        self.progress.update("Training", done, num_steps, unit="steps", detail=report)

    def _refuse_nan(self, batch: ClipBatch, rate: float, what: str) -> None:
        sequences = self.plan.batch(batch.step).sequences  # of all processes
        names = ", ".join(dict.fromkeys(self.sequence_name(int(index)) for index in sequences))
        raise AttenGaitError(
            f"training stopped at step {batch.step}: the {what} is not finite (learning rate {rate:.3g}; sequences "
            f"{names}); the last checkpoint in {self.run} is kept, try a lower learning_rate or precision=fp32"
        )


def _no_batches() -> AbstractContextManager[Iterator[ClipBatch]]:
    """The stream of a run of which only a validation is left to do."""
    return nullcontext(iter(()))


def step_seed(seed: int, step: int) -> int:
    """Return the 63-bit seed of a step's dropout and augmentation (SplitMix64 of both numbers)."""
    mask = 2**64 - 1
    z = (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + 0x2545F4914F6CDD1D) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1
