"""Training by several processes with gloo: the same numbers as one process, whatever their number.

Tolerances: float32 sums of the slices of a batch have another order than sums of the whole. The gradients differ by
rounding alone, less than 1e-4 of each tensor's norm. Adam divides by the gradient's own size, so that a rounding of a
gradient near zero may move a weight by a share of the learning rate: weights after training agree to a tenth of what
they moved.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import state_in
from small_stores import make_store

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import Store
from attengait.training.checkpoint import read_record
from attengait.training.environment import read_environment
from attengait.training.ranks import ALONE, OtherProcessError, Ranks

gang_module, jobs = import_module("gang"), import_module("shared_training")
Losses = list[dict[str, float]]


@pytest.fixture(scope="module")
def gang() -> Iterator[Any]:
    gang = gang_module.Gang(3)
    yield gang
    gang.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Twelve subjects of two sequences each."""
    made: Store = make_store(tmp_path_factory.mktemp("stores") / "s.zarr", lengths=(18,) * 24, frame_shape=(64, 64, 3))
    return made


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = state_in(run / "checkpoint.pt")["model"]
    return state


def close(one: dict[str, np.ndarray], other: dict[str, np.ndarray], tolerance: float) -> None:
    assert one.keys() == other.keys()
    norms = {name: float(np.linalg.norm(one[name])) for name in one}
    # Triplets do not see a bias that all embeddings share: its gradient is nothing but rounding.
    least = 1e-3 * max(norms.values())
    errors = {name: float(np.linalg.norm(one[name] - other[name]) / max(norms[name], least)) for name in one}
    assert max(errors.values()) < tolerance, errors


def test_slices_are_gathered_and_their_gradients_summed(gang: Any) -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    for rank, got in enumerate(gang.run(3, jobs.collect, values)):
        assert got["ranks"] == (rank, 3, rank == 0)
        assert got["whole"] == values
        assert got["gradient"] == [6.0 * (2 * rank), 6.0 * (2 * rank + 1)]  # 1 + 2 + 3 processes
        assert got["rows"] == values[::-1][2 * rank : 2 * rank + 2]
        assert (got["mean"], got["largest"]) == (1.0, 10)


@pytest.mark.parametrize(
    ("changes", "replicas", "processes"),
    [
        ({"triplets": "global"}, 6, (2, 3)),
        ({"triplets": "replica"}, 6, (2, 3)),
        ({"triplets": "replica"}, 2, (2, 3)),  # three processes have parts of two replicas
        ({"triplets": "global", "mixup_probability": 1.0, "cutmix_probability": 1.0}, 3, (2, 3)),
        ({"triplets": "global", "normalise_embeddings": True, "soft_margin": True}, 3, (3,)),
        ({"triplets": "global", "margin": 1e-4, "adaptive_margin": True, "label_smoothing": 0.1}, 3, (2, 3)),
        ({"triplets": "replica", "margin": 1e-4, "adaptive_margin": True}, 6, (2, 3)),
    ],
)
def test_losses_and_gradients_are_those_of_one_process(
    gang: Any, changes: dict[str, Any], replicas: int, processes: tuple[int, ...]
) -> None:
    expected, gradients = jobs.one_step(changes, replicas, 12, 2)
    assert {"total", "triplet", "cross_entropy", "l2", "active"} <= expected.keys()
    assert 0 < expected["active"] < 1 or changes.get("soft_margin")
    for number in processes:
        for losses, of_process in gang.run(number, jobs.one_step, changes, replicas, 12, 2):
            assert losses == pytest.approx(expected, rel=1e-5)
            close(gradients, of_process, 1e-4)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_parts_of_a_batch_give_the_gradients_of_the_whole_in_any_number_of_processes(gang: Any, number: int) -> None:
    changes = {"triplets": "global"}
    expected, gradients = jobs.one_step(changes, 3, 12, 2)
    for losses, of_process in gang.run(number, jobs.one_step, changes, 3, 12, 2, True, 2):
        assert losses == pytest.approx(expected, rel=1e-5)
        close(gradients, of_process, 1e-4)


