"""How a person walks: each joint's angle over the gait cycle as a few Fourier terms.

An angle at phase p (radians; 0 is the heel strike of that side, one cycle is 2 pi) is Re(sum_k terms[k] exp(i k p)),
in radians. The terms of hip (the thigh against the vertical), knee and ankle were fitted to the usual curves of normal
level walking (after Winter, Biomechanics and Motor Control of Human Movement). Each person has their own mean,
amplitude and delay of each joint, and each walk of a person differs a little again. Flexion is positive: thigh forward,
knee bent, toes up, arm forward, elbow bent.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Terms = NDArray[np.complex128]
"""[K] for the trunk, [2, K] for paired joints (left, right), K = NUM_TERMS."""

NUM_TERMS = 5

SLOWEST_RHYTHM, FASTEST_RHYTHM = 1.2, 4.5
"""How often a second the trunk rocks, where people differ in this alone."""
_STROLL = 0.65
"""Their steps are so much shorter and slower than usual: beside slow limbs, the trunk is seen to rock."""
_ROCK_SPEED = 1.3
"""Of the trunk in radians per second at its fastest: the same for slow and quick rhythms. Slow ones swing farther."""

_USUAL_DEGREES: dict[str, list[tuple[float, float]]] = {
    # (amplitude, angle in degrees) of each harmonic, from the 0th
    "hip": [(4.6, 0), (17.8, 10), (3.7, 143), (1.7, -96), (0.2, 72)],
    "knee": [(23.4, 0), (20.8, 97), (16.1, -155), (3.4, -108), (0.7, -139)],
    "ankle": [(0.4, 180), (6.1, -98), (7.4, 84), (2.7, -151), (2.0, 10)],
    "shoulder": [(2.0, 180), (18.0, 180)],
    "elbow": [(24.0, 0), (10.0, 160), (2.0, 0)],
    "pelvis_yaw": [(0.0, 0), (5.0, 180)],
    "pelvis_list": [(0.0, 0), (4.0, -80)],
    "trunk_yaw": [(0.0, 0), (6.0, 0)],
    "trunk_roll": [(0.0, 0), (2.0, 100)],
    "trunk_lean": [(4.0, 0), (0.0, 0), (1.2, 60)],
    "head_nod": [(0.0, 0), (0.0, 0), (1.5, 200)],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gait:
    """Fourier terms of every joint, in radians, and the angles that stay constant while walking."""

    cycle_seconds: float
    """Duration of two steps."""
    hip: Terms
    knee: Terms
    ankle: Terms
    shoulder: Terms
    elbow: Terms
    pelvis_yaw: Terms
    pelvis_list: Terms
    trunk_yaw: Terms
    trunk_roll: Terms
    trunk_lean: Terms
    head_nod: Terms
    hip_abduction: float
    toe_out: float
    arm_abduction: float
    sway: float
    """Sideways swing of the pelvis, metres."""
    rock: complex = 0j
    """The trunk's own rocking, forward and back: its size is the swing in radians, its angle where it begins."""
    rocks_per_cycle: float = 1.0
    """How often the trunk rocks while the legs make two steps."""


def evaluate(terms: Terms, phase: NDArray[np.floating]) -> NDArray[np.floating]:
    """Angles [T] of one joint (terms [K]) at phases [T], both in radians."""
    harmonics = np.exp(1j * phase[:, None] * np.arange(len(terms)))
    angles: NDArray[np.floating] = (harmonics @ terms).real
    return angles


def _vary(
    terms: Terms,
    rng: np.random.Generator,
    *,
    mean_degrees: float,
    amplitude: float,
    delay_degrees: float,
    detail: float = 0.0,
) -> Terms:
    """Shift the mean, scale and delay the swing: normal draws with these spreads. `detail` disturbs each harmonic."""
    order = np.arange(terms.shape[-1])
    mean = np.radians(mean_degrees) * _normal(rng)
    scale = max(1 + amplitude * _normal(rng), 0.25)
    delay = np.radians(delay_degrees) * _normal(rng)
    disturbed = 1 + detail * (rng.normal(size=len(order)) + 1j * rng.normal(size=len(order))) * (order > 1)
    varied: Terms = terms * np.where(order > 0, scale * np.exp(1j * order * delay), 1) * disturbed
    varied[..., 0] += mean
    return varied


def _normal(rng: np.random.Generator) -> float:
    """A standard normal draw without its far tails, so that nobody walks impossibly."""
    return float(np.clip(rng.normal(), -2.2, 2.2))


def _usual(joint: str) -> Terms:
    terms = np.zeros(NUM_TERMS, np.complex128)
    for order, (amplitude, angle) in enumerate(_USUAL_DEGREES[joint]):
        terms[order] = np.radians(amplitude) * np.exp(1j * np.radians(angle))
    return terms


