"""What the tests of commands share."""

from pathlib import Path

import pytest
from command import TRAINING, attengait


@pytest.fixture(scope="session")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with walkers of five people, their store and a run trained on three of them."""
    folder = tmp_path_factory.mktemp("journey")
    walkers = ("--subjects", 5, "--walks", "nm-01,nm-05,bg-01,cl-01", "--views", "54,90", "--frames", 18, "--seed", 3)
    for words in (
        ("synth", "walkers", *walkers, "--workers", 2),
        ("preprocess", "casia-b", "--frames", "walkers/rgb", "--silhouettes", "walkers/silh", "--out", "w.zarr"),
        ("train", "w.zarr", "--out", "run", *TRAINING),
    ):
        done = attengait(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder
