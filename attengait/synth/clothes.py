"""What a walker is made of and wears: solid parts fixed to the segments, and the textures on them.

A part is a swept ellipsoid: the shape that an ellipsoid covers while it moves from one point of its segment to another.
On the way its semi-axes change from `start_axes` to `end_axes`. Lengths are in metres, in the segment's own axes
(forward, left, up). Textures stick to the parts, so optical flow sees the cloth move.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from attengait.synth.body import Body

Vector = tuple[float, float, float]
Bag = Literal["backpack", "shoulder", "hand"]

MATERIALS = ("skin", "head", "hair", "top", "trousers", "shoes", "coat", "bag")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A swept ellipsoid in the axes of its segment, metres."""

    segment: str
    start: Vector
    end: Vector
    start_axes: Vector
    end_axes: Vector
    material: str
    axis: int = 2
    """Which of the segment's axes (0 forward, 1 left, 2 up) the texture is wrapped around."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outfit:
    """What is worn and carried on one walk."""

    short_sleeves: bool
    coat_length: float | None
    """How far the coat covers the thighs, as a fraction of them; None: no coat."""
    coat_thickness: float
    bag: Bag | None
    bag_side: int
    """0 left, 1 right."""
    bag_size: float
    """1 for a usual one."""


def draw_outfit(kind: str, rng: np.random.Generator) -> Outfit:
    """Draw the outfit of a walk of this kind: nm (as usual), bg (with a bag) or cl (in a coat)."""
    bag: Bag = ("backpack", "shoulder", "hand")[rng.integers(3)]
    short_sleeves, bag_side = bool(rng.random() < 0.35), int(rng.integers(2))
    coat_length, coat_thickness = float(rng.uniform(0.35, 0.95)), float(rng.uniform(0.018, 0.04))
    return Outfit(
        short_sleeves=short_sleeves and kind != "cl",
        coat_length=coat_length if kind == "cl" else None,
        coat_thickness=coat_thickness,
        bag=bag if kind == "bg" else None,
        bag_side=bag_side,
        bag_size=float(rng.uniform(0.85, 1.15)),
    )


def carrying_arm(outfit: Outfit) -> int | None:
    """The arm (0 left, 1 right) whose swing a bag holds back."""
    return outfit.bag_side if outfit.bag == "hand" else None


def dress(body: Body, outfit: Outfit) -> list[Part]:
    """Every part of a walker: the body in its clothes, then what is worn or carried on top."""
    coat = outfit.coat_thickness if outfit.coat_length is not None else 0.0
    top = "coat" if outfit.coat_length is not None else "top"
    parts = [*_trunk(body, coat, top), *_head(body)]
    for side in ("left", "right"):
        parts += _leg(body, side)
        parts += _arm(body, side, coat, top, outfit.short_sleeves)
    if outfit.coat_length is not None:
        parts += _coat_skirt(body, outfit.coat_length, coat)
    if outfit.bag is not None:
        parts += _bag(body, outfit)
    return parts


def _trunk(body: Body, coat: float, top: str) -> list[Part]:
    def axes(forward_left: tuple[float, float], up: float) -> Vector:
        return forward_left[0] + coat, forward_left[1] + coat, up

    height = body.trunk
    yoke = 0.054 + coat / 2
    return [
        Part(
            segment="pelvis",
            start=(-0.012, 0.0, -0.03),
            end=(-0.005, 0.0, 0.06),
            start_axes=(body.pelvis_axes[0], body.pelvis_axes[1], 0.09),
            end_axes=(body.pelvis_axes[0] * 0.97, body.pelvis_axes[1] * 0.97, 0.06),
            material="trousers",
        ),
        Part(
            segment="trunk",
            start=(0.0, 0.0, 0.03),
            end=(0.0, 0.0, 0.42 * height),
            start_axes=axes((body.pelvis_axes[0] * 1.02, body.pelvis_axes[1] * 1.01), 0.05),
            end_axes=axes(body.waist_axes, 0.06),
            material=top,
        ),
        Part(
            segment="trunk",
            start=(0.0, 0.0, 0.42 * height),
            end=(0.0, 0.0, 0.80 * height),
            start_axes=axes(body.waist_axes, 0.06),
            end_axes=axes(body.chest_axes, 0.10),
            material=top,
        ),
        Part(
            segment="trunk",
            start=(-0.01, -body.shoulder_half_width * 0.9, height - 0.03),
            end=(-0.01, body.shoulder_half_width * 0.9, height - 0.03),
            start_axes=(yoke + 0.012, yoke, yoke),
            end_axes=(yoke + 0.012, yoke, yoke),
            material=top,
            axis=1,
        ),
        *(
            Part(  # from the neck down to the shoulder
                segment="trunk",
                start=(-0.01, left * 0.03, height + 0.02),
                end=(-0.01, left * body.shoulder_half_width * 0.85, height - 0.02),
                start_axes=(yoke, 0.05, 0.045),
                end_axes=(yoke, 0.05, 0.055),
                material=top,
                axis=1,
            )
            for left in (1.0, -1.0)
        ),
    ]


def _head(body: Body) -> list[Part]:
    head = body.head
    parts = [
        Part(
            segment="trunk",
            start=(0.0, 0.0, body.trunk),
            end=(0.015, 0.0, body.trunk + body.neck + 0.3 * head),
            start_axes=(body.neck_radius * 1.15, body.neck_radius * 1.25, 0.04),
            end_axes=(body.neck_radius, body.neck_radius, 0.04),
            material="skin",
        ),
        Part(
            segment="head",
            start=(0.03, 0.0, 0.28 * head),
            end=(0.015, 0.0, 0.60 * head),
            start_axes=(0.30 * head, 0.27 * head, 0.28 * head),
            end_axes=(0.43 * head, 0.35 * head, 0.40 * head),
            material="head",
        ),
    ]
    if body.hair > 0:
        parts.append(
            Part(
                segment="head",
                start=(-0.03, 0.0, 0.25 * head - body.hair),
                end=(-0.015, 0.0, 0.60 * head),
                start_axes=(0.04, 0.06, 0.05),
                end_axes=(0.40 * head, 0.37 * head, 0.36 * head),
                material="hair",
            )
        )
    return parts


def _leg(body: Body, side: str) -> list[Part]:
    thigh, knee, ankle = body.thigh_radius, body.knee_radius, body.ankle_radius
    inward = -0.01 if side == "left" else 0.01
    calf = (0.35 * ankle + 0.65 * knee) * 1.04
    return [
        Part(
            segment=f"{side}_thigh",
            start=(0.0, inward, -0.02),
            end=(0.0, 0.0, -body.thigh),
            start_axes=(thigh * 1.08, thigh, thigh),
            end_axes=(knee, knee * 0.96, knee),
            material="trousers",
        ),
        Part(
            segment=f"{side}_shank",
            start=(-0.004, 0.0, 0.0),
            end=(-0.016, 0.0, -0.38 * body.shank),
            start_axes=(knee, knee * 0.95, knee),
            end_axes=(calf, calf, calf),
            material="trousers",
        ),
        Part(
            segment=f"{side}_shank",
            start=(-0.016, 0.0, -0.38 * body.shank),
            end=(-0.004, 0.0, -0.97 * body.shank),
            start_axes=(calf, calf, calf),
            end_axes=(ankle, ankle, 0.03),
            material="trousers",
        ),
        Part(
            segment=f"{side}_foot",
            start=(-0.10 * body.foot, 0.0, -body.ankle_height + 0.045),
            end=(0.60 * body.foot, 0.0, -body.ankle_height + 0.028),
            start_axes=(0.19 * body.foot, 0.036, 0.045),
            end_axes=(0.20 * body.foot, 0.042, 0.028),
            material="shoes",
            axis=0,
        ),
    ]


def _arm(body: Body, side: str, coat: float, top: str, short_sleeves: bool) -> list[Part]:
    shoulder = body.upper_arm_radius + 0.6 * coat
    elbow = 0.5 * (body.upper_arm_radius + body.wrist_radius) + 0.6 * coat
    wrist = body.wrist_radius + 0.6 * coat
    return [
        Part(
            segment=f"{side}_upper_arm",
            start=(0.0, 0.0, -0.03),
            end=(0.0, 0.0, -body.upper_arm),
            start_axes=(shoulder * 1.1, shoulder, shoulder * 0.9),
            end_axes=(elbow, elbow, elbow),
            material=top,
        ),
        Part(
            segment=f"{side}_forearm",
            start=(0.0, 0.0, 0.0),
            end=(0.0, 0.0, -body.forearm),
            start_axes=(elbow, elbow, elbow),
            end_axes=(wrist, wrist * 0.9, wrist),
            material="skin" if short_sleeves else top,
        ),
        Part(
            segment=f"{side}_forearm",
            start=(0.0, 0.0, -body.forearm - 0.3 * body.hand),
            end=(0.01, 0.0, -body.forearm - 1.3 * body.hand),
            start_axes=(0.036, 0.024, 0.04),
            end_axes=(0.032, 0.022, 0.035),
            material="skin",
        ),
    ]


def _coat_skirt(body: Body, length: float, coat: float) -> list[Part]:
    """The coat below the waist: one piece from the pelvis, and a panel that each thigh carries with it."""
    forward, left = body.pelvis_axes
    parts = [
        Part(
            segment="pelvis",
            start=(0.0, 0.0, 0.05),
            end=(0.0, 0.0, -0.9 * length * body.thigh),
            start_axes=(forward + coat, left + coat, 0.06),
            end_axes=(forward + coat + 0.02, left + coat + 0.02, 0.025),
            material="coat",
        )
    ]
    for side in ("left", "right"):
        radius = body.thigh_radius + coat + 0.012
        parts.append(
            Part(
                segment=f"{side}_thigh",
                start=(0.0, 0.0, -0.02),
                end=(0.0, 0.0, -length * body.thigh),
                start_axes=(radius * 1.08, radius, radius),
                end_axes=(radius * 1.05, radius * 0.95, 0.03),
                material="coat",
            )
        )
    return parts


def _bag(body: Body, outfit: Outfit) -> list[Part]:
    size, left = outfit.bag_size, (1.0, -1.0)[outfit.bag_side]
    if outfit.bag == "backpack":
        depth = 0.075 * size
        behind = -body.chest_axes[0] - 0.75 * depth
        return [
            Part(
                segment="trunk",
                start=(behind - 0.02, 0.0, 0.38 * body.trunk),
                end=(behind, 0.0, 0.38 * body.trunk + 0.28 * size),
                start_axes=(depth * 1.15, 0.15 * size, 0.07),
                end_axes=(depth * 0.8, 0.12 * size, 0.08),
                material="bag",
            )
        ]
    if outfit.bag == "shoulder":
        beside = left * (body.pelvis_axes[1] + 0.045 * size)
        strap_foot = (0.06, left * body.waist_axes[1], 0.18 * body.trunk)
        across = (body.chest_axes[0] * 0.75, -left * 0.10, body.trunk)
        down_the_back = (-body.chest_axes[0] * 0.9, -left * 0.10, body.trunk)
        strap = (0.022, 0.022, 0.022)
        return [
            Part(
                segment="pelvis",
                start=(-0.12 * size, beside, 0.02),
                end=(0.10 * size, beside, 0.02),
                start_axes=(0.06, 0.06 * size, 0.13 * size),
                end_axes=(0.06, 0.06 * size, 0.13 * size),
                material="bag",
                axis=1,
            ),
            *(
                Part(
                    segment="trunk",
                    start=(sign * (body.chest_axes[0] * 0.6), strap_foot[1], strap_foot[2]),
                    end=end,
                    start_axes=strap,
                    end_axes=strap,
                    material="bag",
                )
                for sign, end in ((1.0, across), (-1.0, down_the_back))
            ),
        ]
    side = ("left", "right")[outfit.bag_side]
    return [
        Part(
            segment=f"{side}_hang",
            start=(-0.10 * size, left * 0.02, -0.20 * size),
            end=(0.10 * size, left * 0.02, -0.20 * size),
            start_axes=(0.07, 0.05 * size, 0.13 * size),
            end_axes=(0.07, 0.05 * size, 0.13 * size),
            material="bag",
            axis=1,
        ),
        Part(
            segment=f"{side}_hang",
            start=(0.0, 0.0, 0.0),
            end=(0.0, left * 0.02, -0.12 * size),
            start_axes=(0.04, 0.015, 0.02),
            end_axes=(0.07, 0.02, 0.03),
            material="bag",
        ),
    ]
