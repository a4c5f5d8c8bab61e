"""Whom a run trains on, whom it has not seen, and which folders it refuses."""

import fcntl
from pathlib import Path

import pytest
from small_stores import make_store

from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.run import batch_plan, train_run, unseen_subjects
from attengait.store import Store
from attengait.training.checkpoint import RunRecord, write_record
from attengait.training.config import TrainingConfig


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Five subjects, 001 to 005, of two sequences each."""
    made: Store = make_store(tmp_path_factory.mktemp("stores") / "s.zarr")
    return made


def config(**changes: object) -> TrainingConfig:
    settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 16, "size": "tiny", "device": "cpu"}
    return TrainingConfig(**{**settings, **changes})


@pytest.mark.parametrize(
    ("train", "exclude", "trained", "unseen"),
    [
        ((), (), ["001", "002", "003", "004", "005"], None),
        (("001-003",), (), ["001", "002", "003"], ["004", "005"]),
        (("001-004",), ("2",), ["001", "003", "004"], ["005"]),
        (("001-004",), ("002-003",), ["001", "004"], ["005"]),
        (("001-005/2",), (), ["001", "003", "005"], ["002", "004"]),
        (("1,2",), (), ["001", "002"], ["003", "004", "005"]),
    ],
)
def test_ranges_say_who_is_trained_on_and_the_rest_is_unseen(
    store: Store,
    tmp_path: Path,
    train: tuple[str, ...],
    exclude: tuple[str, ...],
    trained: list[str],
    unseen: list[str] | None,
) -> None:
    settings = config(train_subjects=train, exclude_subjects=exclude)
    plan = batch_plan(store, settings)
    assert plan.subjects == trained
    write_record(tmp_path, RunRecord(config=settings, subjects=trained, store={}))
    if unseen is None:
        with pytest.raises(AttenGaitError, match="--subjects"):
            unseen_subjects(tmp_path, store)
    else:
        assert unseen_subjects(tmp_path, store) == unseen


def test_training_subjects_stay_known_where_a_range_has_nobody_in_this_store(store: Store, tmp_path: Path) -> None:
    settings = config(train_subjects=("001-003,200",), exclude_subjects=("300",))
    write_record(tmp_path, RunRecord(config=settings, subjects=["001", "002", "003", "200"], store={}))
    assert unseen_subjects(tmp_path, store) == ["004", "005"]


def test_an_excluded_subject_that_is_nobody_is_refused(store: Store) -> None:
    with pytest.raises(ParameterError, match="'009'"):
        batch_plan(store, config(exclude_subjects=("009",)))


def test_a_foreign_folder_is_refused_and_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "another program"}')
    with pytest.raises(AttenGaitError, match="no folder of a training run"):
        train_run(store.path, tmp_path, config())
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert "another program" in (tmp_path / "config.json").read_text()


def test_a_run_that_another_process_trains_in_is_refused(store: Store, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_record(run, RunRecord(config=config(), subjects=[], store={}))
    with (run / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(AttenGaitError, match="by another process"):
            train_run(store.path, run, config())
