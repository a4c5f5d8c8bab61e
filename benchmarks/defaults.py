"""Default parameters of the benchmarks of training clips: those of the published training."""

from attengait.training.config import load_preset

_PUBLISHED = load_preset("casia-b")

CLIP_FRAMES: int = _PUBLISHED["clip_frames"]
BATCH_SIZE: int = _PUBLISHED["subjects_per_batch"] * _PUBLISHED["clips_per_subject"]
"""Clips of a batch."""
