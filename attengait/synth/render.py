"""Paint a walker in a pose: swept ellipsoids in perspective, the nearest in front, with textures and soft shading.

A part's picture is found in two dimensions. On the screen it is a sweep of ellipses from its start to its end; a pixel
has three coordinates there: `sweep` (0 at the start, 1 at the end), `side` (-1 to 1 across) and `past` (0 between the
ends, up to 1 in the round caps beyond them). With facing = sqrt(1 - side^2 - past^2) they give a point on a unit
sphere, and from this point depth, texture and shade follow. First each part writes these coordinates into shared
buffers, at the pixels where it is the nearest. Then all visible pixels are shaded at once.

Shapes: T frames, P parts, V visible pixels. Units: metres in the camera's axes (right, down, forward), pixels on the
screen. An ellipsoid is drawn with the perspective of its middle: perspective does not change across it.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.synth.clothes import MATERIALS, Part
from attengait.synth.scene import FOCAL_PX, HEIGHT_PX, WIDTH_PX, Camera, Room
from attengait.synth.skeleton import SEGMENTS, Pose
from attengait.synth.texture import TEXELS_PER_METRE, TEXTURE_SIZE, Texture

Floats = NDArray[np.floating]
Picture = NDArray[np.uint8]
Box = tuple[slice, slice]

_LIGHT = np.array([-0.5, -0.65, -0.57])
"""Towards the lamp, in the camera's axes: above it, to its left."""
_AMBIENT, _DIFFUSE, _DARKEST = 0.66, 0.42, 0.3
_SHADOW, _SHADOW_METRES = 0.3, 0.14
_EDGE_METRES = 10.0
"""Where a part covers less than half of a pixel, it is moved back so far that any part that covers more hides it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Every part on the screen in every frame."""

    sweeps: Floats
    """[T, P, 17]: what `_draw` needs, in its order."""
    boxes: NDArray[np.intp]
    """[T, P, 4]: left, top, right, bottom of what a part covers, pixels within the picture."""
    shading: NDArray[np.float32]
    """[T, P, 13]: what `_shade` needs, in its order."""
    texture: NDArray[np.intp]
    """[P]: which texture of the atlas."""
    feet: Floats
    """[T, 2, 2]: where the feet are on the floor, metres."""
    shadows: NDArray[np.intp]
    """[T, 4]: the box of the feet's shadows."""


def make_atlas(textures: list[Texture]) -> Picture:
    """M textures [N, N, 3] one below the other, with borders that repeat the opposite side: [M (N + 2), N + 2, 3]."""
    return np.concatenate([np.pad(texture, ((1, 1), (1, 1), (0, 0)), mode="wrap") for texture in textures])


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return unit


def _dot(a: Floats, b: Floats) -> Floats:
    product: Floats = np.einsum("...i,...i->...", a, b)
    return product


