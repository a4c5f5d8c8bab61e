"""Several processes embed a store as one does, and what is embedded is kept.

The batches are those of one process, so the embeddings are equal to the bit. (The processes of the gang and this one
compute with one thread each.)
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attengait.errors import AttenGaitError
from attengait.evaluation.kept import KeptParts
from attengait.model.config import ModelConfig
from attengait.model.loading import save_weights
from attengait.model.net import AttenGait
from attengait.store import Store
from attengait.training.ranks import OtherProcessError

gang_module, jobs = import_module("gang"), import_module("shared_training")
make_store = import_module("small_stores").make_store

LENGTHS = (18, 21, 30, 17, 45, 16, 20, 19, 33, 20, 18, 18, 16, 40)
ARRAYS = ("features", "subjects", "views", "sequences", "feature_axes", "precision")


@pytest.fixture(scope="module")
def gang() -> Iterator[Any]:
    gang = gang_module.Gang(3)
    yield gang
    gang.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made: Store = make_store(tmp_path_factory.mktemp("stores") / "s.zarr", lengths=LENGTHS, frame_shape=(64, 64, 3))
    return made


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(0)
    save_weights(AttenGait(ModelConfig.of_size("tiny", blocks_per_stage=1)), path)
    return path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(one: Path, other: Path) -> bool:
    with np.load(one) as a, np.load(other) as b:
        assert set(a) == set(b) == set(ARRAYS)
        return all(a[name].tobytes() == b[name].tobytes() for name in ARRAYS)


@pytest.mark.parametrize("number", [2, 3])
def test_several_processes_write_the_file_of_one(
    gang: Any, store: Store, weights: Path, tmp_path: Path, number: int
) -> None:
    one, several = tmp_path / "one.npz", tmp_path / "several.npz"
    batches, _ = jobs.embed_together(weights, store.path, one)
    assert len(batches) == 10
    told = gang.run(number, jobs.embed_together, weights, store.path, several)
    assert [is_first for _, is_first in told] == [True] + [False] * (number - 1)
    assert all(seen for seen, _ in told), "each has a share"
    assert sorted(batch for seen, _ in told for batch in seen) == sorted(batches), "and each batch is embedded once"
    assert same(one, several)
    assert sorted(tmp_path.iterdir()) == [one, several]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (3, 1)])
def test_what_was_embedded_is_not_embedded_again_by_however_many(
    gang: Any, store: Store, weights: Path, tmp_path: Path, before: int, after: int
) -> None:
    def run(number: int, out: Path, *rest: Any) -> list[Any]:
        if number > 1:
            told: list[Any] = gang.answers(number, jobs.embed_together, weights, store.path, out, 40, *rest)
            return told
        try:
            return [(jobs.embed_together(weights, store.path, out, 40, *rest), None)]
        except ValueError as error:
            return [(None, error)]

    whole, parts = tmp_path / "whole.npz", tmp_path / "parts.npz"
    ((batches, _), _) = run(1, whole)[0]
    # The last batches of the last process fail, after a round was written.
    failing = (before - 1, 5 if before == 1 else 1)
    told = run(before, parts, failing, 0)
    assert str(told[failing[0]][1]) == "a fault of this process"
    assert not parts.exists()
    kept = sorted(path.name for path in (tmp_path / "parts.npz.work").glob("part-*"))
    assert kept
    told = run(after, parts, None, 0)
    again = [batch for (seen, _), _ in told for batch in seen]
    assert 0 < len(again) < len(batches)
    assert same(whole, parts)
    assert sorted(tmp_path.iterdir()) == [parts, whole]


def test_parts_of_something_else_are_refused_and_stay(store: Store, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.npz"
    with pytest.raises(ValueError, match="a fault"):
        jobs.embed_together(weights, store.path, out, 40, (0, 5), 0)
    there = sorted((tmp_path / "e.npz.work").iterdir())
    torch.manual_seed(1)
    save_weights(AttenGait(ModelConfig.of_size("tiny", blocks_per_stage=1)), tmp_path / "other.safetensors")
    with pytest.raises(AttenGaitError, match=r"e.npz.work has embeddings of another model, store or setting"):
        jobs.embed_together(tmp_path / "other.safetensors", store.path, out)
    with pytest.raises(AttenGaitError, match="of another model, store or setting"):  # other batches
        jobs.embed_together(weights, store.path, out, 50)
    assert sorted((tmp_path / "e.npz.work").iterdir()) == there
    part = tmp_path / "e.npz.work" / "part-000001.npz"
    part.write_bytes(part.read_bytes()[:-200])
    with pytest.raises(AttenGaitError, match=r"part-000001.npz is damaged: remove it"):
        jobs.embed_together(weights, store.path, out)
    part.unlink()
    seen, _ = jobs.embed_together(weights, store.path, out)
    assert len(seen) == 10


def test_a_failure_before_the_first_part_leaves_nothing(store: Store, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a fault"):
        jobs.embed_together(weights, store.path, tmp_path / "e.npz", 40, (0, 5))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_another_process_writes_is_refused_in_all(
    gang: Any, store: Store, weights: Path, tmp_path: Path
) -> None:
    with KeptParts(tmp_path / "e.npz", "a digest"):
        told = gang.answers(2, jobs.embed_together, weights, store.path, tmp_path / "e.npz")
    assert "e.npz is being written by another process" in str(told[0][1])
    assert isinstance(told[1][1], OtherProcessError)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_ends_the_others(
    gang: Any, store: Store, weights: Path, tmp_path: Path, rank: int
) -> None:
    told = gang.answers(2, jobs.embed_together, weights, store.path, tmp_path / "e.npz", 40, (rank, 1))
    assert str(told[rank][1]) == "a fault of this process"
    assert isinstance(told[1 - rank][1], OtherProcessError)
    assert not (tmp_path / "e.npz").exists()


def test_processes_with_other_weights_are_refused(gang: Any, store: Store, weights: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_weights(AttenGait(ModelConfig.of_size("tiny", blocks_per_stage=1)), tmp_path / "other.safetensors")
    for _, error in gang.answers(2, jobs.embed_apart, [weights, tmp_path / "other.safetensors"], store.path):
        assert "what is to be embedded by the model and store of process 1 is another than that of" in str(error)
