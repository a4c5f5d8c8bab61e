"""A store, a stream and the model put together: train a run. The library call behind `attengait train`."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

from attengait.errors import AttenGaitError, require
from attengait.model.config import FRAME_PIXELS
from attengait.model.precision import resolve_device
from attengait.pipelines.cache import choose_together, open_clips
from attengait.pipelines.channels import only_channels
from attengait.pipelines.run_folder import continued, is_begun, locked_folder
from attengait.pipelines.runs import identity_of, memory_errors, subjects_of
from attengait.pipelines.training_set import choose_subjects, partition_subjects
from attengait.pipelines.validate import open_validator
from attengait.report.contact_sheet import draw_clips
from attengait.sampling.plan import BatchPlan, ClipBatch
from attengait.sampling.selection import some_of
from attengait.store import Store, open_store
from attengait.store.description import channel_names, select_channels
from attengait.store.joined import JoinedStores, join_stores, store_name
from attengait.store.opening import AnyStore
from attengait.system.files import check_outside_stores
from attengait.system.progress import SILENT, Progress
from attengait.system.stopping import StopRequest
from attengait.training.checkpoint import RunRecord, read_record, write_record
from attengait.training.config import TrainingConfig, load_preset, make_config, settings_of
from attengait.training.config_file import read_settings
from attengait.training.graphs import why_without
from attengait.training.partition import read_partition
from attengait.training.ranks import Ranks, joined_ranks
from attengait.training.summary import summarise, summary_lines
from attengait.training.trainer import Trainer, TrainingResult

_log = logging.getLogger(__name__)


def train(
    stores: AnyStore | Sequence[AnyStore],
    out: str | Path,
    *,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    partition: str | Path | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
    stop: StopRequest | None = None,
) -> TrainingResult:
    """Train AttenGait on a store, or on several together. The same as `attengait train`.

    Args:
        stores: a store or a list of stores: paths, URLs, open stores, or what `attengait.preprocess` returned.
        out: the folder of the run, which is made: settings, checkpoints, weights, and the values of the steps.
        preset: settings to start from: demo, casia-b, grew or oumvlp.
        settings: changes on top of these, such as {"epochs": 10, "train_subjects": ("001-074",)}. They are listed by
            `attengait train --show-settings`.
        partition: a JSON file of OpenGait. Subjects in its TRAIN_SET are trained on, and subjects in neither TRAIN_SET
            nor TEST_SET are left out. It goes with one store, and with no train_subjects in `settings`.
        resume: continue the run in `out` from its checkpoint, as if it had never stopped.
        progress: hears how far it is.
        stop: another thread may set it to end the run after its step, with a checkpoint.

    Returns:
        Where the run is and how many steps are done. `attengait.load_model` and `attengait.embed` take it.

    Raises:
        ParameterError: a setting that is unknown, out of range, or does not fit the stores; a preset of another data
            set than the store's.
        AttenGaitError: a folder that holds a run already, or another; stores that cannot be opened or joined, or are
            not those of the run that is continued; too little memory; a loss that is not finite.

    >>> settings = {"subjects_per_batch": 2, "stop_after_steps": 1}
    >>> result = attengait.train(store, "runs/first", preset="demo", settings=settings)
    >>> result.steps
    1
    """
    config = choose_settings(Path(out), preset=preset, settings=settings or {}, partition=partition, resume=resume)
    return train_run(stores, Path(out), config, partition=partition, resume=resume, progress=progress, stop=stop)


def choose_settings(
    run: Path,
    *,
    preset: str | None,
    settings: Mapping[str, Any],
    partition: str | Path | None = None,
    resume: bool = False,
    config_file: Path | None = None,
) -> TrainingConfig:
    """Return the settings of a run: the defaults or those of the run that is continued, a preset, a file, and changes.

    Raises ParameterError for a wrong setting, and where a partition and the others both choose the subjects;
    AttenGaitError for a run or a file that is not there, and a partition that is none.
    """
    settings = (read_settings(config_file) if config_file else {}) | dict(settings)
    is_one = partition is None or "train_subjects" not in settings
    require(is_one, "partition", str(partition), "left out where train_subjects is set")
    if partition is not None:
        read_partition(partition)
    chosen = settings_of(TrainingConfig())
    before = settings_of(read_record(run).config) if resume else {}
    if resume and preset is None:
        # Where the former command was to stop, and what it was to record, says nothing about this one.
        chosen = before | {"stop_after_steps": 0, "profile_steps": 0}
    if preset is not None:
        chosen |= load_preset(preset)
    if "train_subjects" in settings:
        chosen["known_subjects"] = ()  # they go with the preset's train_subjects
    if resume and partition is None:  # with one, those of the preset say who may be absent
        chosen["known_subjects"] = before["known_subjects"]  # version 0.1.0 had none
    if resume:
        chosen["replicas"] = max(1, before["replicas"])  # earlier versions trained one, and did not say so
    return make_config(chosen | settings)


def train_run(
    stores: AnyStore | Sequence[AnyStore],
    run: Path,
    config: TrainingConfig,
    *,
    partition: str | Path | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
    stop: StopRequest | None = None,
) -> TrainingResult:
    """Train on a store, or several together, into the folder `run`, which is made; with `resume`, continue what is
    there.

    Raises ParameterError for settings that do not fit the store, AttenGaitError for a folder that already holds a run
    (without `resume`) or something else, that another process trains in, or whose run differs in a setting or in its
    store, and when memory does not suffice. The precision `auto` is decided here and recorded. Where frames are kept
    is decided after the model is on its device; the log says what was decided, and why. `partition` is a JSON file of
    OpenGait, whose training set is used instead of the settings'.

    Under torchrun, each process calls this. The first one has the lock, writes the files and reports the progress.
    """
    with joined_ranks() as ranks:
        return _train_run(
            stores,
            run,
            config,
            partition=partition,
            resume=resume,
            progress=progress if ranks.is_first else SILENT,
            stop=stop or StopRequest(),
            ranks=ranks,
        )


def _train_run(
    stores: AnyStore | Sequence[AnyStore],
    run: Path,
    config: TrainingConfig,
    *,
    partition: str | Path | None,
    resume: bool,
    progress: Progress,
    stop: StopRequest,
    ranks: Ranks,
) -> TrainingResult:
    """The part of one process."""
    with ranks.all_or_none():
        if resume:
            read_record(run)
        device, precision = resolve_device(ranks.device(config.run.device), config.run.precision)
        replicas = config.data.replicas or ranks.world_size
        config = make_config(settings_of(config) | {"precision": precision, "replicas": replicas})
        store = open_stores(stores)
        parts = store.stores if isinstance(store, JoinedStores) else [store]
        if partition is not None:
            config = partition_subjects(config, partition, store)
        held_out = choose_subjects(store, config)[1]
        # By name, so that the record says who they are.
        config = make_config(settings_of(config) | {"validation_subjects": tuple(held_out)})
        plan = batch_plan(store, config)
        plan.batch(0, ranks.rank, ranks.world_size)  # refused where it cannot be divided
        names = channel_names(parts[0].attributes, store.frame_shape[2])
        channels = select_channels(names, config.data.channels)
        if ranks.is_first:
            _say_what_is_trained(config, plan, store, ranks)
        record = RunRecord(config=config, subjects=list(plan.subjects), store=identity_of(store))
        if not resume:
            check_outside_stores(run, "out")
        if not resume and run.exists() and not is_begun(run):
            raise AttenGaitError(f"{run} exists already and is no folder of a training run: choose another --out")
    # What decides when a process stops is not in the record: one that went on alone would wait for the others.
    when = [config.run.stop_after_steps, config.run.validate_every_steps, config.run.early_stopping_validations]
    ranks.check_same("what is to be trained by the store and settings", f"{record.sha256} {when}")
    data = config.data
    batch = f"{data.subjects_per_batch} x {data.clips_per_subject} clips of {data.clip_frames} frames"
    advice = f"choose smaller batches than {batch}, or a smaller size than {config.model.size}"
    with locked_folder(run) if ranks.is_first else nullcontext(), memory_errors(advice):
        with ranks.all_or_none():
            before = read_record(run) if resume else record
            if resume:
                record = continued(run, before, record)
            elif (run / "checkpoint.pt").exists():
                raise AttenGaitError(
                    f"{run} already holds a training run: continue it with --resume or choose another --out"
                )
            validator = open_validator(
                store, config, channels, device=device, precision=precision, progress=progress, stop=stop
            )
        input_channels = tuple(names[i] for i in channels) if config.data.channels else ()
        about = summarise(
            config,
            config.model.network(
                channels=len(channels), num_subjects=len(plan.subjects), input_channels=input_channels
            ),
            plan,
            store.sequences,
            device=device,
            precision=precision,
            stores=[store_name(part.location) for part in parts],
            fingerprint=record.store,
            protocol=None if validator is None else validator.protocol,
            why_no_graphs=why_without(config, device, ranks),
        )
        for line in summary_lines(about) if ranks.is_first else ():
            _log.info("%s", line)
        with store.reader(check_frames=config.run.check_frames) as reader:

            def open_stream(start_step: int, num_steps: int) -> AbstractContextManager[Iterator[ClipBatch]]:
                choice = choose_together(config.run.cache, parts, device, ranks)
                _log.info("%s", choice.reason)
                clips = open_clips(
                    choice.cache,
                    reader,
                    store.sequences,
                    plan,
                    start_step=start_step,
                    num_steps=num_steps,
                    device=device,
                    progress=progress,
                    ranks=ranks,
                )
                is_new = not resume or record.earlier != before.earlier
                if is_new and ranks.is_first:
                    write_record(run, record)  # only now, so that a run that is interrupted before leaves nothing
                return only_channels(clips, channels)

            trainer = Trainer(
                config=config,
                run=run,
                plan=plan,
                channels=len(channels),
                channel_names=tuple(names[i] for i in channels),
                input_channels=input_channels,
                record_sha256=record.sha256,
                earlier_sha256=tuple(entry["sha256"] for entry in record.earlier),
                open_stream=open_stream,
                sequence_name=store.sequences.name,
                progress=progress,
                stop=stop,
                about=about,
                validate=validator,
                draw=lambda batch: draw_clips(
                    batch.clips.cpu().numpy(),
                    [store.sequences.name(int(index)) for index in batch.sequences],
                    channels=[names[i] for i in channels],
                    attributes=parts[0].attributes,
                ),
                ranks=ranks,
            )
            return trainer.train(resume=resume)


def _say_what_is_trained(config: TrainingConfig, plan: BatchPlan, store: Store | JoinedStores, ranks: Ranks) -> None:
    if plan.dropped_subjects:
        _log.warning(
            "%s subjects have no sequence %s and are left out: %s",
            len(plan.dropped_subjects),
            plan.requirement,
            some_of(plan.dropped_subjects),
        )
    if plan.num_too_short:
        least = plan.rules.least_frames(plan.clip_frames)
        is_by_setting = plan.rules.repeat_short or least > plan.clip_frames
        _log.info(
            "%s of the sequences of these subjects have fewer than the %s frames of %s",
            plan.num_too_short,
            least,
            "min_frames and are not used" if is_by_setting else "a clip and are not used; repeat_short=true uses them",
        )
    _log.info("trains on %s of %s subjects", len(plan.subjects), len(subjects_of(store)))
    data, rate = config.data, config.optimiser.learning_rate
    warmup, epochs = config.optimiser.warmup_epochs, config.optimiser.total_epochs
    if warmup >= epochs:
        _log.warning(
            "warmup_epochs is %s, but the run has %s epochs: the learning rate rises to the end without reaching %.4g",
            warmup,
            epochs,
            data.num_replicas * rate,
        )
    if data.num_replicas > 1 or not ranks.is_alone:
        _log.info(
            "a step is %s x %s clips on %s processes: %s replicas of %s x %s; the learning rate is %.4g: %s times "
            "%.4g; triplets are formed %s",
            plan.subjects_per_batch,
            plan.clips_per_subject,
            ranks.world_size,
            data.num_replicas,
            data.subjects_per_batch,
            data.clips_per_subject,
            data.num_replicas * rate,
            data.num_replicas,
            rate,
            "with all clips of a step" if config.optimiser.triplets == "global" else "within each replica",
        )


def open_stores(where: AnyStore | Sequence[AnyStore]) -> Store | JoinedStores:
    """Open what is trained on: a store, or several as one.

    Raises AttenGaitError for stores that cannot be opened or joined, or whose pictures no model takes.
    """
    several = isinstance(where, (list, tuple))
    places = cast("Sequence[AnyStore]", where if several else [where])
    stores = [open_store(place) for place in places]
    for store in stores:
        _check_size(store)
    return stores[0] if len(stores) == 1 else join_stores(stores)


def batch_plan(store: Store | JoinedStores, config: TrainingConfig) -> BatchPlan:
    """Return the plan of a run's batches over a store, or several."""
    data = config.data
    return BatchPlan(
        store.sequences,
        choose_subjects(store, config)[0],
        subjects_per_batch=data.subjects_per_batch,
        replicas=data.num_replicas,
        clips_per_subject=data.clips_per_subject,
        clip_frames=data.clip_frames,
        seed=config.run.seed,
        rules=data.rules,
    )


def _check_size(store: Store) -> None:
    """Raise AttenGaitError for a store whose pictures no model takes."""
    height, width, _ = store.frame_shape
    if (height, width) != (FRAME_PIXELS, FRAME_PIXELS):
        raise AttenGaitError(
            f"{store.location} has frames of {height} x {width} pixels, but the model takes {FRAME_PIXELS} x "
            f"{FRAME_PIXELS}"
        )
