"""The settings of a training run: a preset (a TOML file that one can read) and `key=value` changes on top of it.

In Python they are six groups: data, model, optimiser, update, augment and run. Presets, `--set` and the config.json of
a run use one flat list of keys, the names of the groups' fields: `learning_rate` is `config.optimiser.learning_rate`.
`make_config` and `settings_of` translate between the two. Each group checks its own values.
"""

import json
import logging
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from attengait.errors import require
from attengait.model.config import MAX_WIDTH, SIZES, ModelConfig, ModelOptions
from attengait.model.run_folder import RUNTIME_SETTINGS
from attengait.sampling.rules import ClipRules
from attengait.system.lookup import check_name
from attengait.training.settings import ALIASES, AugmentSettings, UpdateSettings

_log = logging.getLogger(__name__)

Group = TypeVar("Group")

TRIPLETS = ("replica", "global")
PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
CACHES = ("auto", "none", "host", "gpu")

MIN_FRAMES = 16
"""Of a clip: the longest window of the temporal pyramid."""
_MAX_NUMBER = 2**64
"""Of whole numbers: what the libraries that get a setting can hold. Each setting has its own bounds beside this one."""


@dataclass(kw_only=True, slots=True, frozen=True)
class DataSettings:
    """What a run is trained on, and the shape of its batches. Raises ParameterError for a value out of range."""

    train_subjects: tuple[str, ...] = ()
    """Subjects trained on: names, ranges such as 001-074 or 00001-10305/2 (every second), and patterns such as *train;
    empty: all of the store. All others are test subjects."""
    exclude_subjects: tuple[str, ...] = ()
    """Subjects that are neither trained on nor test subjects."""
    validation_subjects: tuple[str, ...] = ()
    """Training subjects that are held out: a validation recognises them, and they are neither trained on nor test
    subjects. Written as train_subjects, or a share such as 10%."""
    known_subjects: tuple[str, ...] = ()
    """What all subjects of the store must fit, written as in train_subjects; empty: any names. A preset of a data set
    has it, as its train_subjects would mean other people in another data set."""
    channels: tuple[str, ...] = ()
    """Channels of the store's pictures that are trained on: names such as flow-u, or kinds such as flow; empty: all."""
    subjects_per_batch: int = 8
    """P of the P x K batch of one replica."""
    clips_per_subject: int = 8
    """K of the P x K batch of one replica."""
    replicas: int = 0
    """How many replicas make up a step, each with a batch of its own; the learning rate is multiplied by their number.
    0: as many as there are processes when the run begins, which is one GPU each. It stays when a run is continued by
    other processes."""
    clip_frames: int = 30
    """Frames of a training clip, at least 16; shorter sequences are not used, unless repeat_short."""
    rules: ClipRules = field(default_factory=ClipRules)
    """Which sequences clips are drawn from, and how. Its fields are settings, too."""

    def __post_init__(self) -> None:
        require(self.subjects_per_batch >= 2, "subjects_per_batch", self.subjects_per_batch, "at least 2 (triplets)")
        _require_at_least(self, 1, "clips_per_subject")
        _require_at_least(self, 0, "replicas")
        for name in ("subjects_per_batch", "clips_per_subject", "replicas", "clip_frames"):
            require(getattr(self, name) <= 1_000_000, name, getattr(self, name), "at most 1,000,000")
        is_accepted = self.clip_frames >= MIN_FRAMES
        require(is_accepted, "clip_frames", self.clip_frames, "at least 16 (the longest temporal window)")

    @property
    def num_replicas(self) -> int:
        """Replicas of a run that has begun."""
        return max(1, self.replicas)


