"""Sequences of folders laid out as CASIA-B does, as recipes get them."""

from attengait.datasets import Folders, SourceSequence
from attengait.datasets.casia_b import scan
from attengait.preprocessing.flow import FlowRecipe
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
