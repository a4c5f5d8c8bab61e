"""Two stores side by side, for OpenGait's multi-modal networks: frames meet by their numbers, not by their places."""

import json
import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_stores
import store_fakes
import zarr

from attengait.datasets import Folders
from attengait.errors import AttenGaitError
from attengait.export import folder as export_folder
from attengait.export.pickles import export_pickles
from attengait.preprocessing.arrays import ArrayRecipe
from attengait.preprocessing.run import PreprocessConfig, run_preprocessing
from attengait.store import Store, open_store
from attengait.store.description import read_description
from attengait.store.frame_columns import to_runs, write_frame_columns
from attengait.store.sequences import SequenceRecord

Heard = import_module("heard").Heard

SILHOUETTES = {
    "001": ([1, 2, 3, 4, 6], [10, 11, 12]),
    "002": ([5, 6, 7], [1, 2, 3, 4]),
    "003": ([1, 2, 3], [1, 2]),
}
FLOW = {
    "001": ([2, 3, 4, 5, 6, 7], [10, 11, 12]),
    "002": ([1, 2], [2, 4]),
    "004": ([2, 3], [2, 3]),
}
"""The frame numbers of the two walks of each subject."""


def store_of(path: Path, numbers: dict[str, Any], *, channels: int, seed: int, **options: Any) -> Path:
    """A store of random frames with these frame numbers; subjects by name, walks nm-01 and nm-02."""
    modality, encoding = ("silhouette", "gray") if channels == 1 else ("flow", "colour")
    walks = [walk for pair in numbers.values() for walk in pair]
    store = small_stores.make_store(
        path,
        lengths=[len(walk) for walk in walks],
        subjects=list(numbers),
        frame_shape=(64, 64, channels),
        attributes={"dataset": "casia-b", "modality": modality, "encoding": encoding},
        seed=seed,
        **options,
    )
    rows = [
        SequenceRecord(
            subject=str(store.sequences.subject[i]),
            walk=str(store.sequences.walk[i]),
            view=str(store.sequences.view[i]),
            start=int(store.sequences.start[i]),
            length=len(walk),
            crc32c=0,
            number_runs=to_runs(walk),
        )
        for i, walk in enumerate(walks)
    ]
    write_frame_columns(zarr.open_group(path), rows, store.layout.num_frames)
    return path


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    return (
        store_of(tmp_path / "silhouettes.zarr", SILHOUETTES, channels=1, seed=1),
        store_of(tmp_path / "flow.zarr", FLOW, channels=3, seed=2),
    )


def frames_by_number(store: Store, subject: str, walk: str) -> dict[int, Any]:
    """Each frame under its number, one at a time: the obvious way."""
    index = store.index(subject, walk, "090")
    return dict(zip(store.frame_numbers(index).tolist(), store[index], strict=True))


def as_opengait_loads(folder: Path) -> list[Any]:
    """What its loader does with the files of a sequence: sorted by name, all of one length, none empty."""
    loaded = [pickle.loads(path.read_bytes()) for path in sorted(folder.iterdir())]
    assert {len(array) for array in loaded} == {len(loaded[0])}
    assert len(loaded[0]) > 0
    return loaded


def test_both_files_hold_the_frames_that_both_stores_have(stores: tuple[Path, Path], tmp_path: Path) -> None:
    summary = export_pickles(stores[0], tmp_path / "out", beside=stores[1], workers=2)
    written = {
        ("001", "nm-01"): [2, 3, 4, 6],
        ("001", "nm-02"): [10, 11, 12],
        ("002", "nm-02"): [2, 4],
    }
    folders = sorted(path for path in (tmp_path / "out").glob("*/*/*") if path.is_dir())
    assert [folder.relative_to(tmp_path / "out").parts for folder in folders] == [(*name, "090") for name in written]
    silhouettes, flow = open_store(stores[0]), open_store(stores[1])
    for (subject, walk), numbers in written.items():
        folder = tmp_path / "out" / subject / walk / "090"
        assert sorted(path.name for path in folder.iterdir()) == ["0_silhouette.pkl", "1_flow.pkl"]
        first, second = as_opengait_loads(folder)
        assert (first.dtype, second.dtype) == (np.uint8, np.uint8)
        own, other = (frames_by_number(store, subject, walk) for store in (silhouettes, flow))
        np.testing.assert_array_equal(first, np.stack([own[number][..., 0] for number in numbers]))
        np.testing.assert_array_equal(second, np.stack([np.moveaxis(other[number], -1, 0) for number in numbers]))
    assert (summary.num_sequences, summary.num_frames, summary.num_files) == (3, 9, 6)
    assert summary.num_bytes == 9 * 64 * 64 * 4
    assert summary.array_shape == "T x 64 x 64 and T x 3 x 64 x 64"


