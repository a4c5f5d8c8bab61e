"""Validation on held-out training subjects: what it says, and that it changes nothing of the training."""

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from small_stores import make_store

import attengait
from attengait.errors import AttenGaitError, ParameterError
from attengait.model.config import ModelConfig
from attengait.model.net import AttenGait
from attengait.pipelines.train import train_run
from attengait.pipelines.validate import Validator, open_validator
from attengait.system.stopping import StopRequest
from attengait.training.best import Best, Validation
from attengait.training.checkpoint import read_record
from attengait.training.config import TrainingConfig, make_config, settings_of
from attengait.training.environment import read_environment
from attengait.training.kept import kept_checkpoints
from attengait.training.run_files import read_metrics

Heard = import_module("heard").Heard

SETTINGS: dict[str, Any] = {
    "size": "tiny",
    "blocks_per_stage": 1,
    "subjects_per_batch": 2,
    "clips_per_subject": 2,
    "clip_frames": 16,
    "epochs": 3,
    "epochs_without_cross_entropy": 1,
    "warmup_epochs": 1,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "device": "cpu",
    "mixup_probability": 0.5,
    "train_subjects": ["001-006"],
    "validation_subjects": ["005-006"],
    "loggers": (),
}
"""Four subjects are trained on, two at a time: eight steps."""