@dataclass(kw_only=True, slots=True, frozen=True)
class ModelSettings(ModelOptions):
    """The model that a run trains. Raises ParameterError for a value out of range."""

    size: str = "small"
    """tiny, small, medium or large: the widths of the model (attengait.model.config.SIZES)."""
    embedding_size: int = 0
    """D, features of each part's embedding; 0: those of the size, 16 for tiny and 32 for the others."""

    def __post_init__(self) -> None:
        ModelOptions.__post_init__(self)  # super() does not work in a class with slots
        check_name(SIZES, self.size, "size")
        is_accepted = 0 <= self.embedding_size <= MAX_WIDTH
        require(is_accepted, "embedding_size", self.embedding_size, f"from 0 to {MAX_WIDTH:,}")

    def network(self, *, channels: int, num_subjects: int, input_channels: tuple[str, ...] = ()) -> ModelConfig:
        """Return the network for frames of `channels` channels and `num_subjects` training subjects.

        `input_channels` are the names of the channels where the network takes only some of a store's.

        Raises ParameterError where num_classes is less than the training subjects.
        """
        is_accepted = self.num_classes == 0 or self.num_classes >= num_subjects
        require(is_accepted, "num_classes", self.num_classes, f"0 or at least {num_subjects}, the training subjects")
        options = {option.name: getattr(self, option.name) for option in fields(ModelOptions)}
        options["num_classes"] = self.num_classes or num_subjects
        if self.embedding_size:
            options["embedding_size"] = self.embedding_size
        return ModelConfig.of_size(self.size, channels=channels, input_channels=input_channels, **options)


@dataclass(kw_only=True, slots=True, frozen=True)
class OptimiserSettings:
    """Losses, augmentation, learning rate and how long. Raises ParameterError for a value out of range."""

    epochs: int = 8000
    """Epochs with both losses; an epoch visits each subject once."""
    epochs_without_cross_entropy: int = 1000
    """Epochs that follow, with the triplet loss and the L2 penalty only."""
    learning_rate: float = 5e-4
    """The largest learning rate, at the end of the warm-up, for one replica."""
    warmup_epochs: int = 20
    """Epochs of linear warm-up, part of the schedule over all epochs."""
    triplets: str = "replica"
    """Whether clips form triplets within their replica, as published, or with all clips of the step (global)."""
    margin: float = 0.2
    """Margin of the triplet loss."""
    adaptive_margin: bool = False
    """The margin of a part grows by 0.1 when it had no triplet above zero in more than 100 batches."""
    soft_margin: bool = False
    """log(1 + exp(.)) instead of the hinge."""
    normalise_embeddings: bool = False
    """Triplets on embeddings scaled to length 1 over the batch, as the published program's option does."""
    cross_entropy_weight: float = 1.0
    """Weight of the cross entropy."""
    label_smoothing: float = 0.0
    """Share of each target of the cross entropy that is spread over all classes alike."""
    l2_penalty: float = 1e-5
    """Weight of the sum of squared convolution, pyramid, part-linear and attention weights."""
    mixup_probability: float = 0.25
    """Probability that each clip is mixed with another clip of the batch."""
    cutmix_probability: float = 0.25
    """Probability that a square of each clip is replaced by that of another clip of the batch."""

    def __post_init__(self) -> None:
        check_name(TRIPLETS, self.triplets, "triplets")
        _require_at_least(self, 1, "epochs")
        _require_at_least(self, 0, "epochs_without_cross_entropy", "warmup_epochs")
        require(0 < self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "a positive number")
        _require_at_least(self, 0, "margin", "cross_entropy_weight", "l2_penalty")
        is_accepted = not (self.adaptive_margin and self.soft_margin)
        require(is_accepted, "adaptive_margin", True, "false with soft_margin, which has no margin")
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "at least 0 and below 1")
        for name in ("mixup_probability", "cutmix_probability"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "from 0 to 1")

    @property
    def total_epochs(self) -> int:
        """Epochs with and without cross entropy."""
        return self.epochs + self.epochs_without_cross_entropy


