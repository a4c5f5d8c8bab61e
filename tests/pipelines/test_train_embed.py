"""Whom a run trains on, whom it has not seen, and which folders it refuses."""

import dataclasses
import fcntl
import hashlib
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import rewrite_as_0_1_0
from small_stores import make_store, zarr_frames

from attengait import load_model
from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.embed import embed
from attengait.pipelines.runs import unseen_subjects
from attengait.pipelines.stream import ClipStream
from attengait.pipelines.train import batch_plan, open_stores, train_run
from attengait.store import Store, open_store
from attengait.store.joined import store_name
from attengait.store.location import Location
from attengait.store.sequences import SequenceRecord, columns_of
from attengait.system.progress import Progress
from attengait.training.checkpoint import RunRecord, read_record, write_record
from attengait.training.config import TrainingConfig, make_config, settings_of


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Five subjects, 001 to 005, of two sequences each."""
    made: Store = make_store(tmp_path_factory.mktemp("stores") / "s.zarr", frame_shape=(64, 64, 3))
    return made


def config(**changes: object) -> TrainingConfig:
    settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 16, "size": "tiny", "device": "cpu"}
    return make_config({**settings, **changes})


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


def test_a_runs_store_is_known_by_its_sequences_lengths_and_checksums(store: Store, tmp_path: Path) -> None:
    made = store_64(tmp_path / "s.zarr", checksums_are_right=False)
    train_run(made.path, tmp_path / "run", config(stop_after_steps=1, check_frames=False))
    recorded = read_record(tmp_path / "run").store
    sequences = open_store(tmp_path / "s.zarr").sequences
    lines = [f"{sequences.name(i)} {sequences.length[i]} {sequences.crc32c[i]}\n" for i in range(len(sequences))]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert recorded == {"sequences": 4, "frames": 76, "sha256": digest}
    assert digest == "c4055313e9f01e83513f2a3d8c85d225b6bf57bb20dd671363a23d7f5afb1c0b"


def store_64(path: Path, **changes: Any) -> Store:
    """Two subjects of two sequences, as a model takes them."""
    made: Store = make_store(path, **({"lengths": (18, 20) * 2, "frame_shape": (64, 64, 3)} | changes))
    return made


@pytest.fixture(scope="module")
def two_stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """casia-b.zarr with subjects 001 to 004, own.zarr with 001 and 002."""
    folder = tmp_path_factory.mktemp("two")
    attributes = {"modality": "flow", "encoding": "colour"}
    store_64(folder / "casia-b.zarr", lengths=(18,) * 8, attributes=attributes)
    store_64(folder / "own.zarr", attributes=attributes, seed=1)
    return [folder / "casia-b.zarr", folder / "own.zarr"]


@pytest.fixture(scope="module")
def joint_run(two_stores: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on some people of both stores."""
    run = tmp_path_factory.mktemp("joint") / "run"
    subjects = ("casia-b:002-003", "own:1")
    train_run(two_stores, run, config(train_subjects=subjects, exclude_subjects=("casia-b:4",), stop_after_steps=1))
    return run


def test_a_run_on_several_stores_notes_them_by_name_and_calls_subjects_after_them(
    two_stores: list[Path], joint_run: Path
) -> None:
    record = read_record(joint_run)
    assert record.subjects == ["casia-b:002", "casia-b:003", "own:001"]
    assert [one["name"] for one in record.store["stores"]] == ["casia-b", "own"]
    assert [one["sequences"] for one in record.store["stores"]] == [8, 4]
    assert (record.store["modality"], record.store["encoding"]) == ("flow", "colour")


def test_each_store_of_a_run_is_evaluated_by_itself(two_stores: list[Path], joint_run: Path) -> None:
    assert unseen_subjects(joint_run, open_store(two_stores[0])) == ["001"]
    assert unseen_subjects(joint_run, open_store(two_stores[1])) == ["002"]
    embedded = embed(joint_run, two_stores[1], device="cpu")
    assert set(embedded.subjects.tolist()) == {"002"}
    assert set(embed(joint_run, two_stores[0], subjects=["3-4"], device="cpu").subjects.tolist()) == {"003", "004"}


def test_a_store_of_a_run_is_known_under_another_name_and_another_of_its_name_as_that_one(
    two_stores: list[Path], joint_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "casia-b.zarr").symlink_to(two_stores[1])  # resolved: it stays own.zarr
    assert unseen_subjects(joint_run, open_store(tmp_path / "casia-b.zarr")) == ["002"]
    shutil.copytree(two_stores[1], tmp_path / "renamed.zarr")
    assert unseen_subjects(joint_run, open_store(tmp_path / "renamed.zarr")) == ["002"]
    again = store_64(tmp_path / "own.zarr", lengths=(19, 19) * 3)
    assert unseen_subjects(joint_run, again) == ["002", "003"]


