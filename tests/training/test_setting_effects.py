"""What settings do to a run: each changes what it says, and a run with all of them resumes to the last bit."""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import state_in
from small_stores import make_store

from attengait import load_model
from attengait.errors import AttenGaitError, ParameterError
from attengait.model.loading import save_weights
from attengait.pipelines.train import choose_settings, train_run
from attengait.store import Store
from attengait.training import margins as margins_module
from attengait.training.checkpoint import read_record
from attengait.training.config import make_config

Heard = import_module("heard").Heard

SMALL: dict[str, Any] = {
    "size": "tiny",
    "blocks_per_stage": 1,
    "subjects_per_batch": 2,
    "clips_per_subject": 2,
    "clip_frames": 16,
    "epochs": 2,
    "epochs_without_cross_entropy": 0,
    "warmup_epochs": 0,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "device": "cpu",
    "mixup_probability": 0.0,
    "cutmix_probability": 0.0,
    "loggers": (),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four subjects of two sequences each, as u and v: two steps an epoch."""
    attributes = {"modality": "flow", "encoding": "uv", "encoding_offset": 128, "encoding_steps_per_px": 8}
    path = tmp_path_factory.mktemp("stores") / "s.zarr"
    made: Store = make_store(path, lengths=(20,) * 8, frame_shape=(64, 64, 2), attributes=attributes)
    return made


@dataclasses.dataclass
class Trained:
    run: Path
    losses: list[dict[str, float]]
    rates: list[float]

    @property
    def state(self) -> dict[str, Any]:
        return state_in(self.run / "checkpoint.pt")

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return self.state["model"]  # type: ignore[no-any-return]


Train = Callable[..., Trained]


def trainer_of(store: Store, folder: Path) -> Train:
    def run(name: str = "run", *, resume: bool = False, **changes: Any) -> Trained:
        heard, config = Heard(), make_config({**SMALL, **changes})
        train_run(store.path, folder / name, config, resume=resume, progress=heard)
        steps = [report for report in heard.details if hasattr(report, "losses")]
        return Trained(folder / name, [step.losses for step in steps], [step.learning_rate for step in steps])

    return run


@pytest.fixture
def train(store: Store, tmp_path: Path) -> Train:
    return trainer_of(store, tmp_path)


@pytest.fixture(scope="module")
def usual_weights(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Those of a run with no other settings."""
    return trainer_of(store, tmp_path_factory.mktemp("usual"))().weights


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


ALL = {
    "optimiser": "adamw",
    "weight_decay": 0.01,
    "schedule": "constant",
    "max_gradient_norm": 1.0,
    "accumulate_steps": 2,
    "recompute_frames": 24,
    "ema_decay": 0.9,
    "adaptive_margin": True,
    "label_smoothing": 0.1,
    "classifiers": "joint",
    "embedding_size": 8,
    "flip_probability": 0.5,
    "affine_probability": 0.5,
    "erase_probability": 0.5,
    "mixup_probability": 0.5,
}


@pytest.mark.parametrize("optimiser", ["adamw", "sgd", "amsgrad", "lamb"])
def test_a_run_with_all_these_settings_resumes_to_the_last_bit(
    train: Train, optimiser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if optimiser == "lamb":
        pytest.importorskip("pytorch_optimizer")
    monkeypatch.setattr(margins_module, "IDLE_BATCHES", -1)  # margins grow at every idle batch
    settings = ALL | {"optimiser": optimiser, "weight_decay": 0.01 if optimiser in ("adamw", "lamb") else 0.0}
    whole = train("whole", **settings)
    parts = train("parts", stop_after_steps=1, **settings)
    resumed = train("parts", resume=True, **settings)
    assert parts.losses + resumed.losses == whole.losses
    assert equal(resumed.weights, whole.weights)
    assert (parts.run / "model.safetensors").read_bytes() == (whole.run / "model.safetensors").read_bytes()
    for part in ("average", "margins"):
        assert equal(resumed.state["extra"][part], whole.state["extra"][part])


def test_a_checkpoint_without_the_average_that_a_run_needs_is_refused(train: Train, tmp_path: Path) -> None:
    train(stop_after_steps=1, ema_decay=0.5)
    path = tmp_path / "run" / "checkpoint.pt"
    state = {name: value for name, value in state_in(path).items() if name in ("step", "model", "optimiser", "scaler")}
    torch.save(state, path)
    with pytest.raises(AttenGaitError, match="it has no average"):
        train(resume=True, ema_decay=0.5)


def test_clipping_bounds_the_step_and_the_norm_before_it_is_reported(train: Train) -> None:
    settings = {"optimiser": "sgd", "momentum": 0.0, "learning_rate": 1.0, "schedule": "constant", "l2_penalty": 0.0}
    clipped = {**settings, "max_gradient_norm": 0.01}
    one, two = train("one", stop_after_steps=1, **clipped), train("two", stop_after_steps=2, **clipped)
    moved = torch.cat([(two.weights[name] - one.weights[name]).flatten() for name in one.weights])
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-3)
    assert one.losses[0]["gradient_norm"] == train("free", stop_after_steps=1, **settings).losses[0]["gradient_norm"]
    assert one.losses[0]["gradient_norm"] > 0.05


def test_micro_batches_and_recomputed_activations_train_as_the_whole_batch(train: Train) -> None:
    """Dropout and mixup included, four steps of SGD: Adam would turn last bits of tiny gradients into steps."""
    settings = {"optimiser": "sgd", "learning_rate": 0.01, "mixup_probability": 0.5, "seed": 3}
    whole = train("whole", **settings)
    for name, change in (("parts", {"accumulate_steps": 3}), ("again", {"recompute_frames": 20})):
        other = train(name, **settings, **change)
        assert other.losses[0] == pytest.approx(whole.losses[0], rel=1e-4)
        # What differs in the last bits grows from step to step, where triplets are at the edge of the margin.
        for ours, theirs in zip(other.losses, whole.losses, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-2)
        for key, weight in whole.weights.items():
            torch.testing.assert_close(other.weights[key], weight, rtol=1e-2, atol=1e-3)


def test_the_saved_weights_are_the_average_of_those_after_each_step(train: Train) -> None:
    own = [train(f"{steps}", ema_decay=0.3, stop_after_steps=steps).weights for steps in (1, 2)]
    saved = load_model(train("2", resume=True, ema_decay=0.3, stop_after_steps=2).run).state_dict()
    torch.manual_seed(0)
    name = "embedding_linear.weight"
    # The average begins with the first weights, which a run of rate 0 in its first step shows.
    first = train("first", ema_decay=0.3, stop_after_steps=1, warmup_epochs=1).weights[name]
    expected = first
    for step, weights in enumerate(own, 1):
        keep = min(0.3, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * weights[name]
    torch.testing.assert_close(saved[name], expected, rtol=1e-5, atol=1e-7)
    assert not torch.equal(saved[name], own[-1][name])


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": "amsgrad"},
        {"optimiser": "sgd", "momentum": 0.5},
        {"optimiser": "adamw", "weight_decay": 0.5},
        {"label_smoothing": 0.3},
        {"flip_probability": 1.0},
        {"affine_probability": 1.0},
        {"erase_probability": 1.0},
    ],
)
def test_each_setting_changes_the_weights(
    train: Train, usual_weights: dict[str, torch.Tensor], changes: dict[str, Any]
) -> None:
    assert not equal(train("with", **changes).weights, usual_weights)