def draw_gait(rng: np.random.Generator, variety: float = 1.0) -> Gait:
    """Draw a person's way of walking. `variety` times the usual differences between people."""

    def sides(joint: str, mean_degrees: float, amplitude: float, delay_degrees: float) -> Terms:
        own = _vary(
            _usual(joint),
            rng,
            mean_degrees=variety * mean_degrees,
            amplitude=variety * amplitude,
            delay_degrees=variety * delay_degrees,
            detail=variety * 0.15,
        )
        # nobody is quite symmetric
        uneven = [
            _vary(own, rng, mean_degrees=variety, amplitude=0.04 * variety, delay_degrees=2.0 * variety)
            for _ in range(2)
        ]
        return np.stack(uneven)

    def middle(joint: str, mean_degrees: float, amplitude: float, delay_degrees: float) -> Terms:
        return _vary(
            _usual(joint),
            rng,
            mean_degrees=variety * mean_degrees,
            amplitude=variety * amplitude,
            delay_degrees=variety * delay_degrees,
        )

    def scalar(usual: float, spread: float) -> float:
        return usual + spread * variety * _normal(rng)

    return Gait(
        cycle_seconds=scalar(1.08, 0.05),
        hip=sides("hip", 1.5, 0.10, 3.0),
        knee=sides("knee", 2.0, 0.10, 3.0),
        ankle=sides("ankle", 2.0, 0.15, 3.0),
        shoulder=sides("shoulder", 5.0, 0.32, 10.0),
        elbow=sides("elbow", 9.0, 0.35, 12.0),
        pelvis_yaw=middle("pelvis_yaw", 0.0, 0.35, 10.0),
        pelvis_list=middle("pelvis_list", 0.0, 0.35, 10.0),
        trunk_yaw=middle("trunk_yaw", 0.0, 0.35, 12.0),
        trunk_roll=middle("trunk_roll", 0.0, 0.4, 12.0),
        trunk_lean=middle("trunk_lean", 2.8, 0.3, 20.0),
        head_nod=middle("head_nod", 4.0, 0.3, 20.0),
        hip_abduction=float(np.radians(scalar(1.0, 1.3))),
        toe_out=float(np.radians(scalar(7.0, 3.5))),
        arm_abduction=float(np.radians(scalar(9.0, 3.5))),
        sway=scalar(0.018, 0.006),
    )


def draw_rhythm(rng: np.random.Generator) -> float:
    """Draw how often a second a person's trunk rocks forward and back."""
    return float(np.exp(rng.uniform(np.log(SLOWEST_RHYTHM), np.log(FASTEST_RHYTHM))))


def with_rhythm(gait: Gait, rhythm: float, rng: np.random.Generator) -> Gait:
    """One walk of a person with this rhythm: a little slower or quicker each time, and wider or narrower."""
    today = rhythm * (1 + 0.02 * _normal(rng))
    rock = _ROCK_SPEED * np.exp(rng.uniform(-0.25, 0.25)) / (2 * np.pi * today)
    order = np.arange(NUM_TERMS)
    smaller = np.where(order > 0, _STROLL, 1)
    cycle_seconds = gait.cycle_seconds / _STROLL
    return replace(
        gait,
        cycle_seconds=cycle_seconds,
        hip=gait.hip * smaller,
        knee=gait.knee * smaller,
        ankle=gait.ankle * smaller,
        shoulder=gait.shoulder * smaller,
        rock=complex(rock * np.exp(1j * rng.uniform(-np.pi, np.pi))),
        rocks_per_cycle=today * cycle_seconds,
    )


def vary_gait(gait: Gait, rng: np.random.Generator, carrying_arm: int | None = None) -> Gait:
    """One walk of a person: a little faster or slower, each joint a little different.

    `carrying_arm` (0 left, 1 right) holds a bag: it swings half as far, with the elbow straighter.
    """
    effort = 0.03 * _normal(rng)  # a faster walk has both longer and quicker steps

    def again(terms: Terms, mean_degrees: float = 0.8, amplitude: float = 0.03, delay_degrees: float = 1.5) -> Terms:
        return _vary(terms, rng, mean_degrees=mean_degrees, amplitude=amplitude, delay_degrees=delay_degrees)

    hip, shoulder, elbow = again(gait.hip), again(gait.shoulder, 1.5, 0.08, 3.0), again(gait.elbow, 2.0, 0.08, 3.0)
    hip[:, 1:] *= 1 + effort
    if carrying_arm is not None:
        shoulder[carrying_arm, 1:] *= 0.5
        elbow[carrying_arm] *= 0.5
    return Gait(
        cycle_seconds=gait.cycle_seconds / (1 + effort) * (1 + 0.01 * _normal(rng)),
        hip=hip,
        knee=again(gait.knee),
        ankle=again(gait.ankle),
        shoulder=shoulder,
        elbow=elbow,
        pelvis_yaw=again(gait.pelvis_yaw, 0.3),
        pelvis_list=again(gait.pelvis_list, 0.2),
        trunk_yaw=again(gait.trunk_yaw, 0.5),
        trunk_roll=again(gait.trunk_roll, 0.3),
        trunk_lean=again(gait.trunk_lean, 0.7),
        head_nod=again(gait.head_nod, 1.5),
        hip_abduction=gait.hip_abduction,
        toe_out=gait.toe_out,
        arm_abduction=gait.arm_abduction,
        sway=gait.sway,
    )
