"""A data set's own partition says who is trained on; a preset refuses a store of another data set."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from small_stores import make_store

from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.runs import unseen_subjects
from attengait.pipelines.train import batch_plan, choose_settings, train
from attengait.store import Store
from attengait.store.joined import join_stores
from attengait.training.checkpoint import read_record
from attengait.training.config import load_preset, make_config, preset_names
from attengait.training.partition import read_partition, with_partition

GREW = ["00001", "00001train", "00002", "00002train", "00003train", "probe"]
"""Subjects as OpenGait lays out GREW: who trains, who is tested, and sequences of unknown people."""
SMALL = {"size": "tiny", "subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 16, "device": "cpu"}
ONE_STEP = SMALL | {"epochs": 1, "epochs_without_cross_entropy": 0, "stop_after_steps": 1, "precision": "fp32"}

OWN = {"exclude_subjects": ()}


def store_of(path: Path, subjects: list[str]) -> Store:
    lengths = (18,) * (2 * len(subjects))
    return make_store(path, subjects=subjects, lengths=lengths, frame_shape=(64, 64, 3), shard_frames=64)


def write(path: Path, **sets: Any) -> Path:
    path.write_text(json.dumps(sets))
    return path


@pytest.fixture
def partition(tmp_path: Path) -> Path:
    train_set = ["00001train", "00002train", "00009train"]
    return write(tmp_path / "p.json", TRAIN_SET=train_set, TEST_SET=["00001", "probe"], PROBE_SET=["00001-02-x"])


@pytest.fixture
def grew(tmp_path: Path) -> Store:
    return store_of(tmp_path / "grew.zarr", GREW)


def plan_of(store: Store, preset: str, **settings: Any) -> list[str]:
    return list(batch_plan(store, make_config(load_preset(preset) | SMALL | settings)).subjects)


def test_the_preset_of_grew_trains_on_training_subjects_only(grew: Store) -> None:
    assert plan_of(grew, "grew") == ["00001train", "00002train", "00003train"]


@pytest.mark.parametrize(
    ("preset", "subjects"),
    [
        ("casia-b", GREW),
        ("oumvlp", GREW),
        ("oumvlp", ["001", "002", "003"]),
        ("casia-b", ["00001", "00002", "00003"]),
        ("casia-b", ["001", "002", "p3"]),
        ("casia-b", ["001", "002", "200"]),
        ("grew", ["001", "002", "003"]),
        ("grew", ["anna", "ben"]),
    ],
)
def test_a_preset_refuses_a_store_of_another_data_set(tmp_path: Path, preset: str, subjects: list[str]) -> None:
    store = store_of(tmp_path / "s.zarr", subjects)
    with pytest.raises(ParameterError, match=r"^train_subjects is '.*', which the preset means for another data set"):
        plan_of(store, preset)
    config = choose_settings(
        tmp_path / "run", preset=preset, settings=SMALL | OWN | {"train_subjects": tuple(subjects[:2])}
    )
    assert list(batch_plan(store, config).subjects) == subjects[:2]


@pytest.mark.parametrize(
    ("preset", "known"),
    [("casia-b", ["001", "074", "124"]), ("oumvlp", ["00001", "00003", "10307"]), ("demo", ["001", "anna"])],
)
def test_a_preset_takes_its_data_set(tmp_path: Path, preset: str, known: list[str]) -> None:
    assert plan_of(store_of(tmp_path / "s.zarr", known), preset) == known[:2]


def test_every_preset_that_chooses_subjects_knows_the_names_of_its_data_set() -> None:
    for name in preset_names():
        preset = load_preset(name)
        assert bool(preset["train_subjects"]) == ("known_subjects" in preset), name


def test_without_settings_nobody_is_trained_on_who_is_for_the_test_by_name(tmp_path: Path, grew: Store) -> None:
    with pytest.raises(ParameterError, match=r"^train_subjects is empty, .* such as probe; use --set"):
        batch_plan(grew, make_config(SMALL))
    tests = store_of(tmp_path / "t.zarr", ["1train", "2train", "1test", "gallery"])
    with pytest.raises(ParameterError, match=r"such as 1test, gallery; use --set"):
        batch_plan(tests, make_config(SMALL))
    chosen = batch_plan(tests, make_config(SMALL | {"exclude_subjects": ("1test", "gallery")}))
    assert list(chosen.subjects) == ["1train", "2train"]
    assert len(batch_plan(tests, make_config(SMALL | {"train_subjects": ("*",)})).subjects) == 4


def test_several_stores_are_known_by_the_names_that_their_data_sets_give(tmp_path: Path, grew: Store) -> None:
    # A name of a store says nothing about its people.
    joined = join_stores([grew, store_of(tmp_path / "distractors.zarr", ["001", "gallery", "1test"])])
    with pytest.raises(ParameterError, match=r"^train_subjects is empty, .* such as distractors:1test, distractors:ga"):
        batch_plan(joined, make_config(SMALL))
    others = ("grew:probe", "distractors:gallery", "distractors:1test")
    assert len(batch_plan(joined, make_config(SMALL | {"exclude_subjects": others})).subjects) == 6


def test_with_a_partition_an_excluded_subject_must_be_there_or_be_known_to_the_preset(
    tmp_path: Path,
) -> None:
    store = store_of(tmp_path / "s.zarr", ["001", "002", "003", "004"])
    partition = write(tmp_path / "p.json", TRAIN_SET=["001", "002", "003"], TEST_SET=["004"])
    with pytest.raises(ParameterError, match=r"^exclude_subjects is 'OO3', but must be among the 4 subjects"):
        train(store, tmp_path / "run", partition=partition, settings=ONE_STEP | {"exclude_subjects": ("OO3",)})
    # 005, which the preset excludes, is not in this part of the data set. The same holds when the run goes on.
    for resume in (False, True):
        train(store, tmp_path / "run", preset="casia-b", partition=partition, settings=ONE_STEP, resume=resume)
    assert read_record(tmp_path / "run").config.data.exclude_subjects == ()


def test_a_partition_chooses_who_is_trained_on_and_who_is_left_out(
    grew: Store, partition: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        result = train(grew, tmp_path / "run", partition=partition, settings=ONE_STEP)
    assert read_record(result.run).subjects == ["00001train", "00002train"]
    assert "trains on 2 of the 3 subjects in TRAIN_SET; 2 of the 2 in TEST_SET are in the store" in caplog.text
    assert "2 subjects of" in caplog.text
    assert "are in neither set of" in caplog.text
    assert "left out: 00002, 00003train" in caplog.text
    assert "trains on 2 of 6 subjects" in caplog.text
    assert unseen_subjects(result.run, grew) == ["00001", "probe"]
    # The run remembers its subjects: the file is not needed to continue.
    again = train(grew, tmp_path / "run", settings={"stop_after_steps": 0}, resume=True)
    assert again.steps == again.num_steps


def test_a_partition_overrides_a_preset_but_not_a_setting(tmp_path: Path, grew: Store, partition: Path) -> None:
    config = make_config(load_preset("casia-b") | SMALL | {"exclude_subjects": ()})
    changed = with_partition(config, read_partition(partition), GREW, "grew.zarr")
    assert changed.data.train_subjects == ("00001train", "00002train")
    assert list(batch_plan(grew, changed).subjects) == ["00001train", "00002train"]
    with pytest.raises(ParameterError, match=r"^partition is '.*p\.json', but must be left out where train_subjects"):
        train(grew, tmp_path / "run", partition=partition, settings={"train_subjects": ("00001train",)})
    other = store_of(tmp_path / "other.zarr", ["00001train", "00002train"])
    with pytest.raises(ParameterError, match=r"^partition is '.*p\.json', but must be left out for several stores"):
        train([grew, other], tmp_path / "run", partition=partition)


def test_a_partition_that_is_not_there_is_noticed_where_settings_are_only_shown(tmp_path: Path) -> None:
    with pytest.raises(AttenGaitError, match=r"the partition .*nowhere\.json cannot be read: No such file"):
        choose_settings(tmp_path / "run", preset="casia-b", settings={}, partition=tmp_path / "nowhere.json")


def test_a_partition_of_another_data_set_is_refused(tmp_path: Path, partition: Path) -> None:
    with pytest.raises(AttenGaitError, match=r"s\.zarr has none of the 3 subjects in TRAIN_SET .* are 001"):
        train(store_of(tmp_path / "s.zarr", ["001", "002"]), tmp_path / "run", partition=partition, settings=SMALL)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "it is not a JSON object"),
        ('{"TRAIN_SET": [], "TEST_SET": [], "TRAIN_SET": ["1"]}', "its key 'TRAIN_SET' occurs twice"),
        ('{"TRAIN_SET": NaN}', "it holds NaN"),
        ('{"TRAIN_SET": []}', "a JSON object with TRAIN_SET and TEST_SET is expected"),
        ('{"TRAIN_SET": [1], "TEST_SET": []}', "its TRAIN_SET must be a list of texts"),
        ('{"TRAIN_SET": [], "TEST_SET": "001"}', "its TEST_SET must be a list of texts"),
        ('{"TRAIN_SET": [], "TEST_SET": [], "PROBE_SET": 3}', "its PROBE_SET must be a list of texts"),
        ('{"TRAIN_SET": ["1", "2"], "TEST_SET": ["2"]}', "1 subjects are in TRAIN_SET and in TEST_SET, such as 2"),
        ('{"TRAIN_SET": ["1"], "TEST_SET": [], "PROBE_SET": ["1-00-x"]}', "1 sequences of PROBE_SET show subjects"),
    ],
)
def test_a_file_that_is_no_partition_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(AttenGaitError, match=said) as error:
        read_partition(path)
    assert str(path) in str(error.value)


def test_a_partition_that_is_not_there_or_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("nothing", "No such file"), ("", "it is a folder"), ("pipe", "it is a named pipe")):
        with pytest.raises(AttenGaitError, match=f"{tmp_path / name} cannot be read: {said}"):
            read_partition(tmp_path / name)


def test_a_subject_that_a_preset_excludes_may_be_absent_and_another_may_not(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s.zarr", ["001", "002", "003"])
    assert plan_of(store, "casia-b") == ["001", "002", "003"]
    assert plan_of(store, "casia-b", exclude_subjects=("003", "005")) == ["001", "002"]
    with pytest.raises(ParameterError, match=r"^exclude_subjects is '5O', but must be among the 3 subjects"):
        plan_of(store, "casia-b", exclude_subjects=("5O",))
    with pytest.raises(ParameterError, match=r"^train_subjects is '7', but must be among the 3 subjects"):
        plan_of(store, "casia-b", train_subjects=("7",))


def test_a_run_of_version_0_1_0_is_continued_with_its_preset(data: Path, tmp_path: Path) -> None:
    before = read_record(data / "run-0.1.0").config
    assert before.data.known_subjects == ()
    config = choose_settings(data / "run-0.1.0", preset="casia-b", settings={}, resume=True)
    assert config.data.known_subjects == ()
