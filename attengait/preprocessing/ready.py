"""The recipe for pictures that a data set distributes ready-made. Nothing is computed, so nothing can be chosen."""

from attengait.datasets import find_dataset
from attengait.errors import require
from attengait.preprocessing.ready_flow import ReadyFlowRecipe
from attengait.preprocessing.ready_silhouette import ReadySilhouetteRecipe
from attengait.preprocessing.recipe import Recipe


def ready_recipe(dataset: str, modality: str) -> Recipe | None:
    """The recipe of a data set with ready pictures; None for a data set whose pictures are computed.

    Raises ParameterError for an unknown data set, and for a modality that the data set does not distribute.
    """
    adapter = find_dataset(dataset)
    if not adapter.ready:
        return None
    known = " or ".join(adapter.ready)
    require(modality in adapter.ready, "modality", modality, f"{known}: {dataset} is distributed as ready pictures")
    if modality == ReadyFlowRecipe.modality:
        return ReadyFlowRecipe(resize=adapter.resize)
    return ReadySilhouetteRecipe()
