"""Two groups of a run's settings: how weights are updated, and how the images of clips are changed.

They are part of `attengait.training.config.TrainingConfig`, and their fields are flat keys there as all others are.
Every default is the published recipe. Here are also the other names by which settings are looked for.
"""

from dataclasses import dataclass

from attengait.errors import require
from attengait.system.lookup import check_name

OPTIMISERS = ("adam", "amsgrad", "adamw", "sgd", "lamb")
SCHEDULES = ("cosine", "constant")
ALIASES: dict[str, tuple[str, ...]] = {
    "accumulation_steps": ("accumulate_steps",),
    "amp": ("precision",),
    "batch": ("subjects_per_batch", "clips_per_subject"),
    "batch_size": ("subjects_per_batch", "clips_per_subject"),
    "bs": ("subjects_per_batch", "clips_per_subject"),
    "classes": ("num_classes",),
    "clip_grad_norm": ("max_gradient_norm",),
    "cutmix": ("cutmix_probability",),
    "depth": ("blocks_per_stage",),
    "dropout": ("attention_dropout",),
    "ema": ("ema_decay",),
    "flip": ("flip_probability",),
    "frames": ("clip_frames",),
    "gpu": ("device",),
    "grad_clip": ("max_gradient_norm",),
    "gradient_accumulation": ("accumulate_steps",),
    "k": ("clips_per_subject",),
    "l2": ("l2_penalty",),
    "lr": ("learning_rate",),
    "mixup": ("mixup_probability",),
    "max_grad_norm": ("max_gradient_norm",),
    "model": ("size",),
    "optim": ("optimiser",),
    "optimizer": ("optimiser",),
    "p": ("subjects_per_batch",),
    "steps": ("epochs", "stop_after_steps"),
    "patience": ("early_stopping_validations",),
    "profile": ("profile_steps",),
    "subjects": ("train_subjects",),
    "t": ("clip_frames",),
    "val_subjects": ("validation_subjects",),
    "views": ("train_views",),
    "walks": ("train_walks",),
    "warmup": ("warmup_epochs",),
    "wd": ("l2_penalty", "weight_decay"),
}
"""What people type and the keys that they mean. They are suggested, not accepted."""
_DECOUPLED = ("adamw", "lamb")
"""Optimisers that take weight_decay."""


@dataclass(kw_only=True, slots=True, frozen=True)
class UpdateSettings:
    """How gradients become new weights. Raises ParameterError for a value out of range."""

    optimiser: str = "adam"
    """adam, amsgrad, adamw, sgd or lamb (attengait.training.optimisers says more)."""
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 0.0
    """Of adamw and lamb: taken from the weights directly, not through the loss as l2_penalty is."""
    schedule: str = "cosine"
    """After the warm-up: cosine falls to 0 at the end of the run, as published; constant stays at learning_rate."""
    max_gradient_norm: float = 0.0
    """Gradients whose norm over all weights is larger are scaled down to it; 0: never."""
    accumulate_steps: int = 1
    """A batch goes through the network in so many parts, one after the other. The gradients are those of the whole
    batch, triplets included."""
    recompute_frames: int = 0
    """The activations of so many frames are in memory at a time, and are computed again in the backward pass; 0: those
    of all frames of the batch are kept, and nothing is computed twice."""
    ema_decay: float = 0.0
    """Above 0, the saved weights are an exponential moving average over the steps: each step keeps this share of it."""

    def __post_init__(self) -> None:
        check_name(OPTIMISERS, self.optimiser, "optimiser")
        check_name(SCHEDULES, self.schedule, "schedule")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")
        require(0 <= self.weight_decay < float("inf"), "weight_decay", self.weight_decay, "at least 0")
        is_accepted = self.weight_decay == 0 or self.optimiser in _DECOUPLED
        wanted = f"0 with the optimiser {self.optimiser}: only {' and '.join(_DECOUPLED)} take it, see l2_penalty"
        require(is_accepted, "weight_decay", self.weight_decay, wanted)
        is_accepted = 0 <= self.max_gradient_norm < float("inf")
        require(is_accepted, "max_gradient_norm", self.max_gradient_norm, "at least 0")
        require(self.accumulate_steps >= 1, "accumulate_steps", self.accumulate_steps, "at least 1")
        require(self.recompute_frames >= 0, "recompute_frames", self.recompute_frames, "at least 0")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "at least 0 and below 1")


@dataclass(kw_only=True, slots=True, frozen=True)
class AugmentSettings:
    """How the images of each clip are changed at random, beside mixup and cutmix. All frames of a clip change alike.

    Raises ParameterError for a value out of range.
    """

    vary_clip_frames: bool = False
    """Each batch shows only the first frames of its clips, a random number from 16 to clip_frames - 1: the published
    option diffFrames."""
    flip_probability: float = 0.0
    """Probability that a clip is mirrored from left to right, the direction of its flow with it."""
    affine_probability: float = 0.0
    """Probability that a clip is rotated, resized and shifted, each at random within the three bounds below. Flow turns
    with the picture. What comes in from outside shows no motion."""
    affine_degrees: float = 10.0
    """The largest rotation, either way."""
    affine_scale: float = 0.1
    """The largest enlargement as a share: 0.1 is from 1 / 1.1 to 1.1 times the size."""
    affine_shift_px: float = 4.0
    """The largest shift in pixels, along rows and along columns."""
    erase_probability: float = 0.0
    """Probability that a random rectangle of a clip, 2 to 20 % of the picture, shows no motion."""

    def __post_init__(self) -> None:
        for name in ("flip_probability", "affine_probability", "erase_probability"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "from 0 to 1")
        require(0 <= self.affine_degrees <= 180, "affine_degrees", self.affine_degrees, "from 0 to 180")
        require(0 <= self.affine_scale <= 1, "affine_scale", self.affine_scale, "from 0 to 1")
        require(0 <= self.affine_shift_px <= 64, "affine_shift_px", self.affine_shift_px, "from 0 to 64")
