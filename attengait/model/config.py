"""The settings of an AttenGait network, as one small value that is stored with its weights.

Sizes are entries of a table. Nothing is inferred from the number of classes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from attengait.errors import require
from attengait.system.lookup import check_name, look_up

FRAME_PIXELS = 64
"""Height and width of an input frame."""

MAX_BLOCKS = 100
MAX_CLASSES = 10_000_000
MAX_WIDTH = 65_536
"""Bounds far above any use: a number beyond them is a mistake or damage, and nothing is made for it."""

SPATIAL_REDUCTIONS = ("both", "mean")
CLASSIFIERS = ("separate", "shared", "joint")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """What a network of any size can be varied in. The settings of a training run have the same fields.

    Raises ParameterError for a value out of range.
    """

    blocks_per_stage: int = 2
    """Patch attention + convolution, this many times per stage: 2 is the published network, 4 its deep variant."""
    num_classes: int = 0
    """Outputs of each part's classifier. 0: a network has no classifiers; a training run has one output for each
    training subject."""
    classifiers: str = "separate"
    """separate: each part has its own, as published; shared: all parts have one; joint: one for all parts together,
    which gives a single cross entropy."""
    attention_softmax: bool = True
    """Whether attention weights pass a softmax over the patches (or parts) before they multiply."""
    attention_dropout: float = 0.1
    """Chance that a patch's (or part's) attention is zero for one training step."""
    spatial_reduction: str = "both"
    """How the spatial pyramid reduces time: mean + max ("both", as published) or the mean alone ("mean")."""

    def __post_init__(self) -> None:
        _require_count("blocks_per_stage", self.blocks_per_stage, MAX_BLOCKS)
        is_accepted = self.num_classes == 0 or _is_count(self.num_classes)
        require(is_accepted, "num_classes", self.num_classes, "a whole number of at least 0")
        is_accepted = self.num_classes <= MAX_CLASSES
        require(is_accepted, "num_classes", self.num_classes, f"at most {MAX_CLASSES:,}")
        require(isinstance(self.attention_softmax, bool), "attention_softmax", self.attention_softmax, "true or false")
        dropout = self.attention_dropout
        is_accepted = isinstance(dropout, (int, float)) and not isinstance(dropout, bool) and 0 <= dropout < 1
        require(is_accepted, "attention_dropout", self.attention_dropout, "at least 0 and below 1")
        check_name(SPATIAL_REDUCTIONS, self.spatial_reduction, "spatial_reduction")
        check_name(CLASSIFIERS, self.classifiers, "classifiers")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(ModelOptions):
    """The shape of one AttenGait network."""

    channels: int = 3
    """Channels of a frame: 3 for colours and uvm, 2 for uv, 1 for silhouettes."""
    widths: tuple[int, int, int] = (8, 16, 32)
    """Features of the three stages (64, 32 and 16 pixels)."""
    part_width: int = 64
    """Features per part between the two part-wise linear layers."""
    embedding_size: int = 16
    """D, features per part of the embedding."""
    input_channels: tuple[str, ...] = ()
    """Names of the channels, such as flow-u, where the network takes only some of a store's; empty: all of them."""

    def __post_init__(self) -> None:
        ModelOptions.__post_init__(self)  # super() does not work in a class with slots
        for name, what in (("widths", "three whole numbers"), ("input_channels", "a list of names")):
            require(isinstance(getattr(self, name), (list, tuple)), name, getattr(self, name), what)
            object.__setattr__(self, name, tuple(getattr(self, name)))
        is_accepted = len(self.widths) == 3 and all(_is_count(width) and width <= MAX_WIDTH for width in self.widths)
        require(is_accepted, "widths", self.widths, f"three whole numbers from 1 to {MAX_WIDTH:,}")
        for name in ("channels", "part_width", "embedding_size"):
            _require_count(name, getattr(self, name), MAX_WIDTH)
        is_accepted = all(isinstance(name, str) for name in self.input_channels)
        require(is_accepted, "input_channels", self.input_channels, "a list of names")
        is_accepted = len(self.input_channels) in (0, self.channels)
        require(is_accepted, "input_channels", self.input_channels, f"none or the names of {self.channels} channels")

    @classmethod
    def of_size(cls, size: str, **changes: Any) -> Self:
        """The configuration of a named size, with `changes` to single fields.

        Raises:
            ParameterError: no such size, or a change that is no field or out of range.
        """
        return cls.from_dict(look_up(SIZES, size, "size") | changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; fields that are left out take their defaults.

        Raises:
            ParameterError: an unknown field or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            check_name(known, name, "model setting")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON can hold them."""
        return asdict(self) | {"widths": list(self.widths), "input_channels": list(self.input_channels)}


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"widths": (8, 16, 32), "part_width": 64, "embedding_size": 16},
    "small": {"widths": (32, 64, 128), "part_width": 256, "embedding_size": 32},
    "medium": {"widths": (64, 128, 256), "part_width": 256, "embedding_size": 32},
    "large": {"widths": (128, 256, 512), "part_width": 256, "embedding_size": 32},
}
"""The published sizes, and one that a CPU can train."""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _require_count(name: str, value: Any, most: int) -> None:
    require(_is_count(value), name, value, "a whole number of at least 1")
    require(value <= most, name, value, f"at most {most:,}")
