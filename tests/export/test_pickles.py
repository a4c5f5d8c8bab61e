"""A store as OpenGait's pickles, and back."""

import json
import os
import pickle
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import foreign_files
import numpy as np
import pytest
import small_stores
import store_fakes

from attengait.datasets import Folders
from attengait.errors import AttenGaitError, ParameterError
from attengait.export import folder as export_folder
from attengait.export.pickles import export_pickles, pickle_array
from attengait.preprocessing.arrays import ArrayRecipe
from attengait.preprocessing.run import PreprocessConfig, run_preprocessing
from attengait.preprocessing.summary import PreprocessSummary
from attengait.store import Store, open_store, summarise
from attengait.store.writer import write_store

Heard = import_module("heard").Heard


def import_pickles(folder: Path, out: Path, *, modality: str | None = None, **options: Any) -> PreprocessSummary:
    recipe = ArrayRecipe(shows=modality, **options)
    return run_preprocessing(PreprocessConfig(dataset="pickles", folders=Folders(files=folder), out=out, recipe=recipe))


def store_of(tmp_path: Path, *picture_shape: int, out: str = "s.zarr", **options: Any) -> tuple[Path, dict[Any, Any]]:
    """A store of random frames and what is in it, [T, H, W] or [T, H, W, C]."""
    arrays = foreign_files.arrays(*picture_shape)
    folder = foreign_files.write_pickles(tmp_path / f"{out}.in", arrays)
    import_pickles(folder, tmp_path / out, **options)
    return tmp_path / out, arrays


def as_opengait_reads(root: Path) -> dict[tuple[str, str, str], list[Any]]:
    """What its data set holds: every folder three levels deep, and in each whatever lies there, unpickled.

    Its subjects come from a list, so what else lies beside them does not matter.
    """
    read = {}
    for subject in sorted(entry for entry in os.listdir(root) if entry != "attengait.json"):
        for kind in sorted(os.listdir(root / subject)):
            for view in sorted(os.listdir(root / subject / kind)):
                files = sorted((root / subject / kind / view).iterdir())
                assert all(file.suffix == ".pkl" for file in files), "OpenGait stops at other files"
                read[subject, kind, view] = [pickle.loads(file.read_bytes()) for file in files]
    return read


def test_silhouettes_lie_as_opengait_wants_them(tmp_path: Path) -> None:
    store, arrays = store_of(tmp_path, 64, 64)
    summary = export_pickles(store, tmp_path / "out", workers=2)
    assert (summary.num_sequences, summary.num_frames, summary.array_shape) == (4, 69, "T x 64 x 64")
    read = as_opengait_reads(tmp_path / "out")
    assert read.keys() == arrays.keys()
    for name, (frames,) in read.items():
        assert frames.dtype == np.uint8
        np.testing.assert_array_equal(frames, arrays[name])
        assert frames[..., 10:-10].shape[1:] == (64, 44)  # what its silhouette transform cuts out
    assert (tmp_path / "out/001/nm-01/090/090.pkl").is_file()
    assert sorted(os.listdir(tmp_path)) == ["out", "s.zarr", "s.zarr.in", "s.zarr.skipped.jsonl"]


