"""Pictures that are made as those of another store: the same recipe, on this machine or another."""

import logging
from typing import Any

import cv2
import numpy as np

from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.flow.backends import FarnebackParameters
from attengait.preprocessing.flow import FlowRecipe, SilhouetteFlowRecipe
from attengait.preprocessing.recipe import Recipe
from attengait.preprocessing.silhouette import SilhouetteRecipe
from attengait.store.opening import AnyStore, open_store

_log = logging.getLogger(__name__)

_RECIPES = {recipe.modality: recipe for recipe in (FlowRecipe, SilhouetteRecipe, SilhouetteFlowRecipe)}
_VERSIONS = {"opencv": cv2.__version__, "numpy": np.__version__}
"""Libraries that compute pictures, by the names under which a store records their versions."""


def recipe_like(where: AnyStore) -> Recipe:
    """Return the recipe of a store, with its flow back end and all parameters.

    Pictures of it are equal to that store's where OpenCV and NumPy have the same versions. Otherwise the log warns.
    Raises AttenGaitError for a store that was made otherwise, such as an imported one, and where this machine
    cannot compute its flow.
    """
    store = open_store(where)
    made, kind = store.attributes.get("recipe"), _RECIPES.get(store.attributes.get("modality", ""))
    if isinstance(made, dict) and str(made.get("name")).startswith("ready-"):
        raise AttenGaitError(
            f"{store.location} holds pictures that were ready, which nothing was computed for: leave out --like"
        )
    if kind is None or not isinstance(made, dict) or "crop_size" not in made:
        raise AttenGaitError(f"{store.location} was not made by preprocess, so nothing can be made like it")
    recipe = _rebuilt(kind, made)
    if recipe is None or recipe.attributes["recipe"] != made:
        raise AttenGaitError(f"{store.location} was made by a recipe that this version of the program does not have")
    recipe.check()
    recorded = store.attributes.get("versions")
    then: dict[str, Any] = recorded if isinstance(recorded, dict) else {}
    others = [
        f"{name} {then.get(name, 'unknown')} (here {version})"
        for name, version in _VERSIONS.items()
        if then.get(name) != version
    ]
    if others:
        _log.warning("%s was made with %s, so single values may differ", store.location, ", ".join(others))
    return recipe


def _rebuilt(kind: type[Any], made: dict[str, Any]) -> Recipe | None:
    """The recipe with these recorded parameters; None where this program has no such parameters."""
    parameters = dict(made)
    try:
        if (farneback := parameters.pop("farneback", None)) is not None:
            parameters["farneback"] = FarnebackParameters(**farneback)
        recipe: Recipe = kind(**parameters)
    except (TypeError, ParameterError):
        return None
    return recipe
