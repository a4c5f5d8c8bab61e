"""A GREW of more than 65,535 sequences, the number at which counters of 16 bits begin again: none is lost or mixed."""

from importlib import import_module
from pathlib import Path

import numpy as np

from attengait.datasets import Folders
from attengait.evaluation.sides import Labels
from attengait.pipelines.runs import subjects_set_aside
from attengait.preprocessing.ready_flow import ReadyFlowRecipe
from attengait.preprocessing.run import PreprocessConfig, run_preprocessing
from attengait.sampling.plan import BatchPlan
from attengait.store import open_store

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
