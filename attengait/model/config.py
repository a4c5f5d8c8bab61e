"""What an AttenGait network is made of, as one small value that travels with its weights.

Sizes are entries of a table. Nothing here is inferred from a number of classes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from attengait.errors import ParameterError

SpatialReduction = Literal["both", "mean"]

FRAME_PIXELS = 64
"""Height and width of an input frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The shape of one AttenGait network."""

    channels: int = 3
    """Channels of a frame: 3 for colours and uvm, 2 for uv, 1 for silhouettes."""
    widths: tuple[int, int, int] = (8, 16, 32)
    """Features of the three stages (64, 32 and 16 pixels)."""
    part_width: int = 64
    """Features per part between the two part-wise linear layers."""
    embedding_size: int = 16
    """D, features per part of the embedding."""
    blocks_per_stage: int = 2
    """Patch attention + convolution, this many times per stage: 2 is the published network, 4 its deep variant."""
    num_classes: int = 0
    """Outputs of each part's classifier; 0 builds none."""
    attention_softmax: bool = True
    """Whether attention weights pass a softmax over the patches (or parts) before they multiply."""
    attention_dropout: float = 0.1
    """Chance that a patch's (or part's) attention is zero for one training step."""
    spatial_reduction: SpatialReduction = "both"
    """How the spatial pyramid reduces time: mean + max ("both", as published) or the mean alone."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if len(self.widths) != 3 or not all(_is_count(width) for width in self.widths):
            raise ParameterError(f"widths must be three positive integers, got {self.widths!r}")
        for name in ("channels", "part_width", "embedding_size", "blocks_per_stage"):
            if not _is_count(getattr(self, name)):
                raise ParameterError(f"{name} must be a positive integer, got {getattr(self, name)!r}")
        if self.num_classes != 0 and not _is_count(self.num_classes):
            raise ParameterError(f"num_classes must be 0 or a positive integer, got {self.num_classes!r}")
        if not 0 <= self.attention_dropout < 1:
            raise ParameterError(f"attention_dropout must be at least 0 and below 1, got {self.attention_dropout!r}")
        if self.spatial_reduction not in get_args(SpatialReduction):
            raise ParameterError(f"spatial_reduction must be 'both' or 'mean', got {self.spatial_reduction!r}")

    @classmethod
    def of_size(cls, size: str, **changes: Any) -> Self:
        """The configuration of a named size, with `changes` to single fields.

        Raises:
            ParameterError: no such size, or a change that is no field or out of range.
        """
        if size not in SIZES:
            raise ParameterError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
        return cls.from_dict(SIZES[size] | changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; fields that are left out take their defaults.

        Raises:
            ParameterError: an unknown field or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ParameterError(f"unknown model setting {unknown[0]!r}; known are {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON can hold them (widths as a list)."""
        return asdict(self) | {"widths": list(self.widths)}


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"widths": (8, 16, 32), "part_width": 64, "embedding_size": 16},
    "small": {"widths": (32, 64, 128), "part_width": 256, "embedding_size": 32},
    "medium": {"widths": (64, 128, 256), "part_width": 256, "embedding_size": 32},
    "large": {"widths": (128, 256, 512), "part_width": 256, "embedding_size": 32},
}
"""The published sizes, and one that a CPU can train."""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