def test_triplets_within_replicas_are_others_than_those_of_all_clips() -> None:
    one, _ = jobs.one_step({"triplets": "replica"}, 3, 12, 2)
    other, _ = jobs.one_step({"triplets": "global"}, 3, 12, 2)
    assert one["triplet"] != pytest.approx(other["triplet"], rel=1e-3)
    assert one["l2"] == other["l2"]


def test_without_cross_entropy_the_classifiers_get_no_gradient(gang: Any) -> None:
    expected, gradients = jobs.one_step({}, 2, 4, 2, False)
    assert "cross_entropy" not in expected
    assert not any(name.startswith("classifier") for name in gradients)
    for _, of_process in gang.run(2, jobs.one_step, {}, 2, 4, 2, False):
        close(gradients, of_process, 1e-4)


def test_a_run_has_the_losses_and_weights_of_one_process_also_continued_by_others(
    gang: Any, store: Store, tmp_path: Path
) -> None:
    changes = {"replicas": 3, "triplets": "global"}  # eight steps, the last two without cross entropy
    losses: dict[str, Losses] = {}
    ends = {}
    losses["one"], *ends["one"] = jobs.train(store.path, tmp_path / "one", changes)
    for name, number in (("two", 2), ("three", 3)):
        told = gang.run(number, jobs.train, store.path, tmp_path / name, changes)
        losses[name], *ends[name] = told[0]
        assert [each[0] for each in told[1:]] == [[]] * (number - 1), "the first process reports"
    told = gang.run(2, jobs.train, store.path, tmp_path / "parts", changes | {"stop_after_steps": 3})
    losses["parts"] = told[0][0]
    told = gang.run(3, jobs.train, store.path, tmp_path / "parts", changes | {"stop_after_steps": 5}, True)
    losses["parts"] += told[0][0]
    more, *ends["parts"] = jobs.train(store.path, tmp_path / "parts", changes, True)
    losses["parts"] += more

    begun = weights_at_first(tmp_path, store, changes)
    one = weights(tmp_path / "one")
    moved = {name: (one[name] - begun[name]).double().norm() for name in one}
    for name in ("two", "three", "parts"):
        assert ends[name] == ends["one"] == [8, None]
        for step, (expected, got) in enumerate(zip(losses["one"], losses[name], strict=True)):
            assert got == pytest.approx(expected, rel=1e-2 if step > 3 else 1e-3), (name, step)
        other = weights(tmp_path / name)
        errors = {key: float((other[key] - one[key]).double().norm() / moved[key]) for key in one}
        assert max(errors.values()) < 0.1, errors
        assert read_record(tmp_path / name).sha256 == read_record(tmp_path / "one").sha256


