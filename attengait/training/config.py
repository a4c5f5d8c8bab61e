"""The settings of a training run: a preset (a TOML file that one can read) and `key=value` changes on top of it.

Every setting is one flat, typed field, so that an unknown or mistyped one is refused and what a run used is one small
JSON file in its folder.
"""

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from attengait.errors import ParameterError
from attengait.sampling.rules import BALANCES, FRAME_ORDERS, ClipRules

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CACHES = ("auto", "none", "host", "gpu")

# A resumed run may change these: they say where and how long it runs, not what is computed.
RUNTIME_SETTINGS = frozenset({"cache", "checkpoint_every_steps", "device", "stop_after_steps"})


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainingConfig:
    """What determines a training run, beside the store; defaults are the published CASIA-B recipe."""

    train_subjects: tuple[str, ...] = ()
    """Subjects trained on: names and ranges such as 001-074 or 00001-10305/2 (every second); empty: all of the store.
    All others are test subjects."""
    exclude_subjects: tuple[str, ...] = ()
    """Subjects left out of training that are nevertheless no test subjects."""
    train_views: tuple[str, ...] = ()
    """Views trained on: names, numbers or ranges such as 090 or 000-090; empty: all."""
    train_walks: tuple[str, ...] = ()
    """Walks trained on: names such as nm-01, or kinds such as nm; empty: all."""
    min_frames: int = 0
    """Sequences of fewer frames are not trained on."""
    repeat_short: bool = False
    """Train on sequences shorter than a clip, too, with each frame shown several times in a row until there are enough:
    the published program's option repeat."""
    balance: str = "none"
    """How one of a subject's sequences is drawn: none, each alike; walks or views, each kind of walk or view alike."""

    size: str = "small"
    """tiny, small, medium or large: the widths of the model (attengait.model.config.SIZES)."""
    blocks_per_stage: int = 2
    """Depth: 2, or 4 for the deep variant."""
    num_classes: int = 0
    """Outputs of each part's classifier; 0: one for each training subject."""
    attention_softmax: bool = True
    """Softmax over the attention weights."""
    attention_dropout: float = 0.1
    """Dropout rate of the attention weights."""
    spatial_reduction: str = "both"
    """Over time, in the spatial pyramid: both (mean + max) or mean."""

    subjects_per_batch: int = 8
    """P of the P x K batch."""
    clips_per_subject: int = 8
    """K of the P x K batch."""
    clip_frames: int = 30
    """Frames of a training clip, at least 16; shorter sequences are not used, unless repeat_short."""
    frame_order: str = "consecutive"
    """Which frames of a sequence: consecutive from a random start; subset, random ones in order; shuffled, random ones
    in random order."""

    epochs: int = 8000
    """Epochs with both losses; an epoch visits each subject once."""
    epochs_without_cross_entropy: int = 1000
    """Epochs after those, with the triplet loss and the L2 penalty only."""
    learning_rate: float = 5e-4
    """The largest learning rate of Adam (betas 0.9, 0.999; eps 1e-7 added after the bias correction, as torch does)."""
    warmup_epochs: int = 20
    """Epochs of linear warm-up, part of the cosine schedule over all epochs."""
    margin: float = 0.2
    """Margin of the triplet loss."""
    soft_margin: bool = False
    """log(1 + exp(.)) instead of the hinge."""
    normalise_embeddings: bool = False
    """Triplets on embeddings scaled to length 1 over the batch, as the published program's option does."""
    cross_entropy_weight: float = 1.0
    """Weight of the cross entropy."""
    l2_penalty: float = 1e-5
    """Weight of the sum of squared convolution, pyramid, part-linear and attention weights."""
    mixup_probability: float = 0.25
    """Chance that a batch is mixed with a permutation of itself."""
    cutmix_probability: float = 0.25
    """Chance that a batch gets a square from a permutation of itself."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    cache: str = "auto"
    """Keep all frames in the memory of the host or the gpu, or none; auto decides by what fits, and says so."""
    precision: str = "auto"
    """fp32, bf16, fp16 (with loss scaling), or auto: bf16 where the device computes in it, else fp32."""
    seed: int = 0
    """Of initial weights, batches, augmentation and dropout."""
    checkpoint_every_steps: int = 500
    """Steps between checkpoints; one is always written at the end and when interrupted."""
    stop_after_steps: int = 0
    """Stop at this step with a checkpoint, as an interruption would; 0: run to the end."""

    def __post_init__(self) -> None:
        from attengait.model.config import SIZES

        _require("size", self.size, self.size in SIZES, f"one of {', '.join(SIZES)}")
        _require("precision", self.precision, self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        _require("cache", self.cache, self.cache in CACHES, f"one of {', '.join(CACHES)}")
        accepted = ("both", "mean")
        _require("spatial_reduction", self.spatial_reduction, self.spatial_reduction in accepted, "both or mean")
        _require("subjects_per_batch", self.subjects_per_batch, self.subjects_per_batch >= 2, "2 or more (triplets)")
        _require("clip_frames", self.clip_frames, self.clip_frames >= 16, "16 or more (the longest temporal window)")
        for name in ("blocks_per_stage", "clips_per_subject", "epochs", "checkpoint_every_steps"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        orders = ", ".join(FRAME_ORDERS)
        _require("frame_order", self.frame_order, self.frame_order in FRAME_ORDERS, f"one of {orders}")
        _require("balance", self.balance, self.balance in BALANCES, f"one of {', '.join(BALANCES)}")
        for name in (
            "epochs_without_cross_entropy",
            "min_frames",
            "num_classes",
            "seed",
            "stop_after_steps",
            "warmup_epochs",
        ):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        for name in ("margin", "cross_entropy_weight", "l2_penalty"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) < float("inf"), "0 or more")
        _require("learning_rate", self.learning_rate, 0 < self.learning_rate < float("inf"), "a positive number")
        for name in ("mixup_probability", "cutmix_probability"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "between 0 and 1")
        _require("attention_dropout", self.attention_dropout, 0 <= self.attention_dropout < 1, "at least 0, below 1")

    @property
    def total_epochs(self) -> int:
        """Epochs with and without cross entropy."""
        return self.epochs + self.epochs_without_cross_entropy

    @property
    def clip_rules(self) -> ClipRules:
        """What clips are drawn from, and how."""
        return ClipRules(**{field.name: getattr(self, field.name) for field in dataclasses.fields(ClipRules)})

    def to_json(self) -> str:
        """The settings as a JSON object."""
        return json.dumps(settings_of(self), indent=2)


def settings_of(config: TrainingConfig) -> dict[str, Any]:
    """Return a run's settings, as `make_config` takes them."""
    return dataclasses.asdict(config)


