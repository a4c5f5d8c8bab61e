"""Where people walk: a fixed camera for every view, and the room without motion behind the walker.

Camera axes are right, down, forward, in metres; pixels count from the picture's upper left. View 000 sees the walker
come towards the camera, 090 shows the left side, 180 the back. A camera stands as near as possible, but so far away
that a fast, tall walker stays in the picture for the whole sequence. So longer sequences are seen from farther away.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.synth.skeleton import FRAMES_PER_SECOND
from attengait.synth.texture import ground, plaster

WIDTH_PX, HEIGHT_PX = 320, 240
FOCAL_PX = 460.0
MARGIN_PX = 8.0
CAMERA_HEIGHT = 1.3
AIM_HEIGHT = 0.93

_FASTEST = 1.55
"""Metres per second."""
_REACH = 0.6
"""How far a walker reaches from their middle, in metres: a step, and how far they leave the path."""
_TALLEST = 2.0

_WALL_BEHIND = 1.6
"""Metres from the end of the path to the wall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a camera stands, compared with the usual place of its view."""

    turn: float = 0.0
    """Degrees around the middle of the path."""
    farther: float = 1.0
    """Times the least distance."""
    height: float = CAMERA_HEIGHT
    """Metres above the floor."""


USUAL = Place()


def draw_place(rng: np.random.Generator) -> Place:
    """Draw a place near the usual one: nearer or farther, higher or lower."""
    return Place(
        turn=float(rng.uniform(-3, 3)),
        farther=float(rng.uniform(1.0, 1.2)),
        height=float(rng.uniform(1.0, 1.7)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A pinhole camera: position float64 [3] in the world, rotation [3, 3] with rows right, down, forward."""

    position: NDArray[np.float64]
    rotation: NDArray[np.float64]

    def to_camera(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """World points [..., 3] in the camera's axes."""
        seen: NDArray[np.floating] = (points - self.position) @ self.rotation.T
        return seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the camera sees without a walker."""

    picture: NDArray[np.uint8]
    """[240, 320, 3], BGR."""
    floor: NDArray[np.float32]
    """World x and y of the floor that each pixel shows, metres, [240, 320, 2]; far away where it shows the wall."""


def path_metres(num_frames: int) -> float:
    """The longest way that a walker goes in so many frames."""
    return _FASTEST * num_frames / FRAMES_PER_SECOND


def camera_for(view: int, num_frames: int, place: Place = USUAL) -> Camera:
    """The camera of one view (degrees) for sequences of so many frames."""
    angle = np.radians(view + place.turn)
    along, across = abs(np.cos(angle)) * path_metres(num_frames) / 2, abs(np.sin(angle)) * path_metres(num_frames) / 2
    wide = along + FOCAL_PX * (across + _REACH) / (WIDTH_PX / 2 - MARGIN_PX)
    high = along + _REACH / 2 + FOCAL_PX * (_TALLEST - AIM_HEIGHT) / (HEIGHT_PX / 2 - MARGIN_PX)
    distance = place.farther * max(wide, high)
    position = np.array([distance * np.cos(angle), distance * np.sin(angle), place.height])
    forward = np.array([0.0, 0.0, AIM_HEIGHT]) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return Camera(position=position, rotation=np.stack([right, np.cross(forward, right), forward]))


def build_room(rng: np.random.Generator, camera: Camera, num_frames: int) -> Room:
    """A slab floor and a stained wall across the camera's view, behind the whole path."""
    texels_per_metre, size = 128.0, 512
    columns, rows = np.meshgrid(np.arange(WIDTH_PX), np.arange(HEIGHT_PX))
    rays = np.stack(
        [columns - (WIDTH_PX - 1) / 2, rows - (HEIGHT_PX - 1) / 2, np.full(columns.shape, FOCAL_PX)], axis=-1
    )
    rays = rays @ camera.rotation  # [240, 320, 3] in the world
    back = -np.array([camera.position[0], camera.position[1], 0.0])
    back /= np.linalg.norm(back)
    wall_distance = np.linalg.norm(camera.position[:2]) + path_metres(num_frames) / 2 + _WALL_BEHIND
    to_wall = wall_distance / (rays @ back)
    to_floor = np.where(rays[..., 2] < 0, -camera.position[2] / np.minimum(rays[..., 2], -1e-9), np.inf)
    floor_is_seen = to_floor < to_wall
    hit = camera.position + rays * np.minimum(to_wall, to_floor)[..., None]

    def textured(texture: NDArray[np.uint8], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
        column, row = ((np.mod(v, size / texels_per_metre) * texels_per_metre).astype(np.float32) for v in (x, y))
        seen: NDArray[np.uint8] = cv2.remap(texture, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return seen

    floor = textured(ground(rng, size, int(rng.integers(5, 9))), hit[..., 0], hit[..., 1])
    wall = textured(plaster(rng, size), hit @ np.array([-back[1], back[0], 0.0]), hit[..., 2]).astype(np.float32)
    skirting = hit[..., 2] < 0.11
    wall[skirting] *= 0.55
    picture = np.where(floor_is_seen[..., None], floor, wall.astype(np.uint8))
    place = np.where(floor_is_seen[..., None], hit[..., :2], 1e3).astype(np.float32)
    return Room(picture=np.ascontiguousarray(picture), floor=place)
