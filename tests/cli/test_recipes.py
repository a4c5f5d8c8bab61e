"""The lists of commands in docs/recipes.md, run as they stand, on small data sets in the folders that they name.

Only what costs time is changed: networks are tiny, training stops after two steps, and there is one process.
"""

import json
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attengait.store import open_store
from attengait.synth.dataset import SynthConfig, write_walkers

sets, command = import_module("flow_sets"), import_module("command")

PAGE = Path(__file__).parents[2] / "docs/recipes.md"
SMALL = (
    *("size=tiny", "blocks_per_stage=2", "clip_frames=16", "subjects_per_batch=2", "clips_per_subject=2"),
    *("device=cpu", "precision=fp32", "stop_after_steps=2", "loggers="),
)
Run = Callable[[str], list[str]]


def lists() -> dict[str, list[list[str]]]:
    """The commands under each heading of the page, each as its words after `attengait`; one list for a block."""
    found: dict[str, list[list[str]]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        for number, block in enumerate(body.split("```sh\n")[1:]):
            lines = block.partition("```")[0].splitlines()
            found[title + (f" {number + 1}" if number else "")] = [shlex.split(line)[1:] for line in lines]
    return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a list of commands in a folder and returns what each printed."""

    def run_list(title: str) -> list[str]:
        printed = []
        for words in lists()[title]:
            if "--gpus" in words:
                at = words.index("--gpus")
                words = words[:at] + words[at + 2 :]
            if words[0] == "train":
                words = [*words, *(word for setting in SMALL for word in ("--set", setting))]
            if words[0] == "preprocess":
                words = [*words, "--workers", "1"]
            done = command.attengait(*words, cwd=tmp_path)
            assert done.returncode == 0, (words, done.stderr)
            printed.append(done.stdout)
        return printed

    return run_list


def make_casia_b(folder: Path) -> None:
    """Synthetic walkers 001, 002, 075 and 076 in the folders of CASIA-B."""
    walks = ("nm-01", "nm-05", "bg-01", "cl-01")
    write_walkers(folder, SynthConfig(subjects=4, walks=walks, views=(0, 90), frames=20, workers=1))
    (folder / "rgb").rename(folder / "GaitDatasetB-RGB")
    (folder / "silh").rename(folder / "GaitDatasetB-silh")
    for root in (folder / "GaitDatasetB-RGB", folder / "GaitDatasetB-silh"):
        for old, new in (("003", "075"), ("004", "076")):
            for path in sorted((root / old).rglob("*.png")):
                path.rename(path.with_name(path.name.replace(f"{old}-", f"{new}-", 1)))
            (root / old).rename(root / new)


def trained_on(run: Path) -> list[str]:
    subjects: list[str] = json.loads((run / "config.json").read_text())["subjects"]
    return subjects


def test_the_page_has_the_three_recipes_and_the_fusions() -> None:
    titles = ["CASIA-B", "GREW", "OUMVLP", "Flow and silhouettes together", "Flow and silhouettes together 2"]
    assert list(lists()) == titles
    assert all(len(lists()[title]) <= 4 for title in titles[:3])


def test_casia_b_from_frames_to_the_table(run: Run, tmp_path: Path) -> None:
    make_casia_b(tmp_path)
    *_, table = run("CASIA-B")
    assert trained_on(tmp_path / "runs/casia-b") == ["001", "002"]
    assert "2 subjects, 12 probes, 4 gallery items" in table


def test_grew_from_flow_images_to_the_table_and_the_challenge(run: Run, tmp_path: Path) -> None:
    sets.make_grew(tmp_path / "GREW")
    _, _, table, submission = run("GREW")
    assert trained_on(tmp_path / "runs/grew") == [f"{number:05d}train" for number in range(1, 5)]
    assert "10 subjects, 10 probes, 10 gallery items" in table
    assert (
        "10 probes, 20 gallery items; 3 sequences that the protocol does not use, of the walks 04; sha256" in submission
    )
    # Asked for, the distractors are in the gallery; they are never trained on, as no subject of the test is.
    words = ("evaluate", "runs/grew", "grew.zarr", "--protocol", "custom", "--probes", "walk=02", "--gallery")
    asked = command.attengait(*words, "part=gallery,distractor", "--gallery", "walk!=02", cwd=tmp_path)
    assert "10 probes, 13 gallery items" in asked.stdout, asked.stderr
    train = ("train", "grew.zarr", "--out", "runs/wrong", "--preset", "grew", "--set")
    for subjects, said in (("00001,*train", "00001"), ("*", "12 subjects"), ("probe,*train", "probe")):
        done = command.attengait(*train, f"train_subjects={subjects}", cwd=tmp_path)
        command.refused(done, 2, "train_subjects", "to no training part", said)
    assert not (tmp_path / "runs/wrong").exists()


def test_oumvlp_from_flow_images_to_the_table(run: Run, tmp_path: Path) -> None:
    sets.make_oumvlp(tmp_path / "OUMVLP-OF", frames=12, size=80)
    *_, table = run("OUMVLP")
    assert trained_on(tmp_path / "runs/oumvlp") == ["00001", "00003", "00005"]
    assert "4 subjects, 16 probes, 16 gallery items" in table
    assert [line.split()[1] for line in table.splitlines() if line.startswith("│ ") and "mean" not in line] == [
        *sets.VIEWS
    ]
    recipe = open_store(tmp_path / "oumvlp.zarr").attributes["recipe"]
    assert (recipe["resize"], recipe["lossy"]) == ("linear", False)


def test_flow_and_silhouettes_of_one_store_are_fused(run: Run, tmp_path: Path) -> None:
    make_casia_b(tmp_path)
    *_, table = run("Flow and silhouettes together")
    assert "fused" in table
    assert "2 subjects, 12 probes, 4 gallery items" in table
    assert shapes(tmp_path / "flow.npz") == shapes(tmp_path / "silhouette.npz")


def test_flow_and_silhouettes_of_grew_are_fused_by_name(run: Run, tmp_path: Path) -> None:
    sets.make_grew(tmp_path / "GREW", frames=16)
    *_, table, submission = run("Flow and silhouettes together 2")
    assert "10 subjects, 10 probes, 10 gallery items" in table
    assert (
        "10 probes, 20 gallery items; 3 sequences that the protocol does not use, of the walks 04; sha256" in submission
    )


def shapes(path: Path) -> Any:
    with np.load(path) as file:
        return file["features"].shape