def project(parts: list[Part], pose: Pose, camera: Camera, rng: np.random.Generator) -> Projection:
    """Place every part on the screen; `rng` draws where in its texture a part begins."""
    segment = [SEGMENTS.index(part.segment) for part in parts]
    turn = camera.rotation @ pose.rotations[:, segment]  # [T, P, 3, 3]
    origin = camera.to_camera(pose.origins[:, segment])  # [T, P, 3]
    starts, ends = (np.array([getattr(part, name) for part in parts]) for name in ("start", "end"))
    start_axes, end_axes = (np.array([getattr(part, name) for part in parts]) for name in ("start_axes", "end_axes"))

    start = origin + np.einsum("tpij,pj->tpi", turn, starts)
    end = origin + np.einsum("tpij,pj->tpi", turn, ends)
    middle = np.array([(WIDTH_PX - 1) / 2, (HEIGHT_PX - 1) / 2])
    start_px, end_px = (middle + FOCAL_PX * point[..., :2] / point[..., 2:] for point in (start, end))
    way_px = end_px - start_px
    way_px[np.linalg.norm(way_px, axis=-1) < 1e-3] = (1e-3, 0.0)  # seen from its end, a part has no direction: take any
    length_px = np.linalg.norm(way_px, axis=-1)
    along_x, along_y = np.moveaxis(way_px / length_px[..., None], -1, 0)

    # each end's ellipsoid on the screen: what its three axes (columns) are in pixels to the right and down
    first, last = turn * start_axes[:, None, :], turn * end_axes[:, None, :]
    first_px, last_px = _on_screen(first, start), _on_screen(last, end)
    corners = [(point, np.linalg.norm(axes, axis=-1) + 1) for point, axes in ((start_px, first_px), (end_px, last_px))]
    boxes = _boxes(np.minimum(*(point - r for point, r in corners)), np.maximum(*(point + r for point, r in corners)))
    ellipses = []
    for axes_px in (first_px, last_px):
        along = axes_px[..., 0, :] * along_x[..., None] + axes_px[..., 1, :] * along_y[..., None]
        across = axes_px[..., 1, :] * along_x[..., None] - axes_px[..., 0, :] * along_y[..., None]
        width = np.linalg.norm(across, axis=-1)
        lean = _dot(along, across) / width**2
        ellipses.append((width, lean, np.linalg.norm(along - lean[..., None] * across, axis=-1), _unit(across)))
    (start_width, start_lean, start_cap, start_across), (end_width, end_lean, end_cap, end_across) = ellipses
    lean = (start_lean + end_lean) / 2

    # the directions side, past and facing on the unit sphere that becomes the ellipsoid
    ray = -_unit(start + end)
    sphere_across = _unit(start_across + end_across)
    sphere_facing = _unit(np.einsum("tpji,tpj->tpi", turn, ray) / ((start_axes + end_axes) / 2))
    sphere_along = np.cross(sphere_facing, sphere_across)
    sphere = np.stack([sphere_across, sphere_along, sphere_facing], axis=-1)  # [T, P, sphere's axis, direction]
    near_first, near_last = (np.einsum("tpi,tpij,tpjd->dtp", ray, axes, sphere) for axes in (first, last))
    sweeps = np.stack(
        [
            # the way along the part is counted parallel to the ellipses' leaning axis
            *(start_px[..., 0], start_px[..., 1], along_x, along_y, along_x + lean * along_y, along_y - lean * along_x),
            *(length_px, start_width, end_width, start_cap, end_cap, start[..., 2], end[..., 2]),
            *(near_first[2], near_last[2], (near_first[0] + near_last[0]) / 2, (near_first[1] + near_last[1]) / 2),
        ],
        axis=-1,
    )

    around = [((part.axis + 1) % 3, (part.axis + 2) % 3) for part in parts]
    index = np.arange(len(parts))
    cosine, sine = (sphere[:, index, [pair[k] for pair in around]] for k in (0, 1))  # [T, P, 3]
    metres = np.linalg.norm(ends - starts, axis=-1)
    cap_metres = (start_axes + end_axes)[index, [part.axis for part in parts]] / 2
    girth = np.array(
        [
            np.mean([part.start_axes[k] + part.end_axes[k] for k in pair])
            for part, pair in zip(parts, around, strict=True)
        ]
    )
    repeats = np.maximum(1, np.round(np.pi * girth * TEXELS_PER_METRE / TEXTURE_SIZE))
    offset = rng.integers(0, TEXTURE_SIZE, len(parts)).astype(np.float64)
    for i, part in enumerate(parts):
        if part.material == "head":  # the only texture with a place of its own: its rows count from the chin
            repeats[i], offset[i] = 1, part.start[2] * TEXELS_PER_METRE
    constant = np.broadcast_to(
        np.stack(
            [metres * TEXELS_PER_METRE, cap_metres * TEXELS_PER_METRE, offset, repeats * TEXTURE_SIZE / 360], axis=-1
        ),
        (*cosine.shape[:2], 4),
    )
    turned_light = np.einsum("tpji,j->tpi", turn, _LIGHT)
    light = np.einsum("tpi,tpid->tpd", turned_light, sphere)
    feet = np.stack([pose.point(f"{side}_foot", (0.06, 0.0, 0.0)) for side in ("left", "right")], axis=1)
    feet[..., 2] = 0
    seen = camera.to_camera(feet)
    feet_px = middle + FOCAL_PX * seen[..., :2] / seen[..., 2:]
    dark = 2.3 * _SHADOW_METRES * FOCAL_PX / seen[..., 2].min()
    return Projection(
        sweeps=sweeps,
        boxes=boxes,
        shading=np.concatenate([cosine, sine, light * _DIFFUSE, constant], axis=-1).astype(np.float32),
        texture=np.array([MATERIALS.index(part.material) for part in parts]),
        feet=feet[..., :2],
        shadows=_boxes(feet_px.min(axis=1) - dark, feet_px.max(axis=1) + dark),
    )


def _on_screen(axes: Floats, point: Floats) -> Floats:
    """Small vectors (columns [T, P, 3, 3]) at points [T, P, 3] as pixels to the right and down, [T, P, 2, 3]."""
    slope = point[..., :2, None] / point[..., 2:, None]
    seen: Floats = FOCAL_PX / point[..., 2, None, None] * (axes[..., :2, :] - slope * axes[..., 2:, :])
    return seen


def _boxes(upper_left: Floats, lower_right: Floats) -> NDArray[np.intp]:
    """Whole pixels [..., 4] that hold these corners [..., 2], cut to the picture."""
    size = np.array([WIDTH_PX, HEIGHT_PX])
    first = np.clip(np.floor(upper_left), 0, size)
    last = np.clip(np.ceil(lower_right) + 1, 0, size)
    return np.concatenate([first, last], axis=-1).astype(np.intp)