def test_whom_a_run_on_several_stores_saw_of_another_store_cannot_be_said(joint_run: Path, tmp_path: Path) -> None:
    other = store_64(tmp_path / "other.zarr", lengths=(19, 19) * 3)
    with pytest.raises(
        AttenGaitError, match=r"trained on the stores casia-b, own, and .* not one of them: .* --subjects$"
    ):
        unseen_subjects(joint_run, other)
    assert len(embed(joint_run, other.path, subjects=["2"], device="cpu").features) == 2


def test_a_run_on_several_stores_continues_with_these_in_any_order_and_with_no_others(
    two_stores: list[Path], joint_run: Path, tmp_path: Path
) -> None:
    settings = make_config(settings_of(read_record(joint_run).config) | {"stop_after_steps": 2})
    shutil.copytree(joint_run, tmp_path / "run")
    assert train_run(two_stores[::-1], tmp_path / "run", settings, resume=True).steps == 2
    with pytest.raises(ParameterError, match="subjects is 'casia-b:4', but must be among"):
        train_run(two_stores[0], tmp_path / "run", settings, resume=True)
    third = store_64(tmp_path / "third.zarr", attributes={"modality": "flow", "encoding": "colour"})
    with pytest.raises(AttenGaitError, match="was trained on another store"):
        train_run([*two_stores, third.path], tmp_path / "run", settings, resume=True)


def test_the_batches_of_several_stores_hold_frames_of_the_subjects_they_name(two_stores: list[Path]) -> None:
    joined = open_stores(two_stores)
    plan = batch_plan(joined, config(subjects_per_batch=6, frame_order="shuffled"))
    frames = {store_name(Location.parse(path)): zarr_frames(open_store(path)) for path in two_stores}
    known = {(name, frame.tobytes()) for name, of_store in frames.items() for frame in of_store}
    assert len({content for _, content in known}) == len(known) - 1  # the zeros that both have
    with joined.reader() as reader, ClipStream(reader, plan, num_steps=3) as stream:
        for batch in stream:
            for clip, label in zip(batch.clips.numpy(), batch.labels.tolist(), strict=True):
                name = plan.subjects[label].partition(":")[0]
                assert all((name, frame.tobytes()) in known for frame in clip)


def test_a_run_with_all_that_sampling_offers_resumes_within_an_epoch_to_the_same_weights(
    two_stores: list[Path], tmp_path: Path
) -> None:
    rules = {"frame_order": "shuffled", "balance": "walks", "clip_frames": 20, "repeat_short": True}
    settings = config(**rules, stop_after_steps=5)  # an epoch has three steps
    train_run(two_stores, tmp_path / "whole", settings)
    train_run(two_stores, tmp_path / "parts", make_config(settings_of(settings) | {"stop_after_steps": 4}))
    train_run(two_stores, tmp_path / "parts", settings, resume=True)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_a_record_of_thousands_of_subjects_is_compared_at_once(tmp_path: Path) -> None:
    names = [f"{number:05d}" for number in range(20_000)]
    write_record(tmp_path, RunRecord(config=config(), subjects=names, store={}))
    columns = columns_of([SequenceRecord(subject="7", walk="a", view="0", start=0, length=1, crc32c=0)] * 2)
    store = types.SimpleNamespace(sequences=dataclasses.replace(columns, subject=np.array(["7", "x"], "T")))
    assert unseen_subjects(tmp_path, store) == ["x"]  # type: ignore[arg-type]


def test_a_run_is_not_made_inside_a_store(store: Store) -> None:
    assert store.path is not None
    for run in (store.path / "x", store.path / "frames" / "x"):
        with pytest.raises(ParameterError, match=r"^out is .*, but must be outside .*s\.zarr.* the folder of a store$"):
            train_run(store, run, config())
        assert not run.exists()


