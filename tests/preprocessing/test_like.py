"""Pictures made as those of another store: its recipe is taken whole, or refused."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_stores import make_store
from typer.testing import CliRunner

from attengait.cli.main import app
from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.flow.backends import BACKENDS, FarnebackParameters
from attengait.preprocessing.flow import FlowRecipe, SilhouetteFlowRecipe
from attengait.preprocessing.flow_choice import choose_flow
from attengait.preprocessing.like import recipe_like
from attengait.preprocessing.recipe import Recipe
from attengait.preprocessing.silhouette import SilhouetteRecipe
from attengait.store import Store, open_store

VERSIONS = {"opencv": cv2.__version__, "numpy": np.__version__}


def store_like(path: Path, recipe: Recipe, **changes: Any) -> Store:
    return make_store(path, attributes={"versions": VERSIONS} | recipe.attributes | changes)


@pytest.mark.parametrize(
    "recipe",
    [
        FlowRecipe(),
        FlowRecipe(farneback=FarnebackParameters(winsize=21), gap="bridge", encoding="uv", min_frames=7),
        SilhouetteRecipe(crop_size=32, silhouette_threshold=5),
        SilhouetteFlowRecipe(encoding="uvm"),
    ],
)
def test_the_recipe_of_a_store_is_taken_with_all_parameters(
    tmp_path: Path, recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    assert recipe_like(store_like(tmp_path / "s.zarr", recipe)) == recipe
    assert caplog.text == ""


def test_a_store_of_version_0_1_0_gives_its_recipe(data: Path) -> None:
    made = json.loads((data / "walkers-0.1.0.zarr" / "zarr.json").read_text())["attributes"]["recipe"]
    if BACKENDS[made["flow"]].missing() is None:
        assert recipe_like(data / "walkers-0.1.0.zarr").attributes["recipe"] == made


def test_other_versions_of_the_libraries_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe_like(store_like(tmp_path / "s.zarr", FlowRecipe(), versions=VERSIONS | {"opencv": "4.10.0"}))
    assert f"was made with opencv 4.10.0 (here {cv2.__version__}), so single values may differ" in caplog.text


def test_a_store_that_was_made_otherwise_is_refused(tmp_path: Path) -> None:
    for name, attributes in (
        ("imported", {"modality": "flow", "recipe": {"name": "import-pickles", "version": 1}}),
        ("bare", {}),
        ("rgb", {"modality": "rgb", "recipe": {"crop_size": 64}}),
    ):
        store = make_store(tmp_path / f"{name}.zarr", attributes=attributes)
        with pytest.raises(AttenGaitError, match=r"was not made by preprocess, so nothing can be made like it$"):
            recipe_like(store)
    recipe = FlowRecipe().to_dict()
    for number, changes in enumerate(({"version": 2, "smoothing": 3}, {"gap": "jump"}, {"farneback": {"x": 1}})):
        later = make_store(tmp_path / f"{number}.zarr", attributes={"modality": "flow", "recipe": recipe | changes})
        with pytest.raises(AttenGaitError, match=r"a recipe that this version of the program does not have$"):
            recipe_like(later)


def test_a_flow_that_cannot_be_computed_here_is_refused(tmp_path: Path) -> None:
    store = store_like(tmp_path / "s.zarr", FlowRecipe(flow="opencv-cuda"))
    with pytest.raises(AttenGaitError, match="flow backend opencv-cuda cannot be used: "):
        recipe_like(store)


def test_the_command_makes_an_equal_store(tmp_path: Path) -> None:
    run = CliRunner().invoke
    run(app, ["synth", str(tmp_path / "w"), "--subjects", "1", "--walks", "nm-01", "--views", "90", "--frames", "9"])
    folders = ["--frames", str(tmp_path / "w/rgb"), "--silhouettes", str(tmp_path / "w/silh")]
    first, second = str(tmp_path / "a.zarr"), str(tmp_path / "b.zarr")
    options = ["--flow", "opencv", "--farneback", "winsize=9", "--encoding", "uv", "--gap", "bridge", "--workers", "1"]
    assert run(app, ["preprocess", "casia-b", *folders, "--out", first, *options]).exit_code == 0
    done = run(app, ["preprocess", "casia-b", *folders, "--out", second, "--like", first, "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert open_store(second).attributes == open_store(first).attributes
    assert open_store(second).content_sha256 == open_store(first).content_sha256
    refused = run(app, ["preprocess", "casia-b", *folders, "--out", second, "--like", first, "--gap", "skip"])
    assert isinstance(refused.exception, ParameterError)
    assert str(refused.exception) == "--gap is given, but must be left out with --like"


def test_auto_says_that_it_takes_the_slower_flow_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cuda", "cpu"):
        monkeypatch.setitem(BACKENDS, name, replace(BACKENDS[name], missing=lambda name=name: f"no {name} here"))
    with caplog.at_level(logging.INFO):
        assert choose_flow("auto", tmp_path / "w.zarr") == "opencv"
    assert "flow is opencv, because cpu cannot be used here: no cpu here." in caplog.text
