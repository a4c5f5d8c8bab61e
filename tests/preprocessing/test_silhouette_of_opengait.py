"""Crops of silhouettes equal those of OpenGait's own pretreatment."""

from pathlib import Path

import cv2
import numpy as np

from attengait.datasets import Pictures, SourceSequence
from attengait.preprocessing.silhouette import SilhouetteRecipe


def test_crops_equal_those_of_opengait(data: Path, tmp_path: Path) -> None:
    """Synthetic walkers, and shapes at the borders, thin, wide, double, and too small to be a walker."""
    with np.load(data / "opengait_silhouettes.npz") as reference:
        masks = np.unpackbits(reference["masks"], axis=2) * np.uint8(255)
        kept, crops = reference["kept"], reference["crops"]
    for i, mask in enumerate(masks, 1):
        cv2.imwrite(str(tmp_path / f"001-nm-01-090-{i:03d}.png"), mask)
    pictures = Pictures.of(tmp_path, [path.name for path in tmp_path.iterdir()])
    sequence = SourceSequence(subject="001", walk="nm-01", view="090", parts={"silhouettes": pictures})
    made = SilhouetteRecipe().make(sequence)
    assert made.frame_numbers.tolist() == (np.flatnonzero(kept) + 1).tolist()
    np.testing.assert_array_equal(made.pictures[..., 0], crops)
    assert 0 < kept.sum() < len(kept)