def test_what_one_store_has_alone_is_counted_and_named(stores: tuple[Path, Path], tmp_path: Path) -> None:
    summary = export_pickles(stores[0], tmp_path / "out", beside=stores[1])
    lines = (
        f"left out: 3 frames in 2 sequences that only {stores[0]} has",
        f"left out: 2 frames in 1 sequence that only {stores[1]} has",
        f"left out: 2 sequences that only {stores[0]} has: 003/nm-01/090, 003/nm-02/090",
        f"left out: 2 sequences that only {stores[1]} has: 004/nm-01/090, 004/nm-02/090",
        "left out: 1 sequence without a common frame number: 002/nm-01/090",
    )
    assert summary.left_out == lines
    assert str(summary).splitlines()[1:] == list(lines)
    report = [json.loads(line) for line in (tmp_path / "out.skipped.jsonl").read_text().splitlines()]
    assert [(entry["where"], entry.get("frames")) for entry in report] == [
        ("001/nm-01/090", [1]),
        ("002/nm-02/090", [1, 3]),
        ("003/nm-01/090", None),
        ("003/nm-02/090", None),
        ("001/nm-01/090", [5, 7]),
        ("004/nm-01/090", None),
        ("004/nm-02/090", None),
        ("002/nm-01/090", None),
    ]
    assert report[0] == {
        "where": "001/nm-01/090",
        "reason": "no matching frame number",
        "frames": [1],
        "detail": f"only {stores[0]} has it",
    }
    assert report[2]["reason"] == "sequence of one store only"
    again = export_pickles(stores[0], tmp_path / "out", beside=stores[1])
    assert "it was finished already, nothing was done" in str(again)
    assert again.left_out == lines


def test_a_dry_run_counts_the_same_and_writes_nothing(stores: tuple[Path, Path], tmp_path: Path) -> None:
    dry = export_pickles(stores[0], tmp_path / "out", beside=stores[1], dry_run=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flow.zarr", "silhouettes.zarr"]
    done = export_pickles(stores[0], tmp_path / "out", beside=stores[1])
    assert (dry.num_frames, dry.left_out) == (done.num_frames, done.left_out)


def test_each_side_comes_back_as_what_it_was(stores: tuple[Path, Path], tmp_path: Path) -> None:
    export_pickles(stores[0], tmp_path / "out", beside=stores[1])
    silhouettes = read_description(tmp_path / "out", "0_silhouette.pkl")
    assert silhouettes is not None
    assert silhouettes.attributes == {"dataset": "casia-b", "modality": "silhouette", "encoding": "gray"}
    config = PreprocessConfig(
        dataset="pickles",
        folders=Folders(files=tmp_path / "out", pattern="1_*"),
        out=tmp_path / "back.zarr",
        recipe=ArrayRecipe(),
    )
    assert run_preprocessing(config).skipped == {}
    back, flow = open_store(tmp_path / "back.zarr"), open_store(stores[1])
    assert [back.attributes[key] for key in ("dataset", "modality", "encoding")] == ["casia-b", "flow", "colour"]
    frames = frames_by_number(flow, "002", "nm-02")
    np.testing.assert_array_equal(back["002", "nm-02", "090"], np.stack([frames[2], frames[4]]))


def test_a_stopped_run_is_continued(stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_folder, "_TASK_FRAMES", 1)  # a task for each file
    export_pickles(stores[0], tmp_path / "undisturbed", beside=stores[1])

    def stop(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"stopped; [1-6] of 6 files are kept: run the same command again"):
        export_pickles(stores[0], tmp_path / "out", beside=stores[1], progress=Heard(stop))
    assert not (tmp_path / "out").exists()
    assert export_pickles(stores[0], tmp_path / "out", beside=stores[1]).num_reused > 0
    assert store_fakes.tree(tmp_path / "out") == store_fakes.tree(tmp_path / "undisturbed")


def test_a_folder_of_another_pair_is_left_alone(stores: tuple[Path, Path], tmp_path: Path) -> None:
    export_pickles(stores[0], tmp_path / "out", beside=stores[1])
    before = store_fakes.tree(tmp_path / "out")
    shifted = {name: ([number + 1 for number in walk] for walk in walks) for name, walks in FLOW.items()}
    other = store_of(tmp_path / "shifted.zarr", shifted, channels=3, seed=2)
    for first, beside in ((stores[1], stores[0]), (stores[0], None), (stores[0], other)):
        with pytest.raises(AttenGaitError, match="holds the export of another store, or another export"):
            export_pickles(first, tmp_path / "out", beside=beside)
    assert store_fakes.tree(tmp_path / "out") == before


def test_stores_that_do_not_fit_are_refused(stores: tuple[Path, Path], tmp_path: Path) -> None:
    small_stores.make_store(tmp_path / "small.zarr", frame_shape=(32, 32, 3))
    small_stores.make_store(tmp_path / "old.zarr", frame_shape=(64, 64, 3), lengths=(5, 5))
    strangers = store_of(tmp_path / "strangers.zarr", {"900": ([1], [2])}, channels=3, seed=3)
    for beside, part in (
        (tmp_path / "small.zarr", "has images of 64 x 64, but .*small.zarr of 32 x 32"),
        (tmp_path / "old.zarr", "keeps no frame numbers"),
        (strangers, "have no frame in common, by subject, walk, view and frame number"),
        (stores[0], "is given twice: --with names a second store"),
        (tmp_path / "nowhere.zarr", "does not exist"),
    ):
        with pytest.raises(AttenGaitError, match=part):
            export_pickles(stores[0], tmp_path / "out", beside=beside)
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.work").exists()
