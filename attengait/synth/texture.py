"""Textures that repeat without a seam: cloth, skin, hair and faces, floors and walls.

A texture is uint8 [N, N, 3] in BGR. Those of parts have rows along the part and columns around it: column 0 is the
front, and the left side is a quarter further. Details are a few centimetres large: when a walker is 130 pixels tall,
smaller details would not be seen, and optical flow could not follow them.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Texture = NDArray[np.uint8]

TEXTURE_SIZE = 128
TEXELS_PER_METRE = 250.0
"""Of clothes. A part's texture is stretched a little, so that it meets itself around the part without a seam."""


def noise(rng: np.random.Generator, size: int, grain: float) -> NDArray[np.float32]:
    """Smooth periodic noise [size, size] of unit variance; `grain` is the blur's standard deviation in texels."""
    frequency = np.fft.fftfreq(size)
    blur = np.exp(-2 * (np.pi * grain) ** 2 * (frequency[:, None] ** 2 + frequency[: size // 2 + 1] ** 2))
    blur[0, 0] = 0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), np.float32))
    smooth = np.fft.irfft2(spectrum * blur, s=(size, size))
    unit: NDArray[np.float32] = (smooth / smooth.std()).astype(np.float32)
    return unit


def _finish(values: NDArray[np.float32]) -> Texture:
    return np.clip(values, 0, 255).astype(np.uint8)


def colour(rng: np.random.Generator, darkest: float, brightest: float, vivid: float) -> NDArray[np.float32]:
    """A random BGR colour with its brightness in these bounds; `vivid` 0 is grey."""
    hue = rng.normal(0, 1, 3)
    hue -= hue.mean()
    bgr: NDArray[np.float32] = np.clip(rng.uniform(darkest, brightest) + vivid * hue, 8, 245).astype(np.float32)
    return bgr


def cloth(rng: np.random.Generator, size: int, *, darkest: float = 45, brightest: float = 205) -> Texture:
    """Plain, striped, chequered or printed cloth with folds."""
    ground = colour(rng, darkest, brightest, 28)
    accent = colour(rng, darkest, brightest, 28)
    pattern = rng.integers(4)
    steps = np.arange(size) * (2 * np.pi / size)
    rings = np.tanh(3 * np.sin(steps * rng.integers(5, 9)))[:, None]
    stripes = np.tanh(3 * np.sin(steps * rng.integers(4, 8)))[None, :]
    spots = np.tanh(2 * noise(rng, size, 4.5))
    mix = (np.zeros((size, size)), rings + 0 * stripes, (rings + stripes) / 2, spots)[pattern]
    contrast = rng.uniform(0.25, 0.6)
    blend = (contrast * (0.5 + 0.5 * mix))[..., None]
    folds = 10 * noise(rng, size, 8) + 9 * noise(rng, size, 3)
    return _finish(ground * (1 - blend) + accent * blend + folds[..., None])


def skin(rng: np.random.Generator, size: int) -> tuple[Texture, Texture, Texture]:
    """A person's skin, his head (a face in front, hair above and behind) and his hair."""
    tone = np.array([105, 135, 185], np.float32) * rng.uniform(0.45, 1.15)
    hair_tone = np.array([30, 42, 60], np.float32) * rng.uniform(0.4, 1.5)
    mottle = noise(rng, size, 4)[..., None]
    bare = tone + 5 * mottle
    hair = hair_tone + 14 * noise(rng, size, 3)[..., None]
    # rows count upwards from the chin; columns go around, the face's middle at 0 and size
    row = np.arange(size)[:, None] / TEXELS_PER_METRE
    angle = np.abs((np.arange(size)[None, :] / size + 0.5) % 1 - 0.5) * 360
    face = (angle < 78 - 200 * np.maximum(row - 0.09, 0)) & (row < 0.155)
    head = np.where(face[..., None], bare, hair)
    eyes = (np.abs(angle - 24) < 9) & (np.abs(row - 0.103) < 0.009)
    mouth = (angle < 16) & (np.abs(row - 0.035) < 0.006)
    head[eyes] *= 0.35
    head[mouth] *= 0.6
    blurred = [
        _finish(cv2.GaussianBlur(part, (0, 0), 1.5, borderType=cv2.BORDER_REFLECT)) for part in (bare, head, hair)
    ]
    return blurred[0], blurred[1], blurred[2]


def leather(rng: np.random.Generator, size: int) -> Texture:
    """Shoes and bags: dark or bright, with seams and wear."""
    wear = 12 * noise(rng, size, 5) + 8 * noise(rng, size, 2.5)
    seams = -25 * (np.abs(np.sin(np.arange(size) * (2 * np.pi / size) * 2)) > 0.97)[:, None]
    return _finish(colour(rng, 25, 150, 22) + (wear + seams)[..., None])


def ground(rng: np.random.Generator, size: int, tiles: int) -> Texture:
    """A floor of `tiles` x `tiles` worn slabs."""
    slab = np.kron(rng.normal(0, 5, (tiles, tiles)), np.ones((size // tiles, size // tiles)))
    slab = cv2.resize(slab, (size, size), interpolation=cv2.INTER_NEAREST)
    position = np.arange(size) * tiles / size % 1
    joint = (position < 0.03) | (position > 0.97)
    joints = -32 * (joint[:, None] | joint[None, :]).astype(np.float32)
    wear = 9 * noise(rng, size, 3) + 7 * noise(rng, size, 14)
    worn = (slab + joints + wear).astype(np.float32)
    return _finish(cv2.GaussianBlur(colour(rng, 110, 160, 5) + worn[..., None], (0, 0), 0.8))


def plaster(rng: np.random.Generator, size: int) -> Texture:
    """A stained wall."""
    stains = 6 * noise(rng, size, 3) + 6 * noise(rng, size, 12) + 6 * noise(rng, size, 40)
    return _finish(colour(rng, 130, 190, 6) + stains[..., None])
