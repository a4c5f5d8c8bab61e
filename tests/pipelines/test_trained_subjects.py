"""Whom and what a run is trained on is said, and is known whatever the names of people are."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_stores import make_store

import attengait
from attengait.errors import AttenGaitError, ParameterError
from attengait.model.config import ModelConfig
from attengait.pipelines.embed import prepare
from attengait.pipelines.runs import trained_subjects, unseen_subjects
from attengait.pipelines.train import choose_settings, train_run
from attengait.store import Store
from attengait.training.checkpoint import RunRecord, read_record, write_record
from attengait.training.config import make_config

SMALL = {"subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 16, "size": "tiny", "device": "cpu"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Five subjects, 001 to 005, of two sequences each."""
    made: Store = make_store(tmp_path_factory.mktemp("stores") / "s.zarr", frame_shape=(64, 64, 3))
    return made


def test_subjects_with_commas_in_their_names_are_trained_on_and_then_known(store: Store, tmp_path: Path) -> None:
    names = {"001": "Doe, Jane", "002": "Smith, John"}
    subject = np.array([names.get(name, name) for name in store.sequences.subject.tolist()], np.dtypes.StringDType())
    own = replace(store, sequences=replace(store.sequences, subject=subject))
    attengait.train(own, tmp_path / "run", settings=SMALL | {"exclude_subjects": ("003",), "stop_after_steps": 1})
    assert read_record(tmp_path / "run").subjects == ["004", "005", "Doe, Jane", "Smith, John"]
    with pytest.raises(AttenGaitError, match=r"all 5 subjects of .* belong to the training set"):
        unseen_subjects(tmp_path / "run", own)
    embeddings = attengait.embed(tmp_path / "run", own, subjects=["Doe, Jane"])
    assert set(embeddings.subjects.tolist()) == {"Doe, Jane"}


def test_figures_on_people_of_the_training_set_are_said_to_be_so(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    chosen = {"train_subjects": ("001-004",), "exclude_subjects": ("002",), "stop_after_steps": 1}
    attengait.train(store, run, settings=SMALL | chosen)
    options = {"protocol": "cross-walk", "device": "cpu"}
    result = attengait.evaluate(run, store, subjects="001-005", **options)
    said = f"3 of the 5 subjects are in the training set of {run}: 001, 003, 004"
    assert said in result.remarks
    assert said in result.to_dict()["remarks"]
    assert said in str(result)
    assert said in caplog.text
    assert attengait.evaluate(run, store, subjects=["002", "005"], **options).remarks == ()
    assert attengait.evaluate(attengait.load_model(run), store, subjects="001-005", **options).remarks == ()
    (tmp_path / "p.json").write_text('{"TRAIN_SET": ["004"], "TEST_SET": ["001", "005"]}')
    options["options"] = attengait.EvaluationOptions(partition=tmp_path / "p.json")
    with pytest.raises(AttenGaitError, match=r"p\.json is not the partition of this run: 1 of the 2 subjects are in "):
        attengait.evaluate(run, store, **options)


def test_those_that_chose_the_weights_count_as_trained_on(store: Store, tmp_path: Path) -> None:
    settings = SMALL | {"train_subjects": ("001-004",), "validation_subjects": ("003", "004")}
    write_record(tmp_path, RunRecord(config=make_config(settings), subjects=["001", "002"], store={}))
    assert trained_subjects(tmp_path, store) == ["001", "002", "003", "004"]
    record = RunRecord(config=make_config(settings), subjects=["001", "002"], store={"sha256": "of another"})
    write_record(tmp_path, record)
    assert trained_subjects(tmp_path, store) == []


def test_embeddings_of_other_sequences_have_another_digest(store: Store) -> None:
    network = attengait.AttenGait(ModelConfig.of_size("tiny", blocks_per_stage=1))
    one, other = (prepare(network, store.select(subjects=[name])) for name in ("001", "002"))
    assert one.indices.tolist() == other.indices.tolist()
    assert one.sha256() != other.sha256()


def test_sequences_that_are_too_short_are_counted_and_the_error_says_what_helps(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    preset = choose_settings(tmp_path / "run", preset="casia-b", settings={"device": "cpu", "subjects_per_batch": 4})
    with pytest.raises(ParameterError) as caught:
        train_run(store.path, tmp_path / "run", preset)
    assert "(there are sequences of 20 to 20 frames; choose clip_frames=20, or repeat_short=true)" in str(caught.value)
    mixed = make_store(tmp_path / "m.zarr", lengths=(20, 17) * 4, frame_shape=(64, 64, 3))
    with caplog.at_level(logging.INFO):
        train_run(mixed.path, tmp_path / "mixed", make_config({**SMALL, "clip_frames": 18, "stop_after_steps": 1}))
    assert (
        "4 of the sequences of these subjects have fewer than the 18 frames of a clip and are not used" in caplog.text
    )
    caplog.clear()
    for name, settings in {"least": {"min_frames": 18}, "shown": {"min_frames": 18, "repeat_short": True}}.items():
        with caplog.at_level(logging.INFO):
            train_run(mixed.path, tmp_path / name, make_config({**SMALL, **settings, "stop_after_steps": 1}))
        assert (
            "4 of the sequences of these subjects have fewer than the 18 frames of min_frames and are not used\n"
            in caplog.text
        )
        caplog.clear()
