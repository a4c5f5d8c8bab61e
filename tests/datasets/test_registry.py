"""The data sets by name: ours say all that a user needs to know, and other packages can add theirs."""

import json
from pathlib import Path

import pytest
from added_package import install
from typer.testing import CliRunner

from attengait.cli.main import app
from attengait.datasets import DATASETS, dataset_names, find_dataset
from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation.rule import rules

ENTRIES = """[attengait.datasets]
mine = added_dataset:MINE
gone = no_such_module:MINE
number = added_dataset:NUMBER
"""
ADDED = """
from attengait.datasets import Adapter, Scan, SourceSequence
MINE = Adapter(scan=lambda folders: Scan(sequences=()), takes=("files",), title="Mine", licence="none")
NUMBER = 7
"""


@pytest.mark.parametrize("name", DATASETS)
def test_each_says_what_a_user_needs_to_know(name: str) -> None:
    about = DATASETS[name].about
    assert about["title"]
    assert about["needs"]
    assert about["licence"]
    assert about["protocol"] in {"", *rules()}
    assert "\n" not in "".join(about.values())


def test_one_of_another_package_is_found_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, ENTRIES, added_dataset=ADDED)
    assert dataset_names() == (*DATASETS, "gone", "mine", "number")
    assert find_dataset("mine").title == "Mine"
    listed = json.loads(CliRunner().invoke(app, ["datasets", "--json"]).stdout)
    assert list(listed) == [*DATASETS, "gone", "mine", "number"]
    assert listed["mine"]["licence"] == "none"
    assert "No module named 'no_such_module'" in listed["gone"]["error"]
    assert listed["casia-b"]["protocol"] == "casia-b"


def test_the_table_names_each_with_its_licence() -> None:
    shown = CliRunner().invoke(app, ["datasets"]).stdout
    for name, adapter in DATASETS.items():
        assert name in shown
        assert f"licence: {adapter.licence[:20]}" in shown
    assert "…" not in shown  # an address that is cut leads nowhere


@pytest.mark.parametrize("name", ["gait3d", "pickles", "h5"])
def test_preprocess_says_what_reads_a_data_set_that_it_does_not(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["preprocess", name, "--out", str(tmp_path / "s.zarr")])
    assert isinstance(done.exception, ParameterError)
    assert f"dataset is {name!r}, but must be one of pictures or videos" in str(done.exception)
    assert f"read by attengait import {'h5' if name == 'h5' else 'pickles'}" in str(done.exception)


def test_one_that_cannot_be_used_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, ENTRIES, added_dataset=ADDED)
    sentence = r"dataset is 'gone', but the package added, which adds it, cannot be loaded \(ModuleNotFoundError: .*\)$"
    with pytest.raises(AttenGaitError, match=sentence):
        find_dataset("gone")
    with pytest.raises(AttenGaitError, match=r"dataset is 'number', .* is a int, not an attengait.datasets.Adapter"):
        find_dataset("number")
    with pytest.raises(ParameterError, match=r"dataset is 'mime', .*did you mean 'mine'"):
        find_dataset("mime")


def test_a_name_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "a", monkeypatch, "[attengait.datasets]\ncasia-b = added_dataset:MINE\n", added_dataset=ADDED)
    with pytest.raises(
        AttenGaitError, match=r"dataset is 'casia-b', .* AttenGait itself and the package added have it"
    ):
        find_dataset("casia-b")
    for name in ("one", "two"):
        entries = "[attengait.datasets]\nmine = added_dataset:MINE\n"
        install(tmp_path / name, monkeypatch, entries, name=name)
    with pytest.raises(AttenGaitError, match="the package one and the package two have it"):
        find_dataset("mine")
