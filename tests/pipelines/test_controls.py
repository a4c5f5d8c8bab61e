"""The controls of the demo: what they are computed from, and how they are compared with the model."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from small_stores import make_store

from attengait import load_model
from attengait.cli.tables import controls_table
from attengait.evaluation import Embeddings
from attengait.evaluation.discriminant import LinearDiscriminant, mean_and_spread
from attengait.model.net import AttenGait
from attengait.pipelines.controls import compare_controls, control_embeddings
from attengait.pipelines.embed import embed, prepare
from attengait.pipelines.train import train_run
from attengait.store import Store
from attengait.training.config import make_config


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Five subjects, 001 to 005, of two sequences each, of different lengths."""
    made: Store = make_store(
        tmp_path_factory.mktemp("stores") / "s.zarr", frame_shape=(64, 64, 3), lengths=(20, 18, 20, 17, 22) * 2
    )
    return made


@pytest.fixture(scope="module")
def run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of training on subjects 001 to 003."""
    path = tmp_path_factory.mktemp("runs") / "run"
    settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 16, "size": "tiny", "device": "cpu"}
    changes = {"train_subjects": ["001-003"], "repeat_short": True, "stop_after_steps": 1, "learning_rate": 0.1}
    train_run([store], path, make_config(settings | changes | {"warmup_epochs": 0}))
    return path


def test_every_control_is_of_the_test_subjects(run: Path, store: Store) -> None:
    for embeddings in control_embeddings(run, store).values():
        assert embeddings.subjects.tolist() == ["004", "004", "005", "005"]
        assert embeddings.sequences.tolist() == ["nm-01", "nm-02"] * 2


def test_shuffled_frames_are_the_same_frames_in_an_order_of_each_sequence_own(run: Path, store: Store) -> None:
    shuffled = control_embeddings(run, store, seed=3)["shuffled frames"]
    network = load_model(run)
    for i, row in enumerate(range(6, 10)):
        order = np.random.default_rng([3, row]).permutation(len(store[row]))
        expected = network.embed(store[row][order]).numpy()
        np.testing.assert_allclose(shuffled.features[i], expected, rtol=1e-4, atol=1e-5)
    alone = prepare(run, store, subjects="005").embed(shuffle_seed=3)
    np.testing.assert_allclose(alone.features, shuffled.features[2:], rtol=1e-4, atol=1e-5)
    as_they_are = embed(run, store).features
    assert np.abs(shuffled.features - as_they_are).max() > 1e-3


def test_the_discriminant_is_fitted_on_the_training_subjects_alone(
    run: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted_on = []
    fit = LinearDiscriminant.fit

    def noted(features: np.ndarray, subjects: np.ndarray) -> LinearDiscriminant:
        fitted_on.append((features, subjects))
        return fit(features, subjects)

    monkeypatch.setattr(LinearDiscriminant, "fit", noted)
    found = control_embeddings(run, store)["discriminant"]
    ((features, subjects),) = fitted_on
    assert subjects.tolist() == ["001", "001", "002", "002", "003", "003"]
    np.testing.assert_array_equal(features, [mean_and_spread(store[row]) for row in range(6)])
    expected = fit(features, subjects).project(np.stack([mean_and_spread(store[row]) for row in range(6, 10)]))
    np.testing.assert_allclose(found.features[:, 0], expected, rtol=1e-6)


def test_the_untrained_network_follows_from_the_seed_and_draws_nothing_from_outside(run: Path, store: Store) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    found = control_embeddings(run, store, seed=2)["untrained"]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    network = AttenGait(load_model(run).config)
    np.testing.assert_array_equal(found.features, embed(network, store, subjects="004-005").features)
    assert np.abs(found.features - embed(run, store).features).max() > 1e-3


def made(noise: float) -> Embeddings:
    """Eight subjects; the noise makes them harder to tell apart."""
    names = [
        (f"{s:03d}", walk, view) for s in range(8) for walk in ("nm-01", "nm-05", "cl-01") for view in ("000", "090")
    ]
    subjects, sequences, views = (np.array(column) for column in zip(*names, strict=True))
    random = np.random.default_rng(0)
    features = np.array([int(name) for name in subjects])[:, None, None] + noise * random.normal(
        size=(len(names), 1, 1)
    )
    return Embeddings(features=features.astype(np.float32), subjects=subjects, sequences=sequences, views=views)


def test_rows_have_intervals_and_say_how_far_the_model_is_ahead() -> None:
    model, blind = compare_controls(made(0.1), {"blind": made(9.0)})
    assert model.ahead is None
    assert model.result.mean == 1.0
    assert blind.ahead is not None
    assert blind.ahead.difference == pytest.approx(1.0 - blind.result.mean)
    low, high = blind.ahead.interval
    assert low < blind.ahead.difference < high
    row = blind.to_dict()
    assert row["conditions"]["bg"] is None
    assert row["conditions"]["nm"] is not None
    assert row["interval"][0] < row["mean"] < row["interval"][1]
    assert row["model_ahead_interval"] == [low, high]


def test_the_table_has_a_row_for_each_control_and_one_for_chance() -> None:
    rows = compare_controls(made(0.1), {"blind": made(9.0)})
    output = io.StringIO()
    Console(width=80, file=output).print(controls_table(rows))
    lines = output.getvalue().splitlines()
    cells = [[cell.strip() for cell in line[1:-1].split("│")] for line in lines if line.startswith("│")]
    assert cells[0] == ["model", "100.0", "–", "100.0", "100.0", "100.0 to 100.0", ""]
    mean, ahead = rows[1].result.mean, rows[1].ahead
    assert mean is not None
    assert ahead is not None
    assert cells[1][0] == "blind"
    assert cells[1][4] == f"{100 * mean:.1f}"
    low, high = (f"{100 * end:+.1f}" for end in ahead.interval if end is not None)
    assert cells[1][6] == f"{100 * (1 - mean):+.1f} ({low} to {high})"
    assert cells[2][:5] == ["chance", *["12.5"] * 4]
    assert lines[-1] == "intervals: 2000 resamples of 8 subjects"
