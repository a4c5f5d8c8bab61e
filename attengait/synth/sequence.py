"""One sequence's pictures, as a pure function of (seed, subject, walk, view, number of frames, identity).

Body and gait depend on seed and subject. The way of walking on this day and the clothes also depend on the walk. They
are the same in all views, because the views are cameras that film at the same time. The room depends on the view: all
subjects are filmed by the same cameras.

With the identity `rhythm` a subject is known by the rhythm alone in which the trunk rocks. Everything else depends on
the walk and not on the subject: in one walk all people have the same body, gait, skin and clothes, and in the next walk
all have others. Each view has several cameras at different distances and heights, and each sequence is filmed by one of
them.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from attengait.synth.body import draw_body
from attengait.synth.clothes import MATERIALS, carrying_arm, draw_outfit, dress
from attengait.synth.gait import draw_gait, draw_rhythm, vary_gait, with_rhythm
from attengait.synth.render import Painter, Picture, make_atlas, project
from attengait.synth.scene import HEIGHT_PX, USUAL, WIDTH_PX, Place, Room, build_room, camera_for, draw_place
from attengait.synth.seeds import generator
from attengait.synth.skeleton import walk as pose_walk
from attengait.synth.texture import TEXTURE_SIZE, cloth, leather, skin

_NOISE_GREY_LEVELS = 1.3
_NOISE_SPARE_PX = 64


Identity = Literal["all", "rhythm"]
"""What a subject is known by: body, gait and skin, or the rhythm in which the trunk rocks."""

_EVERYBODY = 0
"""The subject whose looks all people have, where the identity is the rhythm."""
_CAMERAS = 6
"""Of each view, where the identity is the rhythm."""
_VARIETY = 0.3
"""Of bodies and joints there, times the usual differences: what a small network learns in minutes."""
_NOISE_FACTORS = (0.2, 1.0)
"""Of the sensor there, times the usual noise."""


def render_sequence(
    seed: int, subject: int, walk: str, view: int, num_frames: int, identity: Identity = "all"
) -> Iterator[tuple[Picture, Picture]]:
    """Yield each frame's picture uint8 [240, 320, 3] (BGR) and silhouette uint8 [240, 320] (0 or 255)."""
    is_usual = identity == "all"
    model = subject if is_usual else _EVERYBODY
    who = (subject,) if is_usual else (model, walk)
    variety = 1.0 if is_usual else _VARIETY
    body = draw_body(generator(seed, "body", *who), variety)
    today = generator(seed, "walk", model, walk)
    outfit = draw_outfit(walk[:2], today)
    gait = vary_gait(draw_gait(generator(seed, "gait", *who), variety), today, carrying_arm(outfit))
    way = today if is_usual else generator(seed, "walk", subject, walk)
    camera_number: int | None = None
    if identity == "rhythm":
        gait = with_rhythm(
            gait, draw_rhythm(generator(seed, "rhythm", subject)), generator(seed, "rhythm", subject, walk)
        )
        camera_number = int(generator(seed, "camera", subject, walk, view).integers(_CAMERAS))
    pose = pose_walk(
        body,
        gait,
        num_frames,
        start_phase=float(way.uniform(0, 2 * np.pi)),
        heading=float(np.radians(way.normal(0, 1.5))),
        aside=float(np.clip(way.normal(0, 0.06), -0.15, 0.15)),
    )
    camera = camera_for(view, num_frames, _place(seed, view, camera_number))
    parts = project(dress(body, outfit), pose, camera, generator(seed, "clothes", model, walk))
    painter = Painter(_room(seed, view, num_frames, camera_number), parts, _atlas(seed, who, model, walk))
    sensor = generator(seed, "noise", subject, walk, view)
    noise = _noise_field(seed)
    if identity == "rhythm":
        grain_factor = np.exp(generator(seed, "camera", subject, walk, view, "noise").uniform(*np.log(_NOISE_FACTORS)))
        noise = np.rint(noise * grain_factor).astype(np.int16)
    for frame in range(num_frames):
        picture, silhouette = painter.paint(frame)
        down, right = sensor.integers(0, _NOISE_SPARE_PX, 2)
        grain = noise[down : down + HEIGHT_PX, right : right + WIDTH_PX]
        yield cv2.add(picture, grain, dtype=cv2.CV_8U), silhouette


def _place(seed: int, view: int, camera_number: int | None) -> Place:
    return USUAL if camera_number is None else draw_place(generator(seed, "camera", view, camera_number))


@lru_cache(maxsize=32)
def _room(seed: int, view: int, num_frames: int, camera_number: int | None) -> Room:
    place = _place(seed, view, camera_number)
    keys = (view,) if camera_number is None else (view, camera_number)
    camera = camera_for(view, num_frames, place)
    return build_room(generator(seed, "room", *keys), camera, num_frames)


@lru_cache(maxsize=4)
def _atlas(seed: int, who: tuple[int | str, ...], subject: int, walk: str) -> Picture:
    """The walker's textures: skin and hair are those of `who`, clothes are new for every walk."""
    bare, head, hair = skin(generator(seed, "skin", *who), TEXTURE_SIZE)
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
