"""The walker's gait: periodic, alternating, feet on the floor, and a person's own."""

import numpy as np
import pytest

from attengait.synth.body import Body, draw_body
from attengait.synth.gait import Gait, draw_gait, evaluate, vary_gait
from attengait.synth.seeds import generator
from attengait.synth.skeleton import FRAMES_PER_SECOND, SEGMENTS, Pose, rotation, sole, walk

SUBJECTS = range(1, 9)


def person(subject: int) -> tuple[Body, Gait]:
    return draw_body(generator(0, "body", subject)), draw_gait(generator(0, "gait", subject))


def soles(body: Body, pose: Pose) -> np.ndarray:
    """Left heel, left toe, right heel, right toe: [T, 4, 3]."""
    return np.stack([pose.point(f"{side}_foot", p) for side in ("left", "right") for p in sole(body)], axis=1)


def whole_cycles(gait: Gait) -> Gait:
    """The same gait with a cycle of exactly 26 frames."""
    values = {name: getattr(gait, name) for name in Gait.__slots__}
    return Gait(**(values | {"cycle_seconds": 26 / FRAMES_PER_SECOND}))


def test_rotations_are_right_handed_and_keep_lengths() -> None:
    quarter = np.array([np.pi / 2])
    np.testing.assert_allclose(rotation(2, quarter)[0] @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rotation(0, quarter)[0] @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation(1, quarter)[0] @ [0, 0, 1], [1, 0, 0], atol=1e-12)


def test_angles_are_the_sum_of_their_fourier_terms() -> None:
    terms = np.array([0.1, 0.5j, 0.25, 0, 0])
    phase = np.linspace(0, 7, 20)
    np.testing.assert_allclose(evaluate(terms, phase), 0.1 - 0.5 * np.sin(phase) + 0.25 * np.cos(2 * phase))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_gait_repeats_every_cycle_one_stride_further_on(subject: int) -> None:
    body, gait = person(subject)
    pose = walk(body, whole_cycles(gait), 60, start_phase=0.7)
    stride = pose.origins[26:, 0] - pose.origins[:-26, 0]
    np.testing.assert_allclose(stride, np.broadcast_to(stride[0], stride.shape), atol=1e-9)
    np.testing.assert_allclose(pose.rotations[26:], pose.rotations[:-26], atol=1e-9)
    assert 0.8 < stride[0, 0] < 1.9
    moved = pose.origins[26:] - pose.origins[:-26]
    np.testing.assert_allclose(moved, np.broadcast_to(stride[0], moved.shape), atol=1e-9)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_legs_alternate_and_the_arms_swing_against_them(subject: int) -> None:
    body, gait = person(subject)
    pose = walk(body, whole_cycles(gait), 26)
    ahead = {
        name: (pose.point(f"left_{name}") - pose.point(f"right_{name}"))[:, 0] for name in ("foot", "forearm", "hang")
    }
    assert ahead["foot"].max() > 0.3
    assert ahead["foot"].min() < -0.3
    assert np.corrcoef(ahead["foot"], np.roll(ahead["foot"], 13))[0, 1] < -0.9
    assert np.corrcoef(ahead["foot"], ahead["hang"])[0, 1] < -0.6


@pytest.mark.parametrize("subject", SUBJECTS)
def test_one_foot_stands_still_on_the_floor_while_the_other_overtakes_it(subject: int) -> None:
    body, gait = person(subject)
    pose = walk(body, whole_cycles(gait), 260)
    points = soles(body, pose)
    assert np.abs(points[..., 2].min(axis=1)).max() < 0.045
    # a fifth into its cycle the left foot stands, and the right one swings
    middle = np.arange(5, 250, 26)
    step = points[middle + 1] - points[middle]
    assert np.abs(step[:, :2, 0]).min(axis=1).max() < 0.012
    assert (step[:, 2:, 0] > 0.05).all()


def test_feet_would_skate_at_another_speed() -> None:
    """The forward speed comes from the legs: doubled hip amplitude means a longer stride."""
    body, gait = person(1)
    values = {name: getattr(gait, name) for name in Gait.__slots__}
    wide = gait.hip.copy()
    wide[:, 1:] *= 1.5
    usual, longer = (walk(body, g, 26).origins[:, 0, 0] for g in (gait, Gait(**(values | {"hip": wide}))))
    assert np.ptp(longer) > 1.25 * np.ptp(usual)


def test_heading_turns_the_path_about_its_middle() -> None:
    body, gait = person(1)
    straight, turned = walk(body, gait, 50), walk(body, gait, 50, heading=np.pi / 2)
    np.testing.assert_allclose(turned.origins[..., 1], straight.origins[..., 0], atol=1e-9)
    assert abs(straight.origins[[0, -1], 0, 0].sum()) < 1e-9


def test_people_differ_and_walks_of_one_person_differ_less() -> None:
    gaits = [person(subject)[1] for subject in range(1, 41)]
    walks = [vary_gait(gaits[0], generator(0, "walk", 1, f"nm-{i:02d}")) for i in range(1, 41)]
    for joint in ("hip", "knee", "ankle", "shoulder", "elbow"):
        people = np.std([getattr(gait, joint)[0, :2] for gait in gaits], axis=0)
        repeats = np.std([getattr(gait, joint)[0, :2] for gait in walks], axis=0)
        assert (repeats > 0).all()
        assert (people > 1.5 * repeats).all()
    assert np.std([gait.cycle_seconds for gait in gaits]) > np.std([gait.cycle_seconds for gait in walks]) > 0


def test_a_bag_in_the_hand_halves_that_arms_swing() -> None:
    gait = person(1)[1]
    free, held = (vary_gait(gait, generator(0, "walk", 1, "bg-01"), arm) for arm in (None, 1))
    np.testing.assert_allclose(held.shoulder[1, 1:], free.shoulder[1, 1:] / 2)
    np.testing.assert_array_equal(held.shoulder[0], free.shoulder[0])


def test_every_segment_has_a_place_and_a_turn() -> None:
    body, gait = person(3)
    pose = walk(body, gait, 7)
    assert pose.origins.shape == (7, len(SEGMENTS), 3)
    np.testing.assert_allclose(
        pose.rotations @ pose.rotations.swapaxes(-1, -2), np.broadcast_to(np.eye(3), pose.rotations.shape), atol=1e-12
    )
    left_knee = np.linalg.norm(pose.point("left_shank") - pose.point("left_thigh"), axis=1)
    np.testing.assert_allclose(left_knee, body.thigh)
