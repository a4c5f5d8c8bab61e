"""A walker's body: limb lengths and girths, drawn once per person.

Lengths follow the proportions of Drillis and Contini: each segment of the body is a fraction of the stature. Each
length is then varied by itself. Crops are scaled to one height, so people differ only in the ratios of their lengths.
All lengths are in metres. The semi-axes of cross-sections are (forward, left).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Lengths and girths in metres."""

    thigh: float
    shank: float
    ankle_height: float
    foot: float
    """Heel to toe."""
    hip_half_width: float
    """From the body's middle to a hip joint."""
    trunk: float
    """Hip joints to shoulder joints."""
    neck: float
    head: float
    """Chin to crown."""
    shoulder_half_width: float
    upper_arm: float
    forearm: float
    hand: float
    thigh_radius: float
    knee_radius: float
    ankle_radius: float
    upper_arm_radius: float
    wrist_radius: float
    neck_radius: float
    pelvis_axes: tuple[float, float]
    waist_axes: tuple[float, float]
    chest_axes: tuple[float, float]
    hair: float
    """How far the hair hangs down behind the neck; 0 for short hair."""


def draw_body(rng: np.random.Generator, variety: float = 1.0) -> Body:
    """Draw a person's body. `variety` times the usual differences between people."""
    stature = float(np.clip(rng.normal(1.71, 0.08 * variety), 1.5, 1.92))
    build = float(np.clip(rng.normal(1.0, 0.11 * variety), 0.8, 1.28))

    def length(fraction: float, spread: float) -> float:
        spread *= variety
        return stature * fraction * float(np.clip(rng.normal(1.0, spread), 1 - 2.2 * spread, 1 + 2.2 * spread))

    def girth(metres: float, spread: float = 0.08) -> float:
        spread *= variety
        return build * metres * float(np.clip(rng.normal(1.0, spread), 1 - 2.2 * spread, 1 + 2.2 * spread))

    return Body(
        thigh=length(0.245, 0.045),
        shank=length(0.240, 0.045),
        ankle_height=length(0.042, 0.04),
        foot=length(0.155, 0.05),
        hip_half_width=length(0.050, 0.08),
        trunk=length(0.294, 0.04),
        neck=length(0.036, 0.12),
        head=length(0.134, 0.05),
        shoulder_half_width=length(0.104, 0.08),
        upper_arm=length(0.180, 0.045),
        forearm=length(0.146, 0.045),
        hand=length(0.055, 0.05),
        thigh_radius=girth(0.086),
        knee_radius=girth(0.061),
        ankle_radius=girth(0.046, 0.12),
        upper_arm_radius=girth(0.050),
        wrist_radius=girth(0.034),
        neck_radius=girth(0.055),
        pelvis_axes=(girth(0.118), girth(0.162)),
        waist_axes=(girth(0.106, 0.12), girth(0.140, 0.09)),
        chest_axes=(girth(0.116, 0.09), girth(0.156)),
        hair=float(rng.choice([0.0, 0.0, 0.06, 0.14])),
    )
