"""Small walks on disk, laid out as CASIA-B does."""

import cv2
import numpy as np


def write_walk(root, subject, walk, num_frames, seed, *, suffix="png", shape=(48, 80)):
    """A textured block that moves over a textured ground, and its silhouettes; frames with the given suffix."""
    rng = np.random.default_rng(seed)
    ground, block = (cv2.GaussianBlur(rng.integers(0, 256, size, np.uint8), (0, 0), 1.5) for size in (shape, (30, 14)))
    for number in range(1, num_frames + 1):
        frame, silhouette, x = ground.copy(), np.zeros_like(ground), 20 + 2 * number
        frame[10:40, x : x + 14] = block
        silhouette[10:40, x : x + 14] = 255
        for side, content, ending in (("rgb", frame, suffix), ("silh", silhouette, "png")):
            path = picture(root, side, f"{subject}/{walk}/090", number, ending)
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), content)


def picture(root, side, name, number, suffix="png"):
    return root / side / name / f"{name.replace('/', '-')}-{number:03d}.{suffix}"


def link_walkers(journey, folder, walks):
    """Make folders `rgb` and `silh` with some of the journey's walks: their names match `walks`."""
    for side in ("rgb", "silh"):
        for walk in (journey / "walkers" / side).glob(walks):
            link = folder / side / walk.parent.name / walk.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(walk)