def test_rules_of_the_settings_reach_the_plan_and_who_is_dropped_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = store_64(tmp_path / "s.zarr", lengths=(18, 18, 18, 18, 12, 18))
    plan = batch_plan(made, config(train_walks=("nm-01",), frame_order="subset"))
    assert (plan.subjects, plan.dropped_subjects) == (["001", "002"], ["003"])
    assert plan.batch(0).frames is not None
    settings = config(train_walks=("nm-01",), stop_after_steps=1)
    train_run(made.path, tmp_path / "run", settings)
    sentence = "1 subjects have no sequence of at least 16 frames and of walks nm-01 and are left out: 003"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [sentence]
    assert read_record(tmp_path / "run").config.data.rules.train_walks == ("nm-01",)
    with pytest.raises(ParameterError, match=r"train_walks: \('nm-01',\), now \(\)"):
        train_run(made.path, tmp_path / "run", make_config(settings_of(settings) | {"train_walks": ()}), resume=True)


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
    assert embed(runs[kind], stores[kind], device="cpu").features.shape[0] == 2


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
        embed(runs[trained], stores[used], device="cpu")


def test_weights_alone_know_their_channels(stores: dict[str, Path], runs: dict[str, Path]) -> None:
    weights = runs["uv"] / "model.safetensors"
    assert len(embed(weights, stores["uv"], device="cpu").features) == 8
    with pytest.raises(AttenGaitError, match=r"takes frames of 2 channels, but .* has 3"):
        embed(weights, stores["colour"], device="cpu")


def test_another_scale_is_another_kind(stores: dict[str, Path], runs: dict[str, Path], tmp_path: Path) -> None:
    attributes = KINDS["uv"][1] | {"encoding_steps_per_px": 4}
    coarse = make_store(tmp_path / "coarse.zarr", lengths=(18,) * 8, frame_shape=(64, 64, 2), attributes=attributes)
    with pytest.raises(AttenGaitError, match=r"encoding steps per px 8, but .* encoding steps per px 4"):
        embed(runs["uv"], coarse.path, device="cpu")


def test_a_run_whose_record_says_less_of_its_store_continues(stores: dict[str, Path], tmp_path: Path) -> None:
    settings = config(train_subjects=("001-003",), stop_after_steps=1)
    train_run(stores["colour"], tmp_path / "run", settings)
    record = read_record(tmp_path / "run")
    rewrite_as_0_1_0(tmp_path / "run" / "checkpoint.pt")
    older = {key: record.store[key] for key in ("sequences", "frames", "sha256")}
    write_record(tmp_path / "run", RunRecord(config=record.config, subjects=record.subjects, store=older))
    assert train_run(stores["colour"], tmp_path / "run", settings, resume=True).steps == 1
    write_record(tmp_path / "run", RunRecord(config=record.config, subjects=record.subjects, store={"frames": 1}))
    with pytest.raises(AttenGaitError, match="was trained on another store"):
        train_run(stores["colour"], tmp_path / "run", settings, resume=True)


class Losses(Progress):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.of_steps: dict[int, float] = {}

    def update(self, task: str, done: int, total: int, *, unit: str, detail: object = None) -> None:
        if task == "Training":
            self.of_steps[done] = detail.losses["total"]  # type: ignore[attr-defined]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_a_run_goes_as_on_the_cpu_wherever_frames_are_kept_also_resumed(
    store: Store, tmp_path: Path, precision: str
) -> None:
    changes = {"learning_rate": 1e-4, "warmup_epochs": 0, "attention_dropout": 0.0, "stop_after_steps": 4}
    settings = config(precision="fp32", **changes)
    on_cpu = Losses()
    train_run(store.path, tmp_path / "cpu", settings, progress=on_cpu)
    runs = {}
    for cache in ("none", "host", "gpu"):
        heard = runs[cache] = Losses()
        there = make_config(settings_of(settings) | {"device": "cuda", "precision": precision, "cache": cache})
        train_run(store.path, tmp_path / cache, there, progress=heard)
    first = make_config(settings_of(there) | {"stop_after_steps": 2})
    resumed = runs["resumed"] = Losses()
    train_run(store.path, tmp_path / "resumed", first, progress=resumed)
    train_run(store.path, tmp_path / "resumed", there, resume=True, progress=resumed)
    # Roundings add up: the first steps of Adam have the size of the learning rate, whatever the gradient.
    tolerance = 1e-3 if precision == "fp32" else 5e-2
    for name, heard in runs.items():
        assert heard.of_steps == pytest.approx(on_cpu.of_steps, rel=tolerance), name
    features = [embed(tmp_path / "gpu", store, subjects=["1-5"], device=device).features for device in ("cuda", "cpu")]
    assert np.abs(features[0] - features[1]).max() < 5e-2 * np.abs(features[1]).max()


@pytest.mark.gpu
def test_on_a_gpu_auto_keeps_the_frames_there_and_says_so(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="attengait"):
        train_run(store.path, tmp_path / "run", config(device="cuda", stop_after_steps=1))
    assert "are kept on the GPU: they fit into half of its free" in caplog.text