def test_flow_has_its_channels_before_rows_and_columns(tmp_path: Path) -> None:
    store, arrays = store_of(tmp_path, 64, 64, 3, modality="flow")
    export_pickles(store, tmp_path / "out")
    mean = np.reshape([0.485 * 255, 0.456 * 255, 0.406 * 255], (1, 3, 1, 1))
    for name, (frames,) in as_opengait_reads(tmp_path / "out").items():
        np.testing.assert_array_equal(frames, np.moveaxis(arrays[name], -1, 1))
        assert frames.flags.c_contiguous
        assert (frames - mean).shape == frames.shape  # its transform of colours takes three channels there
        assert frames[..., 10:-10].shape[1:] == (3, 64, 44)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((64, 64), {}),
        ((64, 64, 3), {"modality": "flow", "dataset": "casia-b"}),
        ((64, 64, 2), {"modality": "flow", "encoding": "uv"}),
        ((48, 32), {"pad": False}),
        ((64, 64, 4), {"modality": "silhouette+flow"}),
    ],
)
def test_what_was_exported_comes_back_equal(tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    path, _ = store_of(tmp_path, *shape, **options)
    export_pickles(path, tmp_path / "out")
    back = import_pickles(tmp_path / "out", tmp_path / "back.zarr", pad=options.get("pad", True))
    assert back.skipped == {}
    before, after = open_store(path), open_store(tmp_path / "back.zarr")

    def records(store: Store) -> list[str]:
        sequences = store.sequences
        return [f"{sequences.name(i)} {sequences.length[i]} {sequences.crc32c[i]}" for i in range(len(sequences))]

    assert records(before) == records(after)
    for name, frames in foreign_files.contents_of(after).items():
        np.testing.assert_array_equal(frames, foreign_files.contents_of(before)[name])
    kept = ("dataset", "modality", "encoding", "encoding_steps_per_px", "encoding_offset", "frame_shape", "walks")
    assert known_of(before, kept) == known_of(after, kept)
    assert after.attributes["recipe"]["exported_recipe"] == before.attributes["recipe"]


def known_of(store: Store, keys: tuple[str, ...]) -> dict[str, Any]:
    summary = summarise(store)
    return {key: summary.get(key) for key in keys}


def test_pickles_are_read_by_every_numpy_and_by_python_3_alone() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    data = pickle_array(array)
    assert data[:2] == b"\x80\x03"
    assert b"numpy._core" not in data
    assert b"numpy.core.multiarray" in data
    np.testing.assert_array_equal(pickle.loads(data), array)


def test_a_run_that_is_stopped_is_continued_and_ends_in_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = store_of(tmp_path, 64, 64)
    monkeypatch.setattr(export_folder, "_TASK_FRAMES", 1)  # a task for each sequence
    export_pickles(store, tmp_path / "undisturbed")

    def stop(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"stopped; [1-4] of 4 files are kept: run the same command again"):
        export_pickles(store, tmp_path / "out", progress=Heard(stop))
    assert not (tmp_path / "out").exists()
    heard = Heard()
    summary = export_pickles(store, tmp_path / "out", progress=heard)
    assert summary.num_reused > 0
    assert "from earlier runs" in str(summary)
    assert heard.counts[0][0] > 0
    assert heard.counts[-1] == (69, 69)
    assert store_fakes.tree(tmp_path / "out") == store_fakes.tree(tmp_path / "undisturbed")
    assert not (tmp_path / "out.work").exists()
    summary = export_pickles(store, tmp_path / "out")
    assert "finished already, nothing was done" in str(summary)


KILLED = """
import os, signal, sys
from attengait.export import folder, pickles as exporting
if __name__ == "__main__":
    really_move = folder.move_atomically
    def die(source, target):
        if sys.argv[3] == "after":
            really_move(source, target)
        os.kill(os.getpid(), signal.SIGKILL)
    folder.move_atomically = die
    exporting.export_pickles(sys.argv[1], exporting.Path(sys.argv[2]))
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_killed_around_its_last_step_leaves_all_or_nothing(tmp_path: Path, when: str) -> None:
    store, arrays = store_of(tmp_path, 8, 8)
    (tmp_path / "killed.py").write_text(KILLED)
    words = [sys.executable, "killed.py", str(store), "out", when]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "out").exists() == (when == "after")
    summary = export_pickles(store, tmp_path / "out")
    assert summary.num_reused == 4
    assert as_opengait_reads(tmp_path / "out").keys() == arrays.keys()
    assert not (tmp_path / "out.work").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    store, _ = store_of(tmp_path, 8, 8)
    other, _ = store_of(tmp_path, 9, 9, out="other.zarr")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    export_pickles(store, tmp_path / "empty")
    for out, part in (
        ("full", "exists already and is not empty"),
        ("file", "is a file"),
        ("no/where", "does not exist"),
        ("..", "name the folder to make"),
    ):
        with pytest.raises(AttenGaitError, match=part):
            export_pickles(store, tmp_path / out)
    with pytest.raises(AttenGaitError, match="holds the export of another store"):
        export_pickles(other, tmp_path / "empty")
    (tmp_path / "empty/001/nm-01/090/090.pkl").unlink()
    with pytest.raises(AttenGaitError, match=r"lacks 1 of its files, such as 001/nm-01/090/090\.pkl"):
        export_pickles(store, tmp_path / "empty")
    (tmp_path / "mine.work").mkdir()
    (tmp_path / "mine.work" / "notes").write_text("")
    with pytest.raises(AttenGaitError, match="is in the way"):
        export_pickles(store, tmp_path / "mine")
    (tmp_path / "begun.work").mkdir()
    (tmp_path / "begun.work" / "plan.json").write_text(json.dumps({"export": "of another"}))
    with pytest.raises(AttenGaitError, match="begun from another store"):
        export_pickles(store, tmp_path / "begun")
    with pytest.raises(ParameterError, match="workers is 0"):
        export_pickles(store, tmp_path / "x", workers=0)


def test_damaged_frames_are_not_exported(tmp_path: Path) -> None:
    store, _ = store_of(tmp_path, 8, 8)
    shard = store / "frames/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(AttenGaitError, match="the frames of 001/bg-01/090 fail their checksum"):
        export_pickles(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc"])
def test_names_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    plan = store_fakes.plan_of((5,))
    sequence = plan.sequences[0]
    renamed = type(sequence)(
        subject=name,
        walk=sequence.walk,
        view=sequence.view,
        max_frames=5,
        content_digest="",
        scan_digest="",
    )
    evil = type(plan)(
        sequences=(renamed,),
        parameters=plan.parameters,
        versions=plan.versions,
        frame_shape=plan.frame_shape,
        codec="none",
        chunk_frames=4,
    )
    write_store(store_fakes.job_of(tmp_path / "evil.zarr", evil))
    with pytest.raises(AttenGaitError, match="cannot be a folder"):
        export_pickles(tmp_path / "evil.zarr", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    small_stores.make_store(tmp_path / "s.zarr", frame_shape=(8, 8, 3))
    summary = export_pickles(tmp_path / "s.zarr", tmp_path / "out", dry_run=True)
    assert str(summary).endswith("10 sequences, 200 frames, uint8 T x 3 x 8 x 8, 0.000 GB")
    assert os.listdir(tmp_path) == ["s.zarr"]
