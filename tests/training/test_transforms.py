"""Mirrored, moved and erased clips, held against flow that is mirrored or rotated before it is encoded."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from attengait.errors import ParameterError
from attengait.kernels.pictures.colour import colour_flow, largest_magnitude
from attengait.training import transforms
from attengait.training.settings import AugmentSettings

COLOUR = ("flow-r", "flow-g", "flow-b")
UVM = ("flow-u", "flow-v", "flow-m")


def field(seed: int = 0) -> np.ndarray:
    """Flow of all directions and many speeds, float32 [64, 64, 2], at most 10 pixels."""
    rng = np.random.default_rng(seed)
    flow = rng.normal(0, 3, (64, 64, 2)).astype(np.float32)
    flow[:8] = 0
    return np.asarray(flow * (10 / largest_magnitude(flow)), np.float32)


def uvm(flow: np.ndarray) -> torch.Tensor:
    steps = np.clip(np.rint(flow * 8), -127, 127) + 128
    magnitude = np.clip(np.rint(np.hypot(flow[..., 0], flow[..., 1]) * 8), 0, 255)
    return torch.from_numpy(np.concatenate([steps, magnitude[..., None]], -1).astype(np.uint8))[None, None]


def colour(flow: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(colour_flow(flow, np.float32(10)))[None, None]


def changes(**values: Any) -> transforms.Changes:
    drawn = transforms.draw(AugmentSettings(), 1, 1, torch.Generator().manual_seed(0))
    still = {"radians": torch.zeros(1), "scale": torch.ones(1), "shift_px": torch.zeros(1, 2)}
    given = {name: torch.as_tensor(value) for name, value in values.items()}
    return dataclasses.replace(drawn, **{**still, **given})


def distance(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    """The mean difference in levels, and the share of values that differ by more than 6.

    A pale hue is known to few levels only. And the 55 colours of the wheel stand for 54 steps, so that there is a jump
    of one step, up to 42 levels, at one direction. On which side of it a colour lies is lost in its 8 bits.
    """
    difference = (a.int() - b.int()).abs()
    assert int(difference.max()) <= 43
    return difference.float().mean().item(), (difference > 6).float().mean().item()


def mirrored(flow: np.ndarray) -> np.ndarray:
    return np.asarray(flow[:, ::-1] * np.float32([-1, 1]), np.float32)


def test_a_mirrored_clip_of_u_and_v_is_that_of_mirrored_flow() -> None:
    flow = field()
    assert torch.equal(transforms.apply(uvm(flow), changes(flipped=[True]), UVM), uvm(mirrored(flow)))


def test_a_mirrored_clip_of_colours_is_that_of_mirrored_flow_to_the_accuracy_of_its_8_bits() -> None:
    flow = field()
    flipped = transforms.apply(colour(flow), changes(flipped=[True]), COLOUR)
    mean, share = distance(flipped, colour(mirrored(flow)))
    assert mean < 1
    assert share < 0.005
    unturned = (colour(flow).flip(3).int() - colour(mirrored(flow)).int()).abs().float().mean()
    assert unturned > 20 * mean
    assert torch.equal(flipped[0, 0, :8], torch.full((8, 64, 3), 255, dtype=torch.uint8))  # no motion stays white


def test_black_stays_black_and_silhouettes_are_only_mirrored() -> None:
    clips = torch.zeros(1, 1, 64, 64, 4, dtype=torch.uint8)
    clips[..., :20, 3] = 255
    flipped = transforms.apply(clips, changes(flipped=[True]), (*COLOUR, "silhouette"))
    assert not flipped[..., :3].any()
    assert torch.equal(flipped[..., 3], clips[..., 3].flip(3))


@pytest.mark.parametrize(("encode", "channels"), [(uvm, UVM), (colour, COLOUR)])
def test_a_quarter_turn_turns_the_flow_with_the_picture(encode: Any, channels: tuple[str, ...]) -> None:
    flow = field(1)
    # np.rot90 with k = -1 takes the x axis to the y axis, which points down: (u, v) becomes (-v, u).
    turned = np.rot90(flow, -1).copy()
    turned = np.stack([-turned[..., 1], turned[..., 0]], -1)
    moved = transforms.apply(encode(flow), changes(moved=[True], radians=[math.pi / 2]), channels)
    mean, share = distance(moved, encode(turned))
    assert mean < 1
    assert share < 0.005


def test_a_shift_uncovers_no_motion_and_a_resized_picture_keeps_its_flow() -> None:
    flow = np.full((64, 64, 2), (4, -2), np.float32)
    shifted = transforms.apply(uvm(flow), changes(moved=[True], shift_px=[[3.0, 0.0]]), UVM)[0, 0]
    still = torch.tensor([128, 128, 0], dtype=torch.uint8)
    assert torch.equal(shifted[:, :3], still.expand(64, 3, 3))
    assert torch.equal(shifted[:, 3:], uvm(flow)[0, 0, :, 3:])
    larger = transforms.apply(uvm(flow), changes(moved=[True], scale=[1.1]), UVM)
    assert torch.equal(larger, uvm(flow))
    smaller = transforms.apply(uvm(flow), changes(moved=[True], scale=[0.5]), UVM)[0, 0]
    assert torch.equal(smaller[20:44, 20:44], uvm(flow)[0, 0, 20:44, 20:44])
    assert torch.equal(smaller[:, :10], still.expand(64, 10, 3))


def test_an_erased_rectangle_shows_no_motion_in_all_frames() -> None:
    clips = uvm(field()).expand(1, 3, 64, 64, 3)
    erased = transforms.apply(clips, changes(num_frames=3, erased=[True], rectangle=[[0.25, 0.5, 0.0, 0.5]]), UVM)
    still = torch.tensor([128, 128, 0], dtype=torch.uint8)
    assert torch.equal(erased[:, :, 16:32, :32], still.expand(1, 3, 16, 32, 3))
    assert torch.equal(erased[:, :, :16], clips[:, :, :16])
    assert torch.equal(erased[:, :, :, 32:], clips[:, :, :, 32:])


def test_changes_happen_with_their_probabilities_within_their_bounds() -> None:
    settings = AugmentSettings(
        flip_probability=0.5, affine_probability=0.2, affine_degrees=20, affine_scale=0.25, erase_probability=0.1
    )
    drawn = transforms.draw(settings, 4000, 30, torch.Generator().manual_seed(3))
    shares = [each.float().mean().item() for each in (drawn.flipped, drawn.moved, drawn.erased)]
    assert shares == pytest.approx([0.5, 0.2, 0.1], abs=0.03)
    assert math.degrees(drawn.radians.abs().max()) == pytest.approx(20, abs=0.2)
    assert (float(drawn.scale.min()), float(drawn.scale.max())) == pytest.approx((0.8, 1.25), abs=0.01)
    assert float(drawn.shift_px.abs().max()) == pytest.approx(4, abs=0.02)
    top, bottom, left, right = drawn.rectangle.unbind(1)
    assert bool((top >= 0).all() and (bottom <= 1.0001).all() and (left >= 0).all() and (right <= 1.0001).all())
    areas = (bottom - top) * (right - left)
    assert 0.019 < float(areas.min()) < float(areas.max()) < 0.201


def test_the_number_of_frames_is_from_16_to_one_less_than_a_clip_s() -> None:
    settings = AugmentSettings(vary_clip_frames=True)
    drawn = [transforms.draw(settings, 2, 30, torch.Generator().manual_seed(i)).num_frames for i in range(300)]
    assert set(drawn) == set(range(16, 30))


def test_a_share_of_the_global_batch_is_changed_as_in_the_whole() -> None:
    settings = AugmentSettings(flip_probability=0.5, affine_probability=0.5, erase_probability=0.5)
    clips = torch.cat([uvm(field(i)) for i in range(6)])
    drawn = transforms.draw(settings, 6, 1, torch.Generator().manual_seed(1))
    whole = transforms.apply(clips, drawn, UVM)
    parts = [transforms.apply(clips[i : i + 2], drawn.share(i, i + 2), UVM) for i in (0, 2, 4)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, clips)


def test_what_cannot_be_changed_rightly_is_refused_with_the_channels() -> None:
    for channels, settings, said in (
        (
            ("0", "1"),
            {"flip_probability": 0.5},
            "flip_probability is 0.5, but must be 0 for images of the channels 0, 1",
        ),
        (("0",), {"erase_probability": 0.5}, "whose meaning is unknown"),
        (("flow-r",), {"flip_probability": 0.5}, "a hue turns only with all its colours"),
        (("flow-u",), {"affine_probability": 0.5}, "affine_degrees is 10.0, but must be 0 for images of the channels"),
    ):
        with pytest.raises(ParameterError, match=said):
            transforms.check_channels(AugmentSettings(**settings), channels)
    for channels in (("0",), ("flow-u",), COLOUR, UVM, ("silhouette", *COLOUR)):
        transforms.check_channels(AugmentSettings(), channels)
    transforms.check_channels(AugmentSettings(affine_probability=0.5, affine_degrees=0.0), ("flow-u",))
    transforms.check_channels(AugmentSettings(flip_probability=0.5), ("flow-u",))
