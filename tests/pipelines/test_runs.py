"""Whom a run has seen: a store is known by what it holds and what it was made from, not by names."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_stores import make_store

from attengait.errors import AttenGaitError
from attengait.pipelines.runs import identity_of, subjects_set_aside, unseen_subjects
from attengait.pipelines.train import train
from attengait.store import Store
from attengait.store.joined import join_stores
from attengait.training.checkpoint import RunRecord, write_record
from attengait.training.config import make_config

SOURCE = {"source": {"sequences": 8, "sha256": "a" * 64}}
OTHER_SOURCE = {"source": {"sequences": 8, "sha256": "b" * 64}}


def people(path: Path, **changes: Any) -> Store:
    """A store of four subjects, 001 to 004, of two sequences each."""
    made: Store = make_store(path, **({"lengths": (18,) * 8, "attributes": SOURCE} | changes))
    return made


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Store]:
    """A run on 001 and 002 of a store."""
    store = people(tmp_path / "s.zarr")
    note(tmp_path, identity_of(store))
    return tmp_path, store


def note(run: Path, store: dict[str, Any]) -> None:
    config = make_config({"train_subjects": ("001-002",)})
    write_record(run, RunRecord(config=config, subjects=["001", "002"], store=store))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_of_its_own_store_a_run_has_seen_its_training_set(
    trained: tuple[Path, Store], caplog: pytest.LogCaptureFixture
) -> None:
    run, store = trained
    assert unseen_subjects(run, store) == ["003", "004"]
    assert unseen_subjects(run, store.select(subjects="2-3")) == ["003"]
    with pytest.raises(AttenGaitError, match=r"all 2 subjects of .* belong to the training set .* --subjects"):
        unseen_subjects(run, store.select(subjects="1-2"))
    assert not warnings_of(caplog)


def test_strangers_of_another_store_with_the_same_names_are_kept(
    trained: tuple[Path, Store], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, _ = trained
    other = people(tmp_path / "other.zarr", lengths=(19,) * 8, attributes=OTHER_SOURCE)
    assert unseen_subjects(run, other) == ["001", "002", "003", "004"]
    (sentence,) = warnings_of(caplog)
    assert "other.zarr is not the store that" in sentence
    assert "its 4 subjects are taken for other people, although names of 2 are in the training set" in sentence
    assert sentence.endswith("choose with --subjects")
    only = other.select(subjects="1-2")
    assert unseen_subjects(run, only) == ["001", "002"]


def test_other_pictures_of_the_same_files_show_the_same_people(trained: tuple[Path, Store], tmp_path: Path) -> None:
    run, _ = trained
    again = people(tmp_path / "again.zarr", lengths=(19,) * 8, frame_shape=(6, 5, 2))
    assert unseen_subjects(run, again) == ["003", "004"]


def test_another_store_without_common_names_needs_no_warning(
    trained: tuple[Path, Store], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, _ = trained
    other = people(tmp_path / "other.zarr", lengths=(19,) * 8, attributes=OTHER_SOURCE).select(subjects="3-4")
    assert unseen_subjects(run, other) == ["003", "004"]
    assert not warnings_of(caplog)


def test_a_record_of_0_1_0_knows_its_store_and_no_other(tmp_path: Path) -> None:
    store = people(tmp_path / "s.zarr")
    note(tmp_path, {key: value for key, value in identity_of(store).items() if key != "source_sha256"})
    assert unseen_subjects(tmp_path, store) == ["003", "004"]
    other = people(tmp_path / "other.zarr", lengths=(19,) * 8)
    with pytest.raises(AttenGaitError, match=r"does not say from which files .* 2 subjects of the same"):
        unseen_subjects(tmp_path, other)
    assert unseen_subjects(tmp_path, other.select(subjects="3-4")) == ["003", "004"]


def test_a_selection_is_noted_with_the_digest_of_its_whole_store(tmp_path: Path) -> None:
    store = people(tmp_path / "s.zarr")
    some, whole = identity_of(store[:4]), identity_of(store)
    assert (some["sequences"], some["frames"]) == (4, 72)
    assert some["sha256"] == whole["sha256"]
    assert some["source_sha256"] == "a" * 64
    assert some["selected_sha256"] != identity_of(store[1:5])["selected_sha256"]
    assert "selected_sha256" not in whole


def test_what_kills_left_in_a_run_folder_is_removed_and_nothing_else(tmp_path: Path) -> None:
    store = people(tmp_path / "s.zarr", frame_shape=(64, 64, 3))
    run = tmp_path / "run"
    run.mkdir()
    (run / ".config.json.4194399.tmp").write_text("{")  # all that a kill leaves while the record is written
    settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 16, "stop_after_steps": 1}
    train(store, run, preset="demo", settings={**settings, "device": "cpu", "train_subjects": ()})
    assert sorted(entry.name for entry in run.iterdir() if entry.is_file()) == [
        ".lock",
        "checkpoint.pt",
        "config.json",
        "environment.json",
        "first_batch.png",
        "metrics.jsonl",
        "model.safetensors",
        "train.log",
    ]
    for name in (".checkpoint.pt.1.tmp", ".model.safetensors.4194399.tmp", ".notes.txt.1.tmp"):
        (run / name).write_bytes(b"half")
    train(store, run, settings={"stop_after_steps": 1}, resume=True)
    assert [entry.name for entry in run.glob(".*.tmp")] == [".notes.txt.1.tmp"]


def test_what_a_data_set_sets_aside_is_known_of_one_store_and_of_several(tmp_path: Path) -> None:
    plain = people(tmp_path / "plain.zarr", seed=1, attributes=OTHER_SOURCE)
    parts = np.array(["train", "train", "gallery", "gallery", "train", "train", "probe", "distractor"])
    other = people(tmp_path / "grew.zarr")
    grew = replace(other, sequences=replace(other.sequences, extra={"part": parts.astype(np.dtypes.StringDType())}))
    assert subjects_set_aside(plain) == set()
    assert subjects_set_aside(grew) == {"002", "004"}
    # Joined, the column is lost, as the other store has none; what it says is not.
    assert "part" not in join_stores([plain, grew]).sequences.extra
    assert subjects_set_aside(join_stores([plain, grew])) == {"grew:002", "grew:004"}