def weights_at_first(folder: Path, store: Store, changes: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The first step has the learning rate 0 of the warm-up, and changes no weight."""
    jobs.train(store.path, folder / "first", changes | {"stop_after_steps": 1})
    return weights(folder / "first")


def test_replicas_are_as_many_as_processes_and_stay_when_others_continue(
    gang: Any, store: Store, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    gang.run(2, jobs.train, store.path, run, {"stop_after_steps": 2})
    assert read_record(run).config.data.replicas == 2
    losses, steps, _ = jobs.train(store.path, run, {"replicas": 2, "stop_after_steps": 3}, True)
    assert (len(losses), steps) == (1, 3)
    with pytest.raises(ParameterError, match="replicas: 2, now 1"):
        jobs.train(store.path, run, {}, True)
    with pytest.raises(
        ParameterError, match="is 2 in each of 2 replicas, but must be a multiple of the 3 processes in"
    ):
        gang.run(3, jobs.train, store.path, run, {"replicas": 2}, True)
    with pytest.raises(ParameterError, match="is 2 in each of 7 replicas, but must be at most the 12 subjects"):
        jobs.train(store.path, tmp_path / "more", {"replicas": 7})


def test_a_process_that_is_asked_to_stop_stops_all_at_the_same_step(gang: Any, store: Store, tmp_path: Path) -> None:
    for rank in (0, 1):
        run = tmp_path / f"stopped by {rank}"
        told = gang.run(2, jobs.train, store.path, run, {}, False, (rank, 2))
        assert [each[1:] for each in told] == [(3, 15), (3, 15)]
        assert read_environment(run)["starts"][-1]["ended"]["how"] == "stopped: SIGTERM"
        assert state_in(run / "checkpoint.pt")["step"] == 3


@pytest.mark.parametrize(
    ("signals", "overs", "heard"),
    [
        ([None, None], [False, False], (None, False)),
        ([None, None], [True, False], (None, True)),
        ([None, 15], [False, False], (15, False)),
        ([15, None], [True, False], (15, True)),
        ([None, 15], [True, False], (15, False)),
    ],
)
def test_no_signal_is_lost_where_another_process_is_over(
    gang: Any, signals: list[int | None], overs: list[bool], heard: tuple[int | None, bool]
) -> None:
    assert gang.run(2, jobs.stops, signals, overs) == [heard, heard]


def test_nan_ends_all_processes_with_the_same_sentence_and_keeps_the_checkpoint(
    gang: Any, store: Store, tmp_path: Path
) -> None:
    gang.run(2, jobs.train, store.path, tmp_path / "run", {"stop_after_steps": 2})
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    broken = {"learning_rate": 1e38, "warmup_epochs": 0, "checkpoint_every_steps": 1}
    told = gang.answers(2, jobs.train, store.path, tmp_path / "broken", broken)
    errors = {str(error) for _, error in told}
    assert len(errors) == 1
    assert "is not finite" in errors.pop()
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_ends_the_others(gang: Any, store: Store, tmp_path: Path, rank: int) -> None:
    told = gang.answers(2, jobs.train, store.path, tmp_path / "run", {}, False, None, (rank, 1))
    assert str(told[rank][1]) == "a fault of this process"
    assert isinstance(told[1 - rank][1], OtherProcessError)


def test_what_one_cannot_begin_no_other_begins(gang: Any, store: Store, tmp_path: Path) -> None:
    told = gang.answers(2, jobs.fail_before_training, 1)
    assert [type(error) for _, error in told] == [OtherProcessError, ValueError]
    # A folder that is in use is the affair of the first process alone.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "diary.txt").touch()
    told = gang.answers(2, jobs.train, store.path, tmp_path / "run")
    assert all("no folder of a training run" in str(error) for _, error in told)


def test_processes_with_other_settings_or_files_are_refused(gang: Any) -> None:
    gang.run(2, jobs.differ, ["a", "a"])
    for _, error in gang.answers(3, jobs.differ, ["a", "b", "a"]):
        assert str(error).startswith("the number of process 1 is another than that of process 0")


@pytest.mark.parametrize("num_parts", [1, 2])
def test_all_processes_begin_with_the_weights_of_the_first(gang: Any, num_parts: int) -> None:
    first, second = gang.run(2, jobs.weights_at_first, num_parts)
    assert first == second


def test_processes_that_would_stop_at_other_steps_are_refused(gang: Any, store: Store, tmp_path: Path) -> None:
    for _, error in gang.answers(2, jobs.stop_apart, store.path, tmp_path / "run", [1, 2]):
        assert "of process 1 is another than that of process 0" in str(error)


def test_processes_that_find_checkpoints_of_other_steps_are_refused(gang: Any, store: Store, tmp_path: Path) -> None:
    runs = [tmp_path / "one", tmp_path / "two"]
    for steps, run in enumerate(runs, 1):
        jobs.train(store.path, run, {"stop_after_steps": steps})
    for _, error in gang.answers(2, jobs.continue_another, store.path, runs):
        assert str(error).startswith("the checkpoint of process 1 is another than that of process 0")


def test_each_process_has_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(rank=5, world_size=6, local_rank=1, local_world_size=2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [ranks.device(name) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    assert [ALONE.device(name) for name in ("auto", "cuda:1")] == ["auto", "cuda:1"]
    with pytest.raises(ParameterError, match="device is 'cuda:1', but must be auto, cpu or cuda"):
        ranks.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(AttenGaitError, match="2 processes run on this machine, but torch sees 1 GPUs"):
        ranks.device("auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert ranks.device("auto") == "cpu"
