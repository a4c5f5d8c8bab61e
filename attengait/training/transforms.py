"""Clips mirrored, rotated, resized, shifted or partly erased at random, in the terms of what their channels mean.

    flow-r, -g, -b   flow as a colour on the Middlebury wheel: the hue is the direction, white is no motion
    flow-u, -v       steps to the right and down, 128 is no motion; -m is the magnitude
    silhouette, rgb  plain pictures; 0 is "outside"

A picture that is mirrored or rotated shows flow in other directions. So the hue turns, or u and v do. A picture that
is resized keeps its flow: stored flow is in pixels of the original frame, however large the crop was. What a
rotation, a shift or an erased rectangle uncovers shows no motion.

Changes are drawn for a whole batch first, and applied then. So several processes can draw for the global batch and
each apply its own share. Shapes: N clips, T frames, H x W pixels, C channels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from attengait.errors import require
from attengait.model.losses import send
from attengait.model.pyramids import MIN_FRAMES
from attengait.training.settings import AugmentSettings

_COLOURS = ("flow-r", "flow-g", "flow-b")
_STILL = dict.fromkeys(_COLOURS, 255) | {"flow-u": 128, "flow-v": 128, "flow-m": 0, "silhouette": 0}
_STILL |= dict.fromkeys(("rgb-r", "rgb-g", "rgb-b"), 0)
"""The value of each known channel that stands for no motion, or for outside."""
_RUNS = (15.0, 6.0, 4.0, 11.0, 13.0, 6.0)
"""Steps of the Middlebury wheel from red to yellow, green, cyan, blue, magenta and red again."""
_HALF = 27.0
"""Half of the 54 steps that flow of all directions is spread over (attengait.kernels.pictures.colour)."""
_ERASED = (0.02, 0.2)
"""The least and the largest share of the picture that is erased."""
_ASPECTS = (1 / 3, 3.0)
"""The least and the largest ratio of an erased rectangle's height to its width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What happens to each of N clips; on the CPU."""

    num_frames: int
    """Frames that are left of each clip, the first ones."""
    flipped: Tensor
    """bool [N]"""
    moved: Tensor
    """bool [N]: whether the next three apply."""
    radians: Tensor
    """float32 [N], from the x axis towards the y axis, which points down."""
    scale: Tensor
    """float32 [N]; above 1 the picture grows."""
    shift_px: Tensor
    """float32 [N, 2], to the right and down."""
    erased: Tensor
    """bool [N]: whether the rectangle applies."""
    rectangle: Tensor
    """float32 [N, 4]: top, bottom, left, right, as shares of the picture."""

    def share(self, first: int, last: int) -> "Changes":
        """Those of the clips from `first` to before `last`."""
        names = [name for name in self.__slots__ if name != "num_frames"]
        return Changes(num_frames=self.num_frames, **{name: getattr(self, name)[first:last] for name in names})


def check_channels(settings: AugmentSettings, channels: Sequence[str]) -> None:
    """Raise ParameterError where images with channels of these names cannot be changed as the settings say."""
    colours, vectors = set(_COLOURS) & set(channels), {"flow-u", "flow-v"} & set(channels)
    what = f"0 for images of the channels {', '.join(channels)}"
    is_known, has_all_colours = all(name in _STILL for name in channels), len(colours) in (0, 3)
    for name in ("flip_probability", "affine_probability", "erase_probability"):
        value = getattr(settings, name)
        require(value == 0 or is_known, name, value, f"{what}, whose meaning is unknown")
    value = settings.flip_probability
    require(value == 0 or has_all_colours, "flip_probability", value, f"{what}: a hue turns only with all its colours")
    value = settings.affine_degrees
    is_accepted = settings.affine_probability == 0 or value == 0 or (has_all_colours and len(vectors) in (0, 2))
    require(is_accepted, "affine_degrees", value, f"{what}: flow turns only where all of it is there")


