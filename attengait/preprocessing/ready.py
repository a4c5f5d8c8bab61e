"""The recipe for pictures that a data set distributes ready-made. Nothing is computed, so nothing can be chosen."""

from attengait.datasets import find_dataset
from attengait.errors import ParameterError, require
from attengait.preprocessing.ready_flow import ReadyFlowRecipe
from attengait.preprocessing.ready_silhouette import ReadySilhouetteRecipe
from attengait.preprocessing.recipe import Recipe


def ready_recipe(dataset: str, modality: str) -> Recipe | None:
    """The recipe for ready pictures of a data set; None where pictures of this modality are computed.

    Raises ParameterError for an unknown data set, for one that only an import reads, and for a modality that the data
    set does not distribute.
    """
    adapter = find_dataset(dataset)
    if set(adapter.takes) <= {"files", "pattern"}:
        needs = adapter.needs or "files of another program"
        raise ParameterError(f"dataset is {dataset!r}, but must be one of pictures or videos: {dataset} needs {needs}")
    if not adapter.ready or modality in adapter.computed:
        return None
    known = " or ".join(adapter.ready + adapter.computed)
    require(modality in adapter.ready, "modality", modality, f"{known}: {dataset} is distributed as ready pictures")
    if modality == ReadyFlowRecipe.modality:
        return ReadyFlowRecipe(resize=adapter.resize)
    return ReadySilhouetteRecipe()
