"""The skeleton: from the angles of a gait to the position and rotation of every segment, frame by frame.

The world's axes are x (forward), y (the walker's left) and z (up); the floor is z = 0, units are metres and radians.
A segment has its own axes forward, left, up (columns of its rotation) and its origin at its upper joint, so that a leg
hangs along -z. The pelvis has the height at which the lower foot stands on the floor. It moves forward as fast as the
standing foot moves backward below it. So feet neither float above the floor nor slide on it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attengait.synth.body import Body
from attengait.synth.gait import NUM_TERMS, Gait, Terms, evaluate

Floats = NDArray[np.floating]

FRAMES_PER_SECOND = 25
SEGMENTS = (
    *("pelvis", "trunk", "head"),
    *("left_thigh", "left_shank", "left_foot", "left_upper_arm", "left_forearm", "left_hang"),
    *("right_thigh", "right_shank", "right_foot", "right_upper_arm", "right_forearm", "right_hang"),
)
"""`hang` is what a hand carries: it hangs nearly straight down, and its origin is in the hand."""

_CYCLE_SAMPLES = 128
_STANCE = 0.58
"""Fraction of the cycle in which a foot stands."""
_STANCE_EDGE = 0.06
_CONTACT_METRES = 0.012
"""Scale in metres: a contact point that is higher than the lowest one by this counts less, by a factor of e."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Every segment in every frame: origins float64 [T, S, 3] in metres, rotations [T, S, 3, 3], S as in SEGMENTS."""

    origins: Floats
    rotations: Floats

    def point(self, segment: str, local: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Floats:
        """World positions [T, 3] of a point given in a segment's own axes."""
        index = SEGMENTS.index(segment)
        point: Floats = self.origins[:, index] + self.rotations[:, index] @ np.array(local)
        return point


def rotation(axis: int, angle: Floats) -> Floats:
    """Right-handed rotations [T, 3, 3] by angles [T] about one axis (0 x, 1 y, 2 z)."""
    matrix = np.zeros((len(angle), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1
    matrix[:, i, i] = matrix[:, j, j] = np.cos(angle)
    matrix[:, j, i] = np.sin(angle)
    matrix[:, i, j] = -matrix[:, j, i]
    return matrix


def sole(body: Body) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Heel and toe, the two points of a foot that meet the floor, in the foot's axes."""
    return (-0.22 * body.foot, 0.0, -body.ankle_height), (0.66 * body.foot, 0.0, -body.ankle_height)


def _pose_at(body: Body, gait: Gait, phase: Floats) -> Pose:
    """The pose at phases [T] of the left leg with the pelvis at the origin of the world."""
    num_frames = len(phase)
    constant = np.ones(num_frames)
    origins: dict[str, Floats] = {}
    turns: dict[str, Floats] = {}

    lean = evaluate(gait.trunk_lean, phase) + (gait.rock * np.exp(1j * gait.rocks_per_cycle * phase)).real
    origins["pelvis"] = np.zeros((num_frames, 3))
    turns["pelvis"] = rotation(2, evaluate(gait.pelvis_yaw, phase)) @ rotation(0, evaluate(gait.pelvis_list, phase))
    origins["trunk"] = origins["pelvis"]
    turns["trunk"] = (
        rotation(2, evaluate(gait.trunk_yaw, phase)) @ rotation(1, lean) @ rotation(0, evaluate(gait.trunk_roll, phase))
    )
    origins["head"] = turns["trunk"] @ np.array([0.0, 0.0, body.trunk + body.neck])
    turns["head"] = rotation(1, evaluate(gait.head_nod, phase) + 0.5 * lean)

    for side, (name, left) in enumerate((("left", 1.0), ("right", -1.0))):
        own = phase + np.pi * side

        hip = evaluate(gait.hip[side], own)
        knee = np.maximum(evaluate(gait.knee[side], own), 0.0)
        turns[f"{name}_thigh"] = (
            rotation(2, left * gait.toe_out * constant)
            @ rotation(0, left * gait.hip_abduction * constant)
            @ rotation(1, -hip)
        )
        turns[f"{name}_shank"] = turns[f"{name}_thigh"] @ rotation(1, knee)
        turns[f"{name}_foot"] = turns[f"{name}_shank"] @ rotation(1, -evaluate(gait.ankle[side], own))
        origins[f"{name}_thigh"] = turns["pelvis"] @ np.array([0.0, left * body.hip_half_width, 0.0])
        origins[f"{name}_shank"] = origins[f"{name}_thigh"] + turns[f"{name}_thigh"] @ np.array([0, 0, -body.thigh])
        origins[f"{name}_foot"] = origins[f"{name}_shank"] + turns[f"{name}_shank"] @ np.array([0, 0, -body.shank])

        swing = evaluate(gait.shoulder[side], own)
        bend = np.maximum(evaluate(gait.elbow[side], own), 0.05)
        turns[f"{name}_upper_arm"] = (
            turns["trunk"] @ rotation(0, left * gait.arm_abduction * constant) @ rotation(1, -swing)
        )
        # the forearm turns inward, across the body
        turns[f"{name}_forearm"] = (
            turns[f"{name}_upper_arm"]
            @ rotation(2, -left * 0.3 * constant)
            @ rotation(0, -left * gait.arm_abduction * constant)
            @ rotation(1, -bend)
        )
        turns[f"{name}_hang"] = rotation(1, -0.35 * swing)
        origins[f"{name}_upper_arm"] = turns["trunk"] @ np.array([0, left * body.shoulder_half_width, body.trunk])
        origins[f"{name}_forearm"] = origins[f"{name}_upper_arm"] + turns[f"{name}_upper_arm"] @ np.array(
            [0, 0, -body.upper_arm]
        )
        origins[f"{name}_hang"] = origins[f"{name}_forearm"] + turns[f"{name}_forearm"] @ np.array(
            [0, 0, -body.forearm - body.hand]
        )
    return Pose(
        origins=np.stack([origins[name] for name in SEGMENTS], axis=1),
        rotations=np.stack([turns[name] for name in SEGMENTS], axis=1),
    )


def _fourier(values: Floats) -> Terms:
    """The first NUM_TERMS Fourier terms of one cycle's evenly spaced values: smooth, and periodic by construction."""
    terms: Terms = np.fft.rfft(values)[:NUM_TERMS] / len(values)
    terms[1:] *= 2
    return terms


def _ride(body: Body, gait: Gait) -> tuple[Terms, Terms]:
    """The pelvis' height (metres) and forward speed (metres per radian of phase) as Fourier terms over the cycle."""
    phase = np.arange(_CYCLE_SAMPLES) * (2 * np.pi / _CYCLE_SAMPLES)
    pose = _pose_at(body, gait, phase)
    points = np.stack([pose.point(f"{side}_foot", p) for side in ("left", "right") for p in sole(body)], axis=1)
    heights = points[..., 2]
    standing = _may_stand(phase) * np.exp((heights.min(axis=1, keepdims=True) - heights) / _CONTACT_METRES)
    standing /= standing.sum(axis=1, keepdims=True)
    backward = -np.gradient(np.concatenate([points[-1:], points, points[:1]])[..., 0], phase[1], axis=0)[1:-1]
    return _fourier(-(standing * heights).sum(axis=1)), _fourier((standing * backward).sum(axis=1))


def _may_stand(phase: Floats) -> Floats:
    """How far each contact point [T, 4] (left heel, toe, right heel, toe) is in its leg's stance: nearly 0 to 1.

    A foot that swings close above the floor, past the standing foot, must not count as standing.
    """
    own = np.stack([phase, phase + np.pi], axis=1)
    middle = 2 * np.pi * _STANCE / 2
    stance = 1 / (1 + np.exp((np.cos(middle) - np.cos(own - middle)) / _STANCE_EDGE))
    return np.repeat(stance, 2, axis=1)


def walk(
    body: Body,
    gait: Gait,
    num_frames: int,
    *,
    start_phase: float = 0.0,
    heading: float = 0.0,
    aside: float = 0.0,
) -> Pose:
    """The pose in `num_frames` frames, 25 a second, passing the world's origin in the middle of the sequence.

    The left heel meets the floor at phase 0. `heading` (radians) turns the path about its middle. `aside` (metres)
    moves it to the side.
    """
    phase = start_phase + np.arange(num_frames) * (2 * np.pi / (FRAMES_PER_SECOND * gait.cycle_seconds))
    pose = _pose_at(body, gait, phase)
    height, speed = _ride(body, gait)
    order = np.arange(1, NUM_TERMS)
    way_terms = np.concatenate([[0], speed[1:] / (1j * order)])
    forward = speed[0].real * phase + evaluate(way_terms, phase)
    forward -= (forward[0] + forward[-1]) / 2
    pelvis = np.stack([forward, gait.sway * np.sin(phase) + aside, evaluate(height, phase)], axis=1)
    turn = rotation(2, np.array([heading]))[0]
    return Pose(
        origins=(pose.origins + pelvis[:, None]) @ turn.T,
        rotations=turn @ pose.rotations,
    )