def test_a_run_without_other_settings_has_the_same_weights_again(
    train: Train, usual_weights: dict[str, torch.Tensor]
) -> None:
    """Else the test above would see a change where there is none."""
    assert equal(train().weights, usual_weights)


def test_weights_that_meant_something_else_are_said(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    first = train("first", stop_after_steps=1)
    train("same", init=str(first.run), stop_after_steps=1)
    assert "learned something else" not in caplog.text
    train("other", init=str(first.run), stop_after_steps=1, attention_softmax=False, spatial_reduction="mean")
    assert "has attention_softmax=true, this run has false" in caplog.text
    assert "has spatial_reduction=both, this run has mean" in caplog.text


def test_schedules(train: Train) -> None:
    assert train("constant", schedule="constant").rates == [1e-3] * 4
    cosine = train("cosine").rates
    assert cosine[0] == 1e-3
    assert all(a > b for a, b in itertools.pairwise(cosine))


def test_margins_grow_where_nothing_is_left_to_learn(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(margins_module, "IDLE_BATCHES", 0)
    trained = train(adaptive_margin=True, margin=0.0, learning_rate=1e-6)
    values = trained.state["extra"]["margins"]["margins"]
    assert values.shape == (62,)
    assert float(values.max()) >= 0.1
    torch.testing.assert_close(10 * values, (10 * values).round())
    fixed = train("fixed", margin=0.0, learning_rate=1e-6)
    assert trained.losses[0]["triplet"] == fixed.losses[0]["triplet"]
    assert trained.losses[-1]["triplet"] > fixed.losses[-1]["triplet"]


@pytest.mark.parametrize(
    ("classifiers", "shape"), [("separate", (62, 16, 4)), ("shared", (1, 16, 4)), ("joint", (1, 62 * 16, 4))]
)
def test_classifiers_are_trained_whatever_parts_share_them(
    train: Train, classifiers: str, shape: tuple[int, ...]
) -> None:
    trained = train(classifiers=classifiers, stop_after_steps=2)
    before = train("before", classifiers=classifiers, stop_after_steps=1).weights["classifier.weight"]
    weight = trained.weights["classifier.weight"]
    assert tuple(weight.shape) == shape
    assert not torch.equal(weight, before)
    assert load_model(trained.run).config.classifiers == classifiers


def test_the_embedding_has_the_size_that_is_set(train: Train) -> None:
    assert load_model(train(embedding_size=5, stop_after_steps=1).run).config.embedding_size == 5


@contextmanager
def lengths_seen() -> Iterator[list[int]]:
    seen: list[int] = []

    def note(module: torch.nn.Module, inputs: Any) -> None:
        if type(module).__name__ == "AttenGait":
            seen.append(inputs[0].shape[1])

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def test_batches_of_various_lengths(train: Train) -> None:
    with lengths_seen() as seen:
        train(vary_clip_frames=True, clip_frames=20, epochs=6)
        train("fixed", clip_frames=20, epochs=1)
    assert set(seen[:12]) <= {16, 17, 18, 19}
    assert len(set(seen[:12])) > 1
    assert set(seen[12:]) == {20}


def test_images_whose_meaning_is_unknown_are_not_flipped(tmp_path: Path) -> None:
    made = make_store(tmp_path / "s.zarr", lengths=(20,) * 8, frame_shape=(64, 64, 2))
    config = make_config({**SMALL, "flip_probability": 0.5})
    with pytest.raises(
        ParameterError, match=r"flip_probability is 0\.5, but must be 0 for images of the channels 0, 1"
    ):
        train_run(made.path, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_fine_tuning_on_the_same_people_takes_everything(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    first = train("first")
    with caplog.at_level(logging.INFO):
        tuned = train("tuned", init=str(first.run), learning_rate=1e-12)
    for name, weight in first.weights.items():
        torch.testing.assert_close(tuned.weights[name], weight, rtol=0, atol=1e-9)
    total = len(first.weights)
    assert f"begins with the weights of {first.run}: {total} of its {total} tensors are taken" in caplog.text
    assert "drawn anew" not in caplog.text
    # What a run began with is part of its record; its own checkpoint is what it continues from.
    assert read_record(tuned.run).config.run.init == str(first.run)
    assert train("tuned", resume=True, init=str(first.run), learning_rate=1e-12).losses == []


def test_fine_tuning_draws_anew_what_means_something_else(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    first = train("first", train_subjects=("001-003",))
    settings = {"learning_rate": 1e-12, "stop_after_steps": 1}
    for name, changes, prefixes, reason in (
        ("classes", {}, ("classifier.",), r"classifier.weight is [62, 16, 3] there, [62, 16, 4] here"),
        ("others", {"train_subjects": ("002-004",)}, ("classifier.",), "the classes there are other subjects"),
        (
            "size",
            {"train_subjects": ("001-003",), "embedding_size": 8},
            ("classifier.", "embedding_linear.", "embedding_attention."),
            "the embedding has 16 features there, 8 here",
        ),
    ):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            tuned = train(name, init=str(first.run), **settings, **changes).weights
        fresh = train(f"fresh {name}", **settings, **changes).weights
        assert reason in caplog.text
        for key, weight in tuned.items():
            source = fresh if key.startswith(prefixes) else first.weights
            torch.testing.assert_close(weight, source[key], rtol=0, atol=1e-9)


def test_weights_of_a_file_are_taken_and_those_of_another_size_refused(train: Train, tmp_path: Path) -> None:
    first = train("first")
    save_weights(load_model(first.run), tmp_path / "w.safetensors")
    tuned = train("tuned", init=str(tmp_path / "w.safetensors"), learning_rate=1e-12, stop_after_steps=1).weights
    torch.testing.assert_close(tuned["classifier.weight"], first.weights["classifier.weight"], rtol=0, atol=1e-9)
    with pytest.raises(
        AttenGaitError, match=r"w\.safetensors does not fit: the tensor backbone\.convolutions\.0\.weight"
    ):
        train("larger", size="small", init=str(tmp_path / "w.safetensors"))
    with pytest.raises(AttenGaitError, match="no weights at"):
        train("nothing", init=str(tmp_path / "nowhere"))


def test_a_finished_run_is_made_longer_and_goes_on_as_a_run_that_was_always_so_long(
    train: Train, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    short = train("run", epochs=2)
    before = read_record(short.run)
    with caplog.at_level(logging.INFO):
        longer = train("run", resume=True, epochs=3)
    assert "the run is made longer: epochs 2, now 3" in caplog.text
    assert len(longer.losses) == 2
    assert longer.rates == train("whole", epochs=3).rates[4:]
    after = read_record(longer.run)
    assert (after.config.optimiser.epochs, after.subjects, after.store) == (3, before.subjects, before.store)
    assert after.earlier == [{"epochs": 2, "epochs_without_cross_entropy": 0, "sha256": before.sha256}]
    load_model(longer.run)
    assert train("run", resume=True, epochs=3).losses == []
    # The command without settings continues with those of the record.
    assert choose_settings(longer.run, preset=None, settings={}, resume=True).optimiser.epochs == 3
    with pytest.raises(ParameterError, match=r"epochs: 3, now 2.*epochs_without_cross_entropy may be larger"):
        train("run", resume=True, epochs=2)
    with pytest.raises(ParameterError, match=r"learning_rate: 0\.001, now 1\.0"):
        train("run", resume=True, epochs=4, learning_rate=1.0)


def test_a_run_that_is_killed_after_it_was_made_longer_is_still_whole(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("run", epochs=1)
    trainer = import_module("attengait.training.trainer")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "augment", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train("run", resume=True, epochs=2)
    load_model(train("run", resume=True, epochs=2, stop_after_steps=2).run)  # the weights name the earlier record
    assert len(train("run", resume=True, epochs=2).losses) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_a_run_with_all_these_settings_resumes_to_the_last_bit(train: Train, precision: str) -> None:
    settings = ALL | {"device": "cuda", "precision": precision, "deterministic": True}
    whole = train("whole", **settings)
    parts = train("parts", stop_after_steps=1, **settings)
    resumed = train("parts", resume=True, **settings)
    assert parts.losses + resumed.losses == whole.losses
    assert equal(resumed.weights, whole.weights)