def config(**changes: Any) -> TrainingConfig:
    return make_config({**SETTINGS, **changes})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven subjects, 001 to 007, of two walks each, at one view; one sequence is shorter than a clip."""
    path = tmp_path_factory.mktemp("stores") / "s.zarr"
    made = make_store(path, lengths=(18,) * 11 + (12,) + (18,) * 2, frame_shape=(64, 64, 3))
    return Path(made.path)


def state(run: Path) -> dict[str, torch.Tensor]:
    return dict(attengait.load_model(run).state_dict())


def same(one: Path, other: Path) -> bool:
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def validations(run: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["validation/rank1"]) for line in read_metrics(run) if "validation/rank1" in line]


def losses(run: Path) -> list[dict[str, Any]]:
    lines = [line for line in read_metrics(run) if "train/total" in line]
    return [{name: value for name, value in line.items() if name.startswith("train/")} for line in lines]


def weights_of(run: Path) -> bytes:
    """Without the digest of the record, which names the held-out subjects."""
    return b"".join(tensor.numpy().tobytes() for tensor in state(run).values())


@pytest.mark.parametrize("cache", ["none", "host"])
def test_validation_changes_no_bit_of_the_training(store: Path, tmp_path: Path, cache: str) -> None:
    every_line = {"cache": cache, "log_every_steps": 1}
    train_run(store, tmp_path / "without", config(**every_line))
    train_run(store, tmp_path / "with", config(validate_every_steps=1, **every_line))
    only = {"train_subjects": ["001-004"], "validation_subjects": []}
    train_run(store, tmp_path / "only", config(**only, **every_line))
    assert [step for step, _ in validations(tmp_path / "with")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert losses(tmp_path / "with") == losses(tmp_path / "without") == losses(tmp_path / "only")
    assert same(tmp_path / "with", tmp_path / "without")
    assert weights_of(tmp_path / "with") == weights_of(tmp_path / "only")


def test_the_figure_is_that_of_an_evaluation_of_the_held_out_subjects(tmp_path: Path) -> None:
    path = walkers_of_six(tmp_path / "six.zarr", dataset="casia-b")
    train_run(path, tmp_path / "run", config(validate_every_steps=8))
    evaluated = attengait.evaluate(tmp_path / "run", path, subjects="5-6", device="cpu", precision="fp32")
    assert validations(tmp_path / "run") == [(8, evaluated.mean)]
    assert evaluated.num_subjects == 2


def walkers_of_six(path: Path, **attributes: str) -> Path:
    """Six subjects with nm-01 and nm-05 at two views."""
    names = [(f"{s:03d}", walk, view) for s in range(1, 7) for walk in ("nm-01", "nm-05") for view in ("000", "090")]
    made = make_store(path, lengths=(18,) * len(names), frame_shape=(64, 64, 3), attributes=attributes)
    columns = zarr.open_group(made.path / "sequences", mode="r+")
    for column, values in zip(("subject", "walk", "view"), zip(*names, strict=True), strict=True):
        columns[column][:] = np.array(values, np.dtypes.StringDType())
    return Path(made.path)


def test_a_data_set_without_a_protocol_is_validated_across_walks(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="attengait"):
        train_run(store, tmp_path / "run", config(validate_every_steps=8))
    assert "validation: 2 subjects held out, every 8 steps, protocol cross-walk" in caplog.text
    ((step, rank1),) = validations(tmp_path / "run")
    embeddings = attengait.embed(tmp_path / "run", store, subjects="5-6", device="cpu")
    features = embeddings.features.reshape(4, -1)
    nearest = [min(set(range(4)) - {i}, key=lambda j, i=i: ((features[i] - features[j]) ** 2).sum()) for i in range(4)]  # type: ignore[misc]
    assert (step, rank1) == (
        8,
        sum(embeddings.subjects[i] == embeddings.subjects[j] for i, j in enumerate(nearest)) / 4,
    )


def test_who_cannot_be_recognised_is_not_counted_and_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # 006 has one walk: nobody finds it, whatever its embedding is.
    made = make_store(tmp_path / "s.zarr", lengths=(18,) * 11, frame_shape=(64, 64, 3))
    with caplog.at_level("INFO", logger="attengait"):
        train_run(made.path, tmp_path / "run", config(validate_every_steps=8))
    assert "validation: 1 of the 2 held-out subjects cannot be recognised by the protocol cross-walk" in caplog.text
    assert "to be found: 006" in caplog.text
    assert "(cross-walk, 1 subjects, 2 probes)" in caplog.text


def test_held_out_subjects_are_neither_trained_on_nor_tested_and_the_record_names_them(
    store: Path, tmp_path: Path
) -> None:
    train_run(store, tmp_path / "run", config(stop_after_steps=1, validation_subjects=["34%"]))
    record = read_record(tmp_path / "run")
    assert record.subjects == ["001", "003", "004", "006"]
    assert record.config.data.validation_subjects == ("002", "005")
    assert set(attengait.embed(tmp_path / "run", store, device="cpu").subjects.tolist()) == {"007"}
    everybody = config(stop_after_steps=1, train_subjects=[], validation_subjects=["6-7"])
    train_run(store, tmp_path / "all", everybody)
    with pytest.raises(AttenGaitError, match=r"all 7 subjects of .* belong to the training set"):
        attengait.embed(tmp_path / "all", store, device="cpu")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"validation_subjects": ["007", "006"]}, "which 007 is not"),
        ({"validation_subjects": ["001-005"]}, "subjects_per_batch is 2, but must be at most the 1 subjects"),
        ({"validation_subjects": [], "validate_every_steps": 1}, "validation_subjects is ''"),
    ],
)
def test_what_does_not_work_is_refused_before_there_is_a_folder(
    store: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        train_run(store, tmp_path / "run", config(**changes))
    assert sentence in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dataset", ["casia-b", "retrieval"])
def test_subjects_of_one_walk_each_cannot_be_validated(tmp_path: Path, dataset: str) -> None:
    attributes = {"dataset": dataset}
    made = make_store(
        tmp_path / "s.zarr",
        lengths=(18,) * 6,
        sequences_per_subject=1,
        frame_shape=(64, 64, 3),
        attributes=attributes,
    )
    with pytest.raises(ParameterError, match="must be subjects of whom one has two walks"):
        train_run(made.path, tmp_path / "run", config(validate_every_steps=1))
    assert not (tmp_path / "run").exists()


def test_unlabelled_probes_are_refused_before_a_run_and_not_at_its_first_validation(tmp_path: Path) -> None:
    subjects = ["001", "002", "probe", "distractor"]
    made = make_store(tmp_path / "s.zarr", lengths=(18,) * 8, subjects=subjects, frame_shape=(64, 64, 3))
    changes = {"train_subjects": subjects, "validation_subjects": subjects[2:], "validate_every_steps": 1}
    with pytest.raises(ParameterError, match="these have one each, or no label"):
        train_run(made.path, tmp_path / "run", config(**changes))
    assert not (tmp_path / "run").exists()


def scripted(monkeypatch: pytest.MonkeyPatch, *figures: float) -> None:
    """Let validations find these figures, one after the other, in this and in continued runs."""
    left = dict(enumerate(figures, 1))

    def validate(self: Validator, network: attengait.AttenGait) -> Validation:
        return Validation(protocol="scripted", rank1=left.pop(min(left)), num_subjects=2, num_probes=4)

    monkeypatch.setattr(Validator, "__call__", validate)


def test_the_best_weights_are_a_run_folder_of_their_own(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, 0.5, 0.75, 0.75, 0.25)
    train_run(store, tmp_path / "run", config(validate_every_steps=2, checkpoint_every_steps=4))
    assert [step for step, _ in validations(tmp_path / "run")] == [2, 4, 6, 8]
    train_run(store, tmp_path / "four", config(stop_after_steps=4))
    assert same(tmp_path / "run" / "best", tmp_path / "four")  # an equal one is not better
    assert not same(tmp_path / "run", tmp_path / "four")
    found = attengait.embed(tmp_path / "run" / "best", store, device="cpu")
    assert set(found.subjects.tolist()) == {"007"}


@pytest.mark.parametrize("stops", [(), (3,), (4,), (2, 5)])
def test_early_stopping_counts_validations_without_a_better_one_also_when_resumed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    scripted(monkeypatch, 0.5, 0.75, 0.7, 0.75, 0.9, 0.9)
    settings = config(validate_every_steps=1, early_stopping_validations=2)
    run = tmp_path / "run"
    is_begun = False
    for stop in (*stops, 0):
        some = make_config(settings_of(settings) | {"stop_after_steps": stop})
        result = train_run(store, run, some, resume=is_begun)
        is_begun = True
    assert (result.steps, result.num_steps, result.is_stopped_early) == (4, 8, True)
    assert validations(run) == [(1, 0.5), (2, 0.75), (3, 0.7), (4, 0.75)]
    assert read_environment(run)["starts"][-1]["ended"]["how"] in ("stopped early", "stopped: stop_after_steps")
    # It stays stopped, and nothing is loaded, until there is more patience.
    again = Heard()
    assert train_run(store, run, settings, resume=True, progress=again).is_stopped_early
    assert again.tasks == []
    more = make_config(settings_of(settings) | {"early_stopping_validations": 3, "stop_after_steps": 5})
    result = train_run(store, run, more, resume=True)
    assert (result.steps, result.is_stopped_early) == (5, False)


def test_a_validation_that_is_asked_to_stop_is_made_up_for(store: Path, tmp_path: Path) -> None:
    stop = StopRequest()

    class Asks(Heard):  # type: ignore[misc, valid-type]
        def update(self, task: str, done: int, total: int, *, unit: str, detail: object = None) -> None:
            super().update(task, done, total, unit=unit, detail=detail)
            if task == "Training" and done == 4:
                stop.signal = 15  # the validation of step 4 begins

    settings = config(validate_every_steps=4)
    result = train_run(store, tmp_path / "parts", settings, stop=stop, progress=Asks())
    assert (result.steps, result.interrupted_by) == (4, 15)
    assert validations(tmp_path / "parts") == []
    assert read_environment(tmp_path / "parts")["starts"][0]["ended"]["how"] == "stopped: SIGTERM"
    train_run(store, tmp_path / "parts", settings, resume=True)
    train_run(store, tmp_path / "whole", settings)
    assert validations(tmp_path / "parts") == validations(tmp_path / "whole")
    assert same(tmp_path / "parts", tmp_path / "whole")
    assert same(tmp_path / "parts" / "best", tmp_path / "whole" / "best")


def test_the_last_validation_is_made_up_for_without_loading_a_clip(store: Path, tmp_path: Path) -> None:
    stop = StopRequest()

    class Asks(Heard):  # type: ignore[misc, valid-type]
        def update(self, task: str, done: int, total: int, *, unit: str, detail: object = None) -> None:
            super().update(task, done, total, unit=unit, detail=detail)
            if task == "Training" and done == total:
                stop.signal = 15

    settings, run = config(validate_every_steps=8, cache="host"), tmp_path / "run"
    result = train_run(store, run, settings, stop=stop, progress=Asks())
    assert (result.steps, result.interrupted_by, validations(run)) == (8, 15, [])
    heard = Heard()
    assert train_run(store, run, settings, resume=True, progress=heard).interrupted_by is None
    assert set(heard.tasks) == {"Validating"}
    train_run(store, tmp_path / "whole", settings)
    assert validations(run) == validations(tmp_path / "whole")
    assert same(run / "best", tmp_path / "whole" / "best")
    train_run(store, run, settings, resume=True)
    assert len(validations(run)) == 1


def test_the_best_weights_are_found_after_the_run_was_made_longer(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, 0.5, 0.75)
    run = tmp_path / "run"
    train_run(store, run, config(validate_every_steps=8))
    train_run(store, run, config(validate_every_steps=10, epochs=4), resume=True)
    assert validations(run) == [(8, 0.5), (10, 0.75)]
    assert weights_of(run / "best") == weights_of(run)


def test_each_kept_checkpoint_is_a_run_folder_to_continue_from(store: Path, tmp_path: Path) -> None:
    settings = config(checkpoint_every_steps=2, keep_checkpoints=3)
    train_run(store, tmp_path / "run", settings)
    kept = kept_checkpoints(tmp_path / "run")
    assert [folder.name for folder in kept] == ["00000004", "00000006", "00000008"]
    assert same(kept[-1], tmp_path / "run")
    train_run(store, tmp_path / "four", config(stop_after_steps=4))
    assert same(kept[0], tmp_path / "four")
    shutil.copytree(kept[0], tmp_path / "again")
    assert train_run(store, tmp_path / "again", settings, resume=True).steps == 8
    assert same(tmp_path / "again", tmp_path / "run")
    # A run that goes back forgets what came later, and one that is to keep less removes more.
    shutil.copy(kept[0] / "checkpoint.pt", tmp_path / "run" / "checkpoint.pt")
    fewer = make_config(settings_of(settings) | {"keep_checkpoints": 2, "stop_after_steps": 6})
    train_run(store, tmp_path / "run", fewer, resume=True)
    assert [folder.name for folder in kept_checkpoints(tmp_path / "run")] == ["00000004", "00000006"]


def test_by_default_one_checkpoint_is_kept(store: Path, tmp_path: Path) -> None:
    train_run(store, tmp_path / "run", config(checkpoint_every_steps=2))
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("damage", [{"rank1": float("nan")}, {"rank1": 1}, {"step": -1}, {"more": 1}, {"since": "0"}])
def test_damaged_figures_of_a_checkpoint_are_refused(damage: dict[str, Any]) -> None:
    best = Best()
    assert best.hear(0.5, 3)
    good = best.state_dict()
    Best().load_state_dict(good)
    for bad in (good | damage, {}, None):
        with pytest.raises(ValueError, match=r"validation|rank1|it has no|unknown"):
            Best().load_state_dict(bad)


def test_with_averaged_weights_those_are_validated_and_kept(tmp_path: Path) -> None:
    path = walkers_of_six(tmp_path / "six.zarr", dataset="casia-b")
    train_run(path, tmp_path / "run", config(validate_every_steps=8, ema_decay=0.9))
    assert weights_of(tmp_path / "run" / "best") == weights_of(tmp_path / "run")
    evaluated = attengait.evaluate(tmp_path / "run", path, subjects="5-6", device="cpu", precision="fp32")
    assert validations(tmp_path / "run") == [(8, evaluated.mean)]
    train_run(path, tmp_path / "plain", config(validate_every_steps=8))
    assert weights_of(tmp_path / "plain") != weights_of(tmp_path / "run")


@pytest.mark.parametrize(
    ("dataset", "views", "protocol"),
    [
        ("casia-b", ("000", "090"), "casia-b"),
        ("casia-b", ("090", "090"), "cross-walk"),  # no other view to compare with
        ("oumvlp", ("000", "090"), "cross-walk"),  # other names of walks
        ("gait3d", ("000", "090"), "cross-walk"),  # its probes are those of a partition
        ("retrieval", ("090", "090"), "retrieval"),
    ],
)
def test_the_protocol_is_that_of_the_data_set_where_it_measures_something(
    tmp_path: Path, dataset: str, views: tuple[str, str], protocol: str
) -> None:
    path = walkers_of_six(tmp_path / "six.zarr", dataset=dataset)
    columns = zarr.open_group(path / "sequences", mode="r+")
    columns["view"][:] = np.array(views * 12, np.dtypes.StringDType())
    validator = open_validator(
        attengait.open_store(path),
        config(validate_every_steps=1, validation_subjects=["005", "006"]),
        [0, 1, 2],
        device=torch.device("cpu"),
        precision="fp32",
        stop=StopRequest(),
    )
    assert validator is not None
    found = validator(AttenGait(ModelConfig.of_size("tiny")))
    assert found is not None
    assert found.protocol == protocol
    assert 0 <= found.rank1 <= 1
