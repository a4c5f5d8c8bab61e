"""Small GREW and OUMVLP: ready flow images in the folders and names of their distributions."""

from pathlib import Path

import cv2
import numpy as np

GREW_SUBJECTS = 4
OUMVLP_SUBJECTS = ("00001", "00002", "00003", "00004", "00005", "10306", "10307")
VIEWS = ("000", "090", "180", "270")


def flow_image(subject, number, *, size=64, seed=0):
    """A flow image, uint8 [size, size, 3] (red, green, blue): a person of the colour of `subject`, who swings."""
    rng = np.random.default_rng((subject, seed))
    colour = rng.integers(40, 200, (4, 3))  # of four parts of the body
    image = np.full((64, 64, 3), 255, np.uint8)
    for part in range(4):
        shift = round(4 * np.sin(number / 3 + subject + part))
        image[16 * part : 16 * part + 16, 24 + shift : 40 + shift] = colour[part]
    noise = np.random.default_rng((subject, seed, number)).integers(0, 9, image.shape, np.uint8)
    image = np.where(image < 255, image + noise, image).astype(np.uint8)
    return image if size == 64 else cv2.resize(image, (size, size), interpolation=cv2.INTER_NEAREST)


def write_png(path, image):
    """Write a picture of red, green and blue, or a grey one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def outline(subject, number):
    """A silhouette uint8 [64, 64] that fills the height, as ready ones do."""
    return np.where((flow_image(subject, number) < 255).any(axis=2), np.uint8(255), np.uint8(0))


def make_grew(root: Path, *, frames=20, train_subjects=GREW_SUBJECTS, gallery_subjects=10) -> None:
    """`root`/flow and `root`/silhouettes: train, gallery of two sequences each, probes and distractors."""
    for index in range(train_subjects):
        for sequence in range(2):
            _grew_sequence(root, f"train/{index + 1:05d}/tr{index}{sequence}Xy", index, sequence, frames)
    for index in range(gallery_subjects):
        for sequence, name in enumerate(("aa", "bb")):
            _grew_sequence(root, f"test/gallery/{index + 1:05d}/{name}{index}", 100 + index, sequence, frames)
        _grew_sequence(root, f"test/probe/0{index}234567", 100 + index, 3, frames)
    for index in range(3):
        _grew_sequence(root, f"distractors/di{index}", 200 + index, 0, frames)


def _grew_sequence(root: Path, place: str, subject: int, seed: int, frames: int) -> None:
    for number in range(1, frames + 1):
        image = flow_image(subject, number + 7 * seed)
        write_png(root / "flow" / place / f"{number:05d}_{number + 1:05d}_flow.png", image)
        write_png(root / "silhouettes" / place / f"{number:05d}.png", outline(subject, number + 7 * seed))


def make_oumvlp(root: Path, *, frames=20, subjects=OUMVLP_SUBJECTS, views=VIEWS, size=64) -> None:
    """`root`/SUBJECT/VIEW_SEQUENCE/0001.png and so on, with sequence 00 and 01 of each view."""
    for subject in subjects:
        for view in views:
            for sequence in ("00", "01"):
                for number in range(1, frames + 1):
                    image = flow_image(int(subject), number + 7 * int(sequence), size=size)
                    write_png(root / subject / f"{view}_{sequence}" / f"{number:04d}.png", image)
