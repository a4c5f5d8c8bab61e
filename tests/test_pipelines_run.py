"""Whom a run trains on, whom it has not seen, and which folders it refuses."""

import fcntl
from pathlib import Path

import pytest
from small_stores import make_store

from attengait import load_model
from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.run import batch_plan, embed_run, train_run, unseen_subjects
from attengait.store import Store
from attengait.training.checkpoint import RunRecord, read_record, write_record
from attengait.training.config import TrainingConfig


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Five subjects, 001 to 005, of two sequences each."""
    made: Store = make_store(tmp_path_factory.mktemp("stores") / "s.zarr", frame_shape=(64, 64, 3))
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


KINDS: dict[str, tuple[int, dict[str, object]]] = {
    "colour": (3, {"modality": "flow", "encoding": "colour"}),
    "uv": (2, {"modality": "flow", "encoding": "uv", "encoding_steps_per_px": 8}),
    "uvm": (3, {"modality": "flow", "encoding": "uvm", "encoding_steps_per_px": 8}),
    "silhouette": (1, {"modality": "silhouette", "encoding": "gray"}),
    "unsaid": (3, {}),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One store of each kind, of four subjects."""
    folder = tmp_path_factory.mktemp("kinds")
    return {
        kind: make_store(
            folder / f"{kind}.zarr", lengths=(18,) * 8, frame_shape=(64, 64, channels), attributes=attributes
        ).path
        for kind, (channels, attributes) in KINDS.items()
    }


@pytest.fixture(scope="module")
def runs(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run on each store, of one step."""
    folder = tmp_path_factory.mktemp("runs")
    for kind, store in stores.items():
        train_run(store, folder / kind, config(train_subjects=("001-003",), stop_after_steps=1))
    return {kind: folder / kind for kind in stores}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_takes_its_channels_from_the_store_and_the_run_notes_what_it_saw(
    stores: dict[str, Path], runs: dict[str, Path], kind: str
) -> None:
    channels, attributes = KINDS[kind]
    assert load_model(runs[kind]).config.channels == channels
    recorded = read_record(runs[kind]).store
    assert {key: recorded.get(key) for key in attributes} == attributes
    assert embed_run(runs[kind], stores[kind], device="cpu").features.shape[0] == 2


@pytest.mark.parametrize(
    ("trained", "used", "sentence"),
    [
        (
            "colour",
            "uvm",
            "was trained on modality flow, encoding colour, but .*uvm.zarr holds modality flow, encoding uvm",
        ),
        ("uvm", "colour", "was trained on .*encoding uvm.* but .* encoding colour"),
        ("uv", "silhouette", "was trained on .*encoding uv.* but .*silhouette"),
        ("silhouette", "colour", "was trained on modality silhouette"),
        ("unsaid", "uv", "takes frames of 3 channels, but .*uv.zarr has 2"),
        ("silhouette", "unsaid", "takes frames of 1 channels, but .*unsaid.zarr has 3"),
    ],
)
def test_pictures_of_another_kind_are_refused(
    stores: dict[str, Path], runs: dict[str, Path], trained: str, used: str, sentence: str
) -> None:
    with pytest.raises(AttenGaitError, match=sentence):
        embed_run(runs[trained], stores[used], device="cpu")


def test_weights_alone_know_their_channels(stores: dict[str, Path], runs: dict[str, Path]) -> None:
    weights = runs["uv"] / "model.safetensors"
    assert len(embed_run(weights, stores["uv"], device="cpu").features) == 8
    with pytest.raises(AttenGaitError, match=r"takes frames of 2 channels, but .* has 3"):
        embed_run(weights, stores["colour"], device="cpu")


def test_another_scale_is_another_kind(stores: dict[str, Path], runs: dict[str, Path], tmp_path: Path) -> None:
    attributes = KINDS["uv"][1] | {"encoding_steps_per_px": 4}
    coarse = make_store(tmp_path / "coarse.zarr", lengths=(18,) * 8, frame_shape=(64, 64, 2), attributes=attributes)
    with pytest.raises(AttenGaitError, match=r"encoding steps per px 8, but .* encoding steps per px 4"):
        embed_run(runs["uv"], coarse.path, device="cpu")


def test_a_run_whose_record_says_less_of_its_store_continues(stores: dict[str, Path], tmp_path: Path) -> None:
    settings = config(train_subjects=("001-003",), stop_after_steps=1)
    train_run(stores["colour"], tmp_path / "run", settings)
    record = read_record(tmp_path / "run")
    older = {key: record.store[key] for key in ("sequences", "frames", "sha256")}
    write_record(tmp_path / "run", RunRecord(config=record.config, subjects=record.subjects, store=older))
    assert train_run(stores["colour"], tmp_path / "run", settings, resume=True).steps == 1
    write_record(tmp_path / "run", RunRecord(config=record.config, subjects=record.subjects, store={"frames": 1}))
    with pytest.raises(AttenGaitError, match="was trained on another store"):
        train_run(stores["colour"], tmp_path / "run", settings, resume=True)
