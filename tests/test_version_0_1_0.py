"""What version 0.1.0 left on disks still works: a store, and a run."""

import shutil
from pathlib import Path

import pytest

import attengait
from attengait.errors import AttenGaitError
from attengait.model.config import ModelConfig
from attengait.model.loading import save_weights
from attengait.store.verify import verify


@pytest.fixture
def store(data: Path) -> attengait.Store:
    return attengait.open_store(data / "walkers-0.1.0.zarr")


def test_a_store_opens_and_is_whole(store: attengait.Store) -> None:
    assert store.attributes["versions"]["attengait"] == "0.1.0"
    assert (len(store), store.num_frames, store.frame_shape) == (8, 128, (64, 64, 3))
    assert store["002", "nm-05", "090"].shape == (16, 64, 64, 3)
    assert verify(store.location) == []
    with pytest.raises(AttenGaitError, match=r"keeps no frame numbers: it was made by version 0.1.0"):
        store.frame_numbers(0)


def test_a_store_trains_and_evaluates(store: attengait.Store, tmp_path: Path) -> None:
    settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "stop_after_steps": 2}
    result = attengait.train(store, tmp_path / "run", preset="demo", settings=settings)
    assert result.steps == 2
    embeddings = attengait.embed(result, store, subjects="1-2")
    assert embeddings.features.shape == (8, 62, attengait.load_model(result).config.embedding_size)
    assert attengait.evaluate(embeddings).num_subjects == 2


def test_a_run_knows_its_store(store: attengait.Store, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(data / "run-0.1.0", run)
    save_weights(attengait.AttenGait(ModelConfig(num_classes=2)), run / "model.safetensors")
    with pytest.raises(AttenGaitError, match=r"all 2 subjects of .* belong to the training set"):
        attengait.embed(run, store)
    assert len(attengait.embed(run, store, subjects="2")) == 4
