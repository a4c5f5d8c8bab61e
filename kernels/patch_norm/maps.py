"""The maps that patch_norm works on, the same for both devices."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """z is [M, H, W, C], or [M, 2H, 2W, C] if it is pooled; y and dy are [M, H, W, C]."""

    frames: int
    """M."""
    height: int
    """H, of y."""
    width: int
    """W, of y."""
    features: int
    """C."""
    format: str
    """Of z, y, dy and dz: float32, bfloat16 or float16. All else is float32."""
    pool: bool