class Painter:
    """Paints one sequence, frame by frame, into buffers that all its frames share."""

    def __init__(self, room: Room, projection: Projection, atlas: Picture) -> None:
        self.room = room
        self.projection = projection
        self.atlas = atlas
        size = (HEIGHT_PX, WIDTH_PX)
        self._columns = np.arange(WIDTH_PX, dtype=np.float32)[None, :]
        self._rows = np.arange(HEIGHT_PX, dtype=np.float32)[:, None]
        self._depth, self._cover, self._sweep, self._side, self._past = (np.empty(size, np.float32) for _ in range(5))
        self._part = np.empty(size, np.intp)

    def paint(self, frame: int) -> tuple[Picture, Picture]:
        """The picture uint8 [240, 320, 3] (BGR, no sensor noise) and the silhouette uint8 [240, 320] (0 or 255)."""
        boxes = self.projection.boxes[frame]
        (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        whole = np.s_[top:bottom, left:right]
        self._depth[whole] = np.inf
        self._cover[whole] = 0
        sweeps = self.projection.sweeps[frame].tolist()
        for part, (sweep, (left, top, right, bottom)) in enumerate(zip(sweeps, boxes.tolist(), strict=True)):
            self._draw(part, sweep, np.s_[top:bottom, left:right])
        picture = self.room.picture.copy()
        self._cast_shadow(picture, frame)
        self._shade(picture[whole], frame, whole)
        silhouette = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
        silhouette[whole] = (self._cover[whole] >= 0.5) * np.uint8(255)
        return picture, silhouette

    def _draw(self, part: int, values: list[float], box: Box) -> None:
        """Write a part's coordinates into the buffers at the pixels where it is the nearest so far."""
        (x, y, across_y, across_x, along_x, along_y, length, start_width, end_width, start_cap, end_cap) = values[:11]
        (start_depth, end_depth, start_facing, end_facing, near_side, near_past) = values[11:]
        columns, rows = self._columns[:, box[1]] - x, self._rows[box[0]] - y
        along = columns * along_x + rows * along_y
        side = rows * across_y - columns * across_x
        sweep = np.minimum(np.maximum(along * (1 / length), 0), 1)
        width = sweep * (end_width - start_width) + start_width
        side /= width
        past = along - sweep * length
        past *= np.where(past < 0, np.float32(1 / start_cap), np.float32(1 / end_cap))
        inside = 1 - (side * side + past * past)
        # near the edge, 1 - r is (1 - r^2) / 2
        cover = inside * np.minimum(width, min(start_cap, end_cap) + length) * 0.5 + 0.5
        depth = sweep * (end_depth - start_depth) + start_depth
        depth -= np.sqrt(np.maximum(inside, 0)) * (sweep * (end_facing - start_facing) + start_facing)
        depth -= side * near_side + past * near_past
        depth += (cover < 0.5) * np.float32(_EDGE_METRES)
        nearer = (cover > 0) & (depth < self._depth[box])
        for buffer, value in (
            (self._depth, depth),
            (self._sweep, sweep),
            (self._side, side),
            (self._past, past),
        ):
            np.copyto(buffer[box], value, where=nearer)
        self._part[box][nearer] = part
        np.maximum(self._cover[box], cover, out=self._cover[box])

    def _cast_shadow(self, picture: Picture, frame: int) -> None:
        """Darken the floor softly around both feet."""
        left, top, right, bottom = self.projection.shadows[frame].tolist()
        box = np.s_[top:bottom, left:right]
        floor = self.room.floor[box]
        light = np.ones(floor.shape[:2], np.float32)
        for foot in self.projection.feet[frame].astype(np.float32):
            away = floor - foot
            light *= 1 - _SHADOW * np.exp(np.einsum("yxc,yxc->yx", away, away) * np.float32(-0.5 / _SHADOW_METRES**2))
        picture[box] = (picture[box] * light[..., None]).astype(np.uint8)

    def _shade(self, picture: Picture, frame: int, box: Box) -> None:
        """Give each visible pixel of a box its texture and light; mix pixels at an edge with what is behind."""
        visible = self._cover[box] > 0
        if not visible.any():
            return
        part = self._part[box][visible]
        sweep, side, past = (buffer[box][visible] for buffer in (self._sweep, self._side, self._past))
        cover = np.minimum(self._cover[box][visible], 1)
        facing = np.sqrt(np.maximum(1 - side * side - past * past, 0))
        table = self.projection.shading[frame].T[:, part]  # [13, V]
        cosine = side * table[0] + past * table[1] + facing * table[2]
        sine = side * table[3] + past * table[4] + facing * table[5]
        shade = _AMBIENT + side * table[6] + past * table[7] + facing * table[8]
        row = sweep * table[9] + past * table[10] + table[11]
        column = cv2.phase(cosine, sine, angleInDegrees=True).ravel() * table[12]
        row = row % TEXTURE_SIZE + (self.projection.texture[part] * (TEXTURE_SIZE + 2) + 1).astype(np.float32)
        column = column % TEXTURE_SIZE + 1
        colour = cv2.remap(self.atlas, column[None], row[None], cv2.INTER_LINEAR)[0]
        lit = colour * (np.maximum(shade, _DARKEST) * cover)[:, None]
        lit += picture[visible] * (1 - cover)[:, None]
        picture[visible] = np.minimum(lit, 255).astype(np.uint8)
