"""Sequences of folders laid out as CASIA-B does, as recipes get them, and the configuration that preprocesses them."""

from attengait.datasets import Folders, SourceSequence
from attengait.datasets.casia_b import scan
from attengait.preprocessing.executors import LocalProcesses
from attengait.preprocessing.flow import FlowRecipe
from attengait.preprocessing.run import PreprocessConfig
from attengait.preprocessing.silhouette import SilhouetteRecipe


def find(frames, silhouettes):
    """What a recipe can use: flow of frames and silhouettes, or silhouettes alone where `frames` is None."""
    recipe = SilhouetteRecipe() if frames is None else FlowRecipe()
    return recipe.fit(scan(Folders(frames=frames, silhouettes=silhouettes)))[1]


def sequence_of(frames, silhouettes):
    """The sequence 001/nm-01/090 of these parts; either may be None."""
    parts = {"frames": frames, "silhouettes": silhouettes}
    used = {name: part for name, part in parts.items() if part is not None}
    return SourceSequence(subject="001", walk="nm-01", view="090", parts=used)


def max_images(sequence):
    """How many flow images can come out of a sequence at most."""
    return FlowRecipe().max_pictures(sequence)


def config_of(root, out, *, workers=1, frames="rgb", **changes):
    """A configuration for the walkers in `root`; without `frames` for silhouettes alone."""
    folders = Folders(frames=frames and root / frames, silhouettes=root / "silh")
    settings = {"recipe": FlowRecipe(), "chunk_frames": 4, **changes}
    executor = LocalProcesses(num_workers=workers)
    return PreprocessConfig(**{"dataset": "casia-b", "folders": folders, "out": out, "executor": executor} | settings)
