"""Data sets of more than 65,535 sequences, where counters of 16 bits begin again: none is lost or mixed."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attengait.datasets import Folders, find_dataset, opengait
from attengait.datasets.unpickling import ArrayHeader
from attengait.evaluation.sides import Labels
from attengait.pipelines.runs import subjects_set_aside
from attengait.preprocessing.arrays import ArrayRecipe
from attengait.preprocessing.ready_flow import ReadyFlowRecipe
from attengait.preprocessing.run import PreprocessConfig, plan_preprocessing, run_preprocessing
from attengait.sampling.plan import BatchPlan
from attengait.store import open_store
from attengait.store.skipped import Skipped

sets = import_module("flow_sets")

SUBJECTS, SEQUENCES = 331, 200
TOTAL = SUBJECTS * SEQUENCES


def test_all_sequences_of_a_large_grew_arrive(tmp_path: Path) -> None:
    assert TOTAL > 2**16
    images = [np.full((2, 2, 3), (200, 10, 30 + kind), np.uint8) for kind in range(2)]
    for kind in range(2):  # every subject is a link to one of two
        for index in range(SEQUENCES):
            sets.write_png(tmp_path / f"real/{kind}/s{index:03d}/00001_00002_flow.png", images[(kind + index) % 2])
    (tmp_path / "flow/train").mkdir(parents=True)
    for subject in range(SUBJECTS):
        (tmp_path / f"flow/train/{subject + 1:05d}").symlink_to(tmp_path / f"real/{subject % 2}")
    config = PreprocessConfig(
        dataset="grew",
        folders=Folders(flow_images=tmp_path / "flow"),
        out=tmp_path / "grew.zarr",
        recipe=ReadyFlowRecipe(size=2, min_frames=1),
    )
    summary = run_preprocessing(config)
    assert (summary.written.num_sequences, summary.written.num_frames) == (TOTAL, TOTAL)
    store = open_store(tmp_path / "grew.zarr")
    assert (len(store), store.num_frames) == (TOTAL, TOTAL)
    for row in (0, 1, 65_534, 65_535, 65_536, TOTAL - 1):
        subject, index = divmod(row, SEQUENCES)
        assert store.sequences.name(row) == f"{subject + 1:05d}train/00/s{index:03d}"
        np.testing.assert_array_equal(store[row][0], images[(subject + index) % 2])
    assert np.unique(store.sequences.start).size == TOTAL
    labels = Labels.of_columns(store.sequences.columns, np.arange(TOTAL))
    assert len({*zip(labels.subjects.tolist(), labels.views.tolist(), strict=True)}) == TOTAL
    assert subjects_set_aside(store) == set()
    names = [f"{subject + 1:05d}train" for subject in range(SUBJECTS)]
    plan = BatchPlan(store.sequences, names, subjects_per_batch=2, clips_per_subject=2, clip_frames=1, seed=0)
    assert sorted(plan.sequences.tolist()) == list(range(TOTAL))


class MadeUp:
    """An entry of a folder that is not on the disk: 331 subjects, each with 200 walks of one view."""

    def __init__(self, path: str) -> None:
        self.path, self.name = path, path.rpartition("/")[2]

    def is_dir(self) -> bool:
        return not self.path.endswith(".pkl")

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=len(self.path), st_mtime_ns=0)


MADE_UP = (
    [f"{subject:04d}" for subject in range(SUBJECTS)],
    sorted(f"camid{index % 39}_videoid{index}" for index in range(SEQUENCES)),
    ["seq0"],
    ["seq0.pkl"],
)
"""Names in folders of each depth."""


def test_all_sequences_of_a_large_folder_of_pickles_are_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def read_header(path: str) -> ArrayHeader:
        opened.append(path)
        return ArrayHeader(shape=(1 + int(path.split("/")[-4]) % 3, 64, 44), dtype=np.dtype(np.uint8))

    root = tmp_path / "in"
    root.mkdir()

    def entries(path: str | Path, skipped: list[Skipped]) -> list[MadeUp]:
        names = MADE_UP[str(path).count("/") - str(root).count("/")]
        return [MadeUp(f"{path}/{name}") for name in names]

    monkeypatch.setattr(opengait, "entries", entries)
    monkeypatch.setattr(opengait, "read_header", read_header)
    sequences = find_dataset("gait3d").scan(Folders(files=root)).sequences
    assert len(sequences) == len({sequence.name for sequence in sequences}) == TOTAL
    assert opened == sorted(opened)
    assert len(set(opened)) == TOTAL
    for row in (0, 65_535, 65_536, TOTAL - 1):
        walk = Path(opened[row]).parts[-3]
        assert sequences[row].name == f"{row // SEQUENCES:04d}/{walk}/seq0"
        assert sequences[row].columns["video"] == walk.partition("_videoid")[2]
    planned = plan_preprocessing(
        PreprocessConfig(
            dataset="gait3d", folders=Folders(files=root), out=tmp_path / "s.zarr", recipe=ArrayRecipe(dataset="gait3d")
        )
    )
    frames = sum(SEQUENCES * (1 + subject % 3) for subject in range(SUBJECTS))
    assert (planned.num_sequences, planned.max_frames) == (TOTAL, frames)
    assert planned.num_shards * planned.shard_frames >= frames