def draw(settings: AugmentSettings, num_clips: int, clip_frames: int, generator: torch.Generator) -> Changes:
    """Draw the changes of a batch from `generator` (a CPU generator)."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num_clips, *shape, generator=generator)

    num_frames = int(torch.randint(MIN_FRAMES, max(clip_frames, MIN_FRAMES + 1), (1,), generator=generator).item())
    flipped, moved, erased = torch.rand(3, num_clips, generator=generator)
    radians = math.radians(settings.affine_degrees)
    growth = math.log1p(settings.affine_scale)
    turn, size, shift = uniform(-radians, radians), uniform(-growth, growth).exp(), uniform(-1, 1, 2)
    area, aspect = uniform(*_ERASED), uniform(math.log(_ASPECTS[0]), math.log(_ASPECTS[1])).exp()
    sides = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], 1).clamp(max=1)  # [N, 2]: height, width
    first = uniform(0, 1, 2) * (1 - sides)
    last = first + sides
    return Changes(
        num_frames=num_frames if settings.vary_clip_frames else clip_frames,
        flipped=flipped < settings.flip_probability,
        moved=moved < settings.affine_probability,
        radians=turn,
        scale=size,
        shift_px=shift * settings.affine_shift_px,
        erased=erased < settings.erase_probability,
        rectangle=torch.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], 1),
    )


def apply(frames: Tensor, changes: Changes, channels: Sequence[str]) -> Tensor:
    """Return changed clips, uint8 [N, T', H, W, C]; `frames` uint8 [N, T, H, W, C] are left as they are."""
    frames = frames[:, : changes.num_frames]
    if not (changes.flipped | changes.moved | changes.erased).any():
        return frames
    frames = frames.clone()

    def change(chosen: Tensor, changed: Callable[[Tensor, Tensor], Tensor]) -> None:
        at = chosen.nonzero()[:, 0]  # on the CPU, so that nothing waits for a GPU
        if len(at):
            where = send(at, frames.device)
            frames[where] = changed(frames[where], at)

    change(changes.flipped, lambda clips, _: _flip(clips, channels))
    change(changes.moved, lambda clips, at: _move(clips, changes, at, channels))
    change(changes.erased, lambda clips, at: _erase(clips, changes.rectangle[at], channels))
    return frames


def _flip(clips: Tensor, channels: Sequence[str]) -> Tensor:
    """Mirror columns and directions: u becomes -u."""
    clips = clips.flip(3)
    if "flow-u" in channels:
        u = channels.index("flow-u")
        clips[..., u] = (256 - clips[..., u].int()).clamp(max=255).to(torch.uint8)
    # On the wheel, the direction a (from -1 to 1, in half turns) is at (a + 1) * 27; mirrored it is at 1 - a or -1 - a.
    return _turn_hue(clips, channels, lambda position: torch.where(position < _HALF, _HALF, 3 * _HALF) - position)


def _move(clips: Tensor, changes: Changes, at: Tensor, channels: Sequence[str]) -> Tensor:
    """Rotate, resize and shift clips uint8 [n, T, H, W, C], by bilinear sampling; `at` are their numbers [n]."""
    n, num_frames, height, width, num_channels = clips.shape
    radians, scale = changes.radians[at], changes.scale[at]
    cos, sin = radians.cos() / scale, radians.sin() / scale
    # From where in the old picture a pixel of the new one comes, in units of half the picture.
    back = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)  # [n, 2, 2]
    shift = changes.shift_px[at] * 2 / torch.tensor([width, height])
    theta = torch.cat([back, -(back @ shift[..., None])], 2)  # [n, 2, 3]
    grid = functional.affine_grid(send(theta, clips.device), [n, 1, height, width], align_corners=False)
    still = torch.tensor([float(_STILL[name]) for name in channels])
    still = send(still, clips.device)
    maps = (clips.float() - still).permute(0, 1, 4, 2, 3).flatten(1, 2)  # [n, T C, H, W]
    maps = functional.grid_sample(maps, grid, align_corners=False)
    moved = maps.view(n, num_frames, num_channels, height, width).permute(0, 1, 3, 4, 2)
    angle = send(radians, clips.device).view(n, 1, 1, 1)
    if "flow-u" in channels and "flow-v" in channels:
        u, v = channels.index("flow-u"), channels.index("flow-v")
        c, s, along, down = angle.cos(), angle.sin(), moved[..., u], moved[..., v]
        moved = moved.clone()
        moved[..., u], moved[..., v] = c * along - s * down, s * along + c * down
    moved = (moved + still).round().clamp(0, 255).to(torch.uint8)
    steps = 2 * _HALF
    return _turn_hue(moved, channels, lambda position: (position + angle * (_HALF / math.pi)) % steps)


def _erase(clips: Tensor, rectangle: Tensor, channels: Sequence[str]) -> Tensor:
    height, width = clips.shape[2:4]
    edges = (rectangle * torch.tensor([height, height, width, width])).round()
    top, bottom, left, right = send(edges, clips.device).view(-1, 4, 1).unbind(1)  # each [n, 1]
    rows, columns = torch.arange(height, device=clips.device), torch.arange(width, device=clips.device)
    inside = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[
        :, None
    ]  # [n, H, W]
    still = send(torch.tensor([_STILL[name] for name in channels], dtype=torch.uint8), clips.device)
    return torch.where(inside[:, None, :, :, None], still, clips)


def _turn_hue(clips: Tensor, channels: Sequence[str], turn: Callable[[Tensor], Tensor]) -> Tensor:
    """Turn flow that is painted as colours: `turn` maps positions [n, T, H, W] on the wheel, from 0 to 55, to new ones.

    Saturation and value of a colour stay, so that white and black stay, too.
    """
    if not set(_COLOURS) <= set(channels):
        return clips
    where = [channels.index(name) for name in _COLOURS]
    colours = clips[..., where].float()  # [n, T, H, W, 3]
    value, least = colours.amax(-1), colours.amin(-1)
    chroma = value - least
    turned = _wheel_colour(turn(_wheel_position(colours, value, chroma)))
    colours = least[..., None] + chroma[..., None] * turned
    clips = clips.clone()
    clips[..., where] = colours.round().clamp(0, 255).to(torch.uint8)
    return clips


def _knots(device: torch.device) -> Tensor:
    """Where on the wheel the six pure colours are, and red again, float32 [7]."""
    return send(torch.tensor([0.0, *_RUNS]).cumsum(0), device)


def _wheel_position(colours: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """The position [...] of colours [..., 3] on the wheel, from 0 to 55; of a grey, any."""
    r, g, b = colours.unbind(-1)
    safe = chroma.clamp(min=1)
    hue = torch.where(
        value == r, ((g - b) / safe) % 6, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4)
    )  # from 0 to 6, in the order red, yellow, green, cyan, blue, magenta
    run = hue.floor().clamp(0, 5).long()
    knots = _knots(colours.device)
    return torch.lerp(knots[run], knots[run + 1], hue - run)


def _wheel_colour(position: Tensor) -> Tensor:
    """The pure colour [..., 3], from 0 to 1, at a position [...] on the wheel, from 0 to 55."""
    knots = _knots(position.device)
    run = torch.bucketize(position, knots, right=True).sub_(1).clamp_(0, 5)
    hue = run + (position - knots[run]) / (knots[run + 1] - knots[run])
    k = torch.tensor([5.0, 3.0, 1.0])
    k = (send(k, position.device) + hue[..., None]) % 6
    return 1 - torch.minimum(k, 4 - k).clamp(0, 1)
