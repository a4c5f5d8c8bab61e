"""The clips whose windows are summed, the same for both devices."""

from dataclasses import dataclass

BINS = (1, 2, 4, 8, 16)
"""Frames and rows of the windows of each bin."""
SIDE = 16
"""Rows and columns of a map."""
KERNEL_ROWS = sum(b * b for b in BINS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """x and dx are [N, T, SIDE, SIDE, C]; kernels, and their gradients, [KERNEL_ROWS, SIDE, C], bin after bin; sums
    [N, windows, C], bin after bin."""

    clips: int
    """N."""
    frames: int
    """T."""
    features: int
    """C."""
    format: str
    """Of x and dx: float32, bfloat16 or float16. All else is float32."""

    @property
    def windows(self) -> int:
        """Windows of a clip; a tail of frames that fills no window of a bin is in none."""
        return num_windows(self.frames)


def num_windows(frames: int) -> int:
    """Windows of a clip of so many frames."""
    return sum(frames // b * (SIDE // b) for b in BINS)