@dataclass(kw_only=True, slots=True, frozen=True)
class RunSettings:
    """Where and how a run computes, and when it saves. Raises ParameterError for a value out of range."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    cache: str = "auto"
    """Where all frames are kept: host, gpu or none (they are read from the store). auto decides by what fits, and
    says what it decided."""
    check_frames: bool = True
    """Whether the checksum of each sequence is checked when it is first read."""
    precision: str = "auto"
    """fp32, tf32 (on NVIDIA GPUs since Ampere), bf16, fp16 (with loss scaling), or auto: bf16 where the device
    computes in it, else fp32."""
    deterministic: bool = False
    """Whether only algorithms are used that give the same bits in every run on the same machine; on a GPU they are
    slower."""
    cuda_graphs: bool = True
    """Whether the steps on one GPU are computed by CUDA graphs. The first results of each graph are compared with those
    without it, and the run goes on without graphs where they differ. It has not been tried on a GPU yet."""
    init: str = ""
    """The folder of a run, or a weights file, that a new run begins with (fine-tuning); empty: new weights are
    drawn."""
    seed: int = 0
    """Of initial weights, batches, augmentation and dropout."""
    checkpoint_every_steps: int = 500
    """Steps between checkpoints; one is always written at the end and when interrupted."""
    log_every_steps: int = 10
    """Steps between two lines of values; those of the first and the last step are always written."""
    stop_after_steps: int = 0
    """Stop at this step with a checkpoint, as an interruption would; 0: run to the end."""
    validate_every_steps: int = 0
    """Steps between two validations on validation_subjects, and one at the end of the run; 0: none."""
    early_stopping_validations: int = 0
    """End the run after so many validations in a row without a better rank-1; 0: never."""
    keep_checkpoints: int = 1
    """Checkpoints that are kept: the newest, and so many older ones that there are as many as this."""
    loggers: tuple[str, ...] = ("tensorboard",)
    """What else hears the values of a run beside metrics.jsonl and train.log: tensorboard, and the names in the entry
    point group attengait.loggers."""
    profile_steps: int = 0
    """Steps that torch's profiler records, after a few that it does not, into profile.json.gz; 0: none."""

    def __post_init__(self) -> None:
        check_name(CACHES, self.cache, "cache")
        check_name(PRECISIONS, self.precision, "precision")
        _require_at_least(self, 0, "seed", "stop_after_steps")
        _require_at_least(self, 0, "validate_every_steps", "early_stopping_validations", "profile_steps")
        _require_at_least(self, 1, "checkpoint_every_steps", "log_every_steps", "keep_checkpoints")
        needed = "0 where validate_every_steps is 0"
        is_accepted = self.validate_every_steps > 0 or not self.early_stopping_validations
        require(is_accepted, "early_stopping_validations", self.early_stopping_validations, needed)


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainingConfig:
    """What determines a training run, beside the store; defaults are the published CASIA-B recipe."""

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    update: UpdateSettings = field(default_factory=UpdateSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        data, steps = self.data, self.update.accumulate_steps
        num_clips = data.subjects_per_batch * data.clips_per_subject
        require(steps <= num_clips, "accumulate_steps", steps, f"at most {num_clips}, the clips of a batch")
        is_accepted = data.clip_frames > MIN_FRAMES or not self.augment.vary_clip_frames
        require(is_accepted, "clip_frames", data.clip_frames, f"more than {MIN_FRAMES} with vary_clip_frames")
        is_accepted = bool(self.data.validation_subjects) or not self.run.validate_every_steps
        needed = "some of the training subjects where validate_every_steps is set, by name or as a share such as 10%"
        require(is_accepted, "validation_subjects", ",".join(self.data.validation_subjects), needed)

    def to_json(self) -> str:
        """The settings as a JSON object, by their flat keys."""
        return json.dumps(settings_of(self), indent=2)


def settings_of(config: TrainingConfig) -> dict[str, Any]:
    """Return a run's settings by their flat keys, as `make_config` takes them."""
    return _flat(asdict(config))


def setting_names() -> list[str]:
    """All flat keys, in the order of the groups."""
    return list(_types(TrainingConfig))


def preset_names() -> list[str]:
    """Names accepted by `load_preset`."""
    return sorted(entry.name[:-5] for entry in _presets().iterdir() if entry.name.endswith(".toml"))


def load_preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset file by their flat keys. Raises ParameterError for an unknown name."""
    check_name(preset_names(), name, "preset")
    return tomllib.loads(_presets().joinpath(f"{name}.toml").read_text())


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `key=value` words into typed settings.

    A value is read as the field's type; lists are separated by commas. Raises ParameterError for a word without `=`, an
    unknown key (with the key that is meant, if there is one), a value of the wrong type and a list with an empty piece.
    Of a key that is set twice, the last value counts, and the log warns.

    >>> parse_assignments(["seed=3", "train_subjects=001-004,007"])
    {'seed': 3, 'train_subjects': ('001-004', '007')}
    """
    settings: dict[str, Any] = {}
    for word in assignments:
        key, equals, text = word.partition("=")
        key = key.strip()
        require(bool(equals), "--set", word, "KEY=VALUE, such as seed=1")
        value = _parse(key, text.strip(), _type_of(key))
        if settings.get(key, value) != value:
            _log.warning("%s is set more than once: %s, the last one, counts", key, text.strip())
        settings[key] = value
    return settings


def make_config(settings: Mapping[str, Any]) -> TrainingConfig:
    """Build a checked TrainingConfig from flat keys; keys that are left out have their defaults.

    Raises ParameterError for an unknown key, a value of the wrong type and a value out of range.
    """
    for key, value in settings.items():
        check_setting(key, value)
    return _build(
        TrainingConfig,
        {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()},
    )


def check_setting(key: str, value: Any) -> None:
    """Raise ParameterError for an unknown key and a value of the wrong type."""
    expected = _type_of(key)
    if typing.get_origin(expected) is tuple:
        fits = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    elif expected is float:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        fits = type(value) is expected
    require(fits, key, value, _in_words(expected))
    if isinstance(value, int):
        require(abs(value) < _MAX_NUMBER, key, value, "a smaller number")


def differences(before: TrainingConfig, after: TrainingConfig) -> list[str]:
    """Say which settings that matter differ, each as `key: old, now new`."""
    old, new = settings_of(before), settings_of(after)
    return [f"{key}: {old[key]}, now {new[key]}" for key in old if old[key] != new[key] and key not in RUNTIME_SETTINGS]


def _presets() -> Any:
    return resources.files("attengait.training") / "presets"


@cache
def _types(group: type) -> dict[str, Any]:
    """The flat keys of a group and of the groups in it, and the type of each."""
    types: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(group).items():
        types |= _types(kind) if _is_group(kind) else {name: kind}
    return types


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in groups without the groups."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def _build(group: type[Group], settings: Mapping[str, Any]) -> Group:
    """A group, and the groups in it, from flat keys."""
    values: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(group).items():
        if _is_group(kind):
            values[name] = _build(kind, settings)
        elif name in settings:
            values[name] = settings[name]
    return group(**values)


def _is_group(kind: Any) -> bool:
    return is_dataclass(kind)


def _type_of(key: str) -> Any:
    types = _types(TrainingConfig)
    check_name(types, key, "setting", aliases=ALIASES, known_in_words="those that --show-settings prints")
    return types[key]


def _in_words(expected: Any) -> str:
    if typing.get_origin(expected) is tuple:
        return "a list of texts"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[expected]


def _parse(key: str, text: str, expected: Any) -> Any:
    if expected is bool:
        require(text.lower() in ("true", "false"), key, text, _in_words(bool))
        return text.lower() == "true"
    if expected in (int, float):
        try:
            return expected(text)
        except ValueError:
            require(False, key, text, _in_words(expected))
    if expected is str:
        return text
    items = [item.strip() for item in text.split(",")] if text else []
    require(all(items), key, text, "without an empty piece between its commas")
    return tuple(items)


def _require_at_least(group: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(group, name)
        require(least <= value < float("inf"), name, value, f"at least {least}")
