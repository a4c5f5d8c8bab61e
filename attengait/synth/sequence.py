"""One sequence's pictures, as a pure function of (seed, subject, walk, view, number of frames).

Body and gait depend on seed and subject. The way of walking on this day and the clothes also depend on the walk. They
are the same in all views, because the views are cameras that film at the same time. The room depends on the view: all
subjects are filmed by the same cameras.
"""

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.synth.body import draw_body
from attengait.synth.clothes import MATERIALS, carrying_arm, draw_outfit, dress
from attengait.synth.gait import draw_gait, vary_gait
from attengait.synth.render import Painter, Picture, make_atlas, project
from attengait.synth.scene import HEIGHT_PX, WIDTH_PX, Room, build_room, camera_for
from attengait.synth.seeds import generator
from attengait.synth.skeleton import walk as pose_walk
from attengait.synth.texture import TEXTURE_SIZE, cloth, leather, skin

_NOISE_GREY_LEVELS = 1.3
_NOISE_SPARE_PX = 64


def render_sequence(
    seed: int, subject: int, walk: str, view: int, num_frames: int
) -> Iterator[tuple[Picture, Picture]]:
    """Yield each frame's picture uint8 [240, 320, 3] (BGR) and silhouette uint8 [240, 320] (0 or 255)."""
    body = draw_body(generator(seed, "body", subject))
    gait = draw_gait(generator(seed, "gait", subject))
    today = generator(seed, "walk", subject, walk)
    outfit = draw_outfit(walk[:2], today)
    pose = pose_walk(
        body,
        vary_gait(gait, today, carrying_arm(outfit)),
        num_frames,
        start_phase=float(today.uniform(0, 2 * np.pi)),
        heading=float(np.radians(today.normal(0, 1.5))),
        aside=float(np.clip(today.normal(0, 0.06), -0.15, 0.15)),
    )
    camera = camera_for(view, num_frames)
    parts = project(dress(body, outfit), pose, camera, generator(seed, "clothes", subject, walk))
    painter = Painter(_room(seed, view, num_frames), parts, _atlas(seed, subject, walk))
    sensor = generator(seed, "noise", subject, walk, view)
    noise = _noise_field(seed)
    for frame in range(num_frames):
        picture, silhouette = painter.paint(frame)
        down, right = sensor.integers(0, _NOISE_SPARE_PX, 2)
        grain = noise[down : down + HEIGHT_PX, right : right + WIDTH_PX]
        yield cv2.add(picture, grain, dtype=cv2.CV_8U), silhouette


@lru_cache(maxsize=16)
def _room(seed: int, view: int, num_frames: int) -> Room:
    return build_room(generator(seed, "room", view), camera_for(view, num_frames), num_frames)


@lru_cache(maxsize=4)
def _atlas(seed: int, subject: int, walk: str) -> Picture:
    """The walker's textures: skin and hair are the person's own, clothes are new for every walk."""
    bare, head, hair = skin(generator(seed, "skin", subject), TEXTURE_SIZE)
    wardrobe = generator(seed, "clothes", subject, walk)
    textures = {
        "skin": bare,
        "head": head,
        "hair": hair,
        "top": cloth(wardrobe, TEXTURE_SIZE),
        "trousers": cloth(wardrobe, TEXTURE_SIZE, brightest=150),
        "shoes": leather(wardrobe, TEXTURE_SIZE),
        "coat": cloth(wardrobe, TEXTURE_SIZE),
        "bag": leather(wardrobe, TEXTURE_SIZE),
    }
    return make_atlas([textures[material] for material in MATERIALS])


@lru_cache(maxsize=1)
def _noise_field(seed: int) -> NDArray[np.int16]:
    """Sensor noise a little larger than a picture, made once: each frame takes a random window of it.

    Drawing noise anew for every frame would cost as much as painting the walker.
    """
    size = (HEIGHT_PX + _NOISE_SPARE_PX, WIDTH_PX + _NOISE_SPARE_PX, 3)
    return np.rint(generator(seed, "noise").normal(0, _NOISE_GREY_LEVELS, size)).astype(np.int16)
