"""Walks that several files of these tests preprocess."""

import shutil
from importlib import import_module

import pytest

walks = import_module("walks")
picture, write_walk = walks.picture, walks.write_walk


@pytest.fixture(scope="module")
def walkers(tmp_path_factory):
    """Five walks, of which two are sound; to be read only."""
    root = tmp_path_factory.mktemp("walkers")
    for i, (subject, walk) in enumerate([("001", "nm-01"), ("001", "bg-01"), ("002", "nm-01"), ("003", "nm-01")]):
        write_walk(root, subject, walk, 9, seed=i)
    write_walk(root, "004", "nm-01", 5, seed=9)
    shutil.rmtree(root / "silh" / "003")
    picture(root, "silh", "002/nm-01/090", 9).unlink()
    damaged = picture(root, "rgb", "001/bg-01/090", 1)
    damaged.write_bytes(damaged.read_bytes()[:100])
    return root
