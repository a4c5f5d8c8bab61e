"""Frames that fail their checksum are neither trained on, nor kept, nor embedded."""

from pathlib import Path

import pytest
from small_stores import make_store

from attengait import AttenGait
from attengait.errors import AttenGaitError
from attengait.model.config import ModelConfig
from attengait.pipelines.embed import embed
from attengait.pipelines.stream import ClipStream
from attengait.pipelines.train import train_run
from attengait.store import Store, open_store
from attengait.store.layout import shard_path
from attengait.training.config import TrainingConfig, make_config

SENTENCE = r"s\.zarr: the frames of 00\d/nm-0\d/090 fail their checksum: attengait verify .+ lists all damage$"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A raw store, of which 100 kB of the first of three shards were overwritten."""
    made: Store = make_store(tmp_path / "s.zarr", lengths=(18, 20) * 3, frame_shape=(64, 64, 3))
    with shard_path(made.path, 0).open("r+b") as file:
        file.seek(100_000)
        file.write(b"\xa5" * 100_000)
    return made


def config(**changes: object) -> TrainingConfig:
    settings = {"subjects_per_batch": 3, "clips_per_subject": 2, "clip_frames": 16, "size": "tiny", "device": "cpu"}
    return make_config({**settings, "stop_after_steps": 1, **changes})


@pytest.mark.parametrize("cache", ["none", "host"])
def test_training_ends_before_the_first_step_that_uses_them(store: Store, tmp_path: Path, cache: str) -> None:
    with pytest.raises(AttenGaitError, match=SENTENCE):
        train_run(store.path, tmp_path / "run", config(cache=cache))
    assert not list((tmp_path / "run").glob("*.pt"))
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_training_can_be_told_not_to_check(store: Store, tmp_path: Path) -> None:
    assert train_run(store.path, tmp_path / "run", config(check_frames=False)).steps == 1


def test_a_run_on_other_people_goes_on(store: Store, tmp_path: Path) -> None:
    settings = config(subjects_per_batch=2, train_subjects=("002-003",))
    assert train_run(store.path, tmp_path / "run", settings).steps == 1


def test_embedding_ends(store: Store) -> None:
    with pytest.raises(AttenGaitError, match=SENTENCE):
        embed(AttenGait(ModelConfig.of_size("tiny", num_classes=3)), store)


def test_a_stream_ends(store: Store) -> None:
    with (
        ClipStream.from_store(store, subjects_per_batch=3, clips_per_subject=2, clip_frames=16, epochs=2) as stream,
        pytest.raises(AttenGaitError, match=SENTENCE),
    ):
        list(stream)


def test_the_same_store_undamaged_is_read(tmp_path: Path) -> None:
    made = make_store(tmp_path / "t.zarr", lengths=(18, 20) * 3, frame_shape=(64, 64, 3))
    assert sum(len(frames) for frames in open_store(made.path)) == made.num_frames
