"""Choosing the backend for a new, a begun and a finished store; Farneback's parameters as words."""

from pathlib import Path
from typing import Any

import pytest
from small_stores import make_store

from attengait.errors import AttenGaitError, ParameterError
from attengait.kernels.flow.backends import AUTO_ORDER, BACKENDS, FarnebackParameters, resolve_backend
from attengait.preprocessing.flow import FlowRecipe
from attengait.preprocessing.flow_choice import choose_flow, farneback_parameters
from attengait.store.layout import work_path
from attengait.store.plan import StorePlan
from attengait.store.workfolder import WorkFolder


def plan_of(recipe: dict[str, Any] | None) -> StorePlan:
    parameters = {"dataset": "casia-b", "modality": "flow", "encoding": "colour", "recipe": recipe}
    return StorePlan(
        sequences=(), parameters=parameters, versions={}, frame_shape=(4, 4, 3), codec="none", chunk_frames=4
    )


def begin(out: Path, recipe: dict[str, Any] | None) -> None:
    work_path(out).mkdir()
    WorkFolder(work_path(out)).write_plan(plan_of(recipe))


def test_a_named_backend_is_taken_whatever_the_store_was_begun_with(tmp_path: Path) -> None:
    begin(tmp_path / "w.zarr", FlowRecipe(flow="cpu").to_dict())
    assert [choose_flow(name, tmp_path / "w.zarr") for name in BACKENDS] == list(BACKENDS)
    with pytest.raises(ParameterError, match="'warp'"):
        choose_flow("warp", tmp_path / "w.zarr")


def test_auto_suits_the_machine_for_a_new_store_and_continues_a_begun_one(tmp_path: Path) -> None:
    assert choose_flow("auto", tmp_path / "new.zarr") == resolve_backend("auto")
    begin(tmp_path / "w.zarr", FlowRecipe(flow="opencv-cuda").to_dict())
    assert "opencv-cuda" not in AUTO_ORDER
    assert choose_flow("auto", tmp_path / "w.zarr") == "opencv-cuda"


@pytest.mark.parametrize("recipe", [None, {}, {"flow": "of a later version"}, {"flow": None}])
def test_auto_suits_the_machine_where_the_store_knows_no_backend(tmp_path: Path, recipe: dict[str, Any] | None) -> None:
    begin(tmp_path / "w.zarr", recipe)
    assert choose_flow("auto", tmp_path / "w.zarr") == resolve_backend("auto")


def test_auto_is_what_a_finished_store_was_made_with(tmp_path: Path) -> None:
    make_store(tmp_path / "w.zarr", attributes={"recipe": FlowRecipe(flow="cpu").to_dict()})
    assert choose_flow("auto", tmp_path / "w.zarr") == "cpu"


def test_what_stands_at_the_path_is_said_as_always(tmp_path: Path) -> None:
    (tmp_path / "file.zarr").touch()
    for path, part in ((tmp_path / "file.zarr", "a file"), (tmp_path / "no" / "w.zarr", "does not exist")):
        with pytest.raises(AttenGaitError, match=part):
            choose_flow("auto", path)


def test_words_become_parameters_and_the_others_keep_their_values() -> None:
    assert farneback_parameters("opencv", []) == FarnebackParameters()
    words = ["winsize=9", " poly_sigma = 1.5", "window=gaussian", "winsize=11"]
    expected = FarnebackParameters(winsize=11, poly_sigma=1.5, window="gaussian")
    assert farneback_parameters("cuda", words) == expected


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("winsize", r"--farneback is 'winsize', but must be KEY=VALUE, such as winsize=15"),
        (
            "winsiz=9",
            r"--farneback parameter is 'winsiz', but must be one of pyr_scale, .* mean 'winsize'\?\)",
        ),
        ("xyzzy=9", r"--farneback parameter is 'xyzzy', but must be one of [^()]*"),
        ("winsize=nine", r"winsize is 'nine', but must be a whole number of at least 2"),
        ("winsize=9.5", r"winsize is '9.5', but must be a whole number of at least 2"),
        ("poly_sigma=wide", r"poly_sigma is 'wide', but must be a number of at least 0.2"),
        ("pyr_scale=nan", r"pyr_scale is nan, but must be above 0 and below 1"),
        ("window=round", r"window is 'round', but must be one of box, gaussian"),
    ],
)
def test_a_wrong_word_is_one_sentence(word: str, sentence: str) -> None:
    with pytest.raises(ParameterError, match=f"^{sentence}$"):
        farneback_parameters("opencv", [word])


def test_another_method_takes_no_word_at_all() -> None:
    assert farneback_parameters("nvof", []) == FarnebackParameters()
    with pytest.raises(ParameterError, match=r"^farneback is given, but must be left out for flow nvof"):
        farneback_parameters("nvof", ["winsize=15"])