def preset_names() -> list[str]:
    """Names accepted by `load_preset`."""
    return sorted(entry.name[:-5] for entry in _presets().iterdir() if entry.name.endswith(".toml"))


def load_preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset file. Raises ParameterError for an unknown name."""
    _require("preset", name, name in preset_names(), f"one of {', '.join(preset_names())}")
    return tomllib.loads(_presets().joinpath(f"{name}.toml").read_text())


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `key=value` words into typed settings.

    A value is read as the field's type; lists are separated by commas. Raises ParameterError for a word without `=`, an
    unknown key (with the nearest known one) and a value of the wrong type.
    """
    settings: dict[str, Any] = {}
    for word in assignments:
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals:
            raise ParameterError(f"--set {word}: expected key=value, for example seed=1")
        settings[key] = _parse(key, text.strip(), _field_type(key))
    return settings


def make_config(settings: Mapping[str, Any]) -> TrainingConfig:
    """Build a checked TrainingConfig. Raises ParameterError for an unknown key or a value out of range."""
    checked = {}
    for key, value in settings.items():
        expected = _field_type(key)
        if typing.get_origin(expected) is tuple:
            value = tuple(value) if isinstance(value, (list, tuple)) else value
            fits = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        elif expected is float:
            fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        else:
            fits = type(value) is expected
        _require(key, value, fits, f"a value of type {_type_name(expected)}")
        checked[key] = value
    return TrainingConfig(**checked)


def differences(before: TrainingConfig, after: TrainingConfig) -> list[str]:
    """Say which settings that matter differ, each as `key: old, now new`."""
    pairs = ((f.name, getattr(before, f.name), getattr(after, f.name)) for f in dataclasses.fields(TrainingConfig))
    return [f"{name}: {old}, now {new}" for name, old, new in pairs if old != new and name not in RUNTIME_SETTINGS]


def _presets() -> Any:
    return resources.files("attengait.training") / "presets"


def _field_type(key: str) -> Any:
    known = typing.get_type_hints(TrainingConfig)
    if key not in known:
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        raise ParameterError(f"there is no setting {key!r}; the nearest is {nearest[0]!r}")
    return known[key]


def _type_name(expected: Any) -> str:
    if isinstance(expected, types.GenericAlias):
        return "list of strings"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[expected]


def _parse(key: str, text: str, expected: Any) -> Any:
    if expected is bool:
        _require(key, text, text.lower() in ("true", "false"), "true or false")
        return text.lower() == "true"
    if expected in (int, float):
        try:
            return expected(text)
        except ValueError:
            raise ParameterError(f"{key}: got {text!r}, expected a {_type_name(expected)}") from None
    if expected is str:
        return text
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _require(name: str, value: Any, accepted: bool, expected: str) -> None:
    if not accepted:
        raise ParameterError(f"{name}: got {value!r}, expected {expected}")
