"""The plan of training batches: complete, pure, divisible, the same with every version of numpy."""

import hashlib
from typing import Any

import numpy as np
import pytest

from attengait.errors import ParameterError
from attengait.sampling.plan import BatchPlan, PlannedBatch, argsort_stable, ragged_batches
from attengait.sampling.rules import ClipRules
from attengait.store import Sequences


def make_sequences(num_subjects: int, per_subject: int = 3) -> Sequences:
    """Sequences of 20 to 39 frames back to back."""
    num = num_subjects * per_subject
    length = 20 + np.arange(num) * 7 % 20
    return Sequences(
        subject=np.array([f"{i // per_subject + 1:03d}" for i in range(num)], np.dtypes.StringDType()),
        walk=np.array([f"nm-{i % per_subject + 1:02d}" for i in range(num)], np.dtypes.StringDType()),
        view=np.array(["090"] * num, np.dtypes.StringDType()),
        start=np.cumsum(length) - length,
        length=length,
        crc32c=np.zeros(num, np.uint32),
    )


def make_plan(num_subjects: int = 10, subjects: list[str] | None = None, **changes: Any) -> BatchPlan:
    sequences = make_sequences(num_subjects)
    names = subjects if subjects is not None else sorted(set(sequences.subject.tolist()))
    settings = {"subjects_per_batch": 4, "clips_per_subject": 3, "clip_frames": 16, "seed": 7, **changes}
    return BatchPlan(sequences, names, **settings)


def test_a_batch_is_p_subjects_times_k_clips_within_their_own_sequences() -> None:
    plan, sequences = make_plan(), make_sequences(10)
    for step in range(50):
        batch = plan.batch(step)
        assert batch.step == step
        assert batch.labels.dtype == batch.starts.dtype == batch.sequences.dtype == np.int64
        assert len(batch.labels) == len(batch.starts) == len(batch.sequences) == 12
        assert (batch.labels.reshape(4, 3) == batch.labels.reshape(4, 3)[:, :1]).all()
        assert len(set(batch.labels.tolist())) == 4
        assert [plan.subjects[label] for label in batch.labels] == sequences.subject[batch.sequences].tolist()
        assert (batch.starts >= sequences.start[batch.sequences]).all()
        ends = sequences.start[batch.sequences] + sequences.length[batch.sequences]
        assert (batch.starts + 16 <= ends).all()


def test_every_sequence_and_every_start_is_drawn_sooner_or_later() -> None:
    plan, sequences = make_plan(subjects_per_batch=10, clips_per_subject=50), make_sequences(10)
    batches = [plan.batch(step) for step in range(20)]
    drawn = {(i, int(s)) for b in batches for i, s in zip(b.sequences.tolist(), b.starts, strict=True)}
    possible = {(i, int(sequences.start[i]) + k) for i in range(30) for k in range(int(sequences.length[i]) - 15)}
    assert drawn == possible


def test_an_epoch_visits_each_subject_once_and_fills_its_last_batch_from_its_start() -> None:
    plan = make_plan()
    assert plan.steps_per_epoch == 3
    orders = []
    for epoch in range(3):
        visited = np.concatenate([plan.batch(3 * epoch + i).labels[::3] for i in range(3)]).tolist()
        assert sorted(visited[:10]) == list(range(10))
        assert visited[10:] == visited[:2]
        orders.append(visited)
    assert orders[0] != orders[1] != orders[2]


RULES = [
    ClipRules(),
    ClipRules(frame_order="subset"),
    ClipRules(frame_order="shuffled", balance="walks"),
    ClipRules(balance="views", train_walks=("nm-01", "nm-02"), min_frames=22),
    ClipRules(repeat_short=True),
    ClipRules(repeat_short=True, frame_order="shuffled"),
]


def arrays_of(batch: PlannedBatch) -> dict[str, Any]:
    names = ("sequences", "starts", "labels", *([] if batch.frames is None else ["frames"]))
    return {name: getattr(batch, name) for name in names}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_slices_together_are_the_batch_of_one_rank(world_size: int, rules: ClipRules) -> None:
    alone = make_plan(clip_frames=25, rules=rules)
    plans = [make_plan(clip_frames=25, rules=rules) for _ in range(world_size)]  # as each process makes its own
    for step in (0, 5, 10**9):
        parts = [arrays_of(plan.batch(step, rank, world_size)) for rank, plan in enumerate(plans)]
        whole = arrays_of(alone.batch(step))
        assert len({frozenset(part) for part in [whole, *parts]}) == 1
        for name, expected in whole.items():
            assert np.array_equal(np.concatenate([part[name] for part in parts]), expected)


@pytest.mark.parametrize("rules", RULES)
def test_a_step_is_planned_alike_whatever_was_planned_before_it(rules: ClipRules) -> None:
    undisturbed = make_plan(clip_frames=25, rules=rules)
    ahead = [arrays_of(undisturbed.batch(step)) for step in range(12)]
    for start_step in (11, 7, 1):  # epochs have three steps
        resumed = make_plan(clip_frames=25, rules=rules)
        for step in range(start_step, 12):
            again = arrays_of(resumed.batch(step))
            assert set(again) == set(ahead[step])
            assert all(np.array_equal(again[name], ahead[step][name]) for name in again)


def test_another_seed_gives_other_subjects_and_other_clips() -> None:
    one, other = make_plan(seed=1).batch(0), make_plan(seed=2).batch(0)
    assert not np.array_equal(one.labels, other.labels)
    assert not np.array_equal(one.starts, other.starts)


def test_the_plan_stays_what_it_was_when_it_was_first_pinned() -> None:
    batch = make_plan(seed=2**64 - 1).batch(4)
    assert batch.labels.tolist() == [7, 7, 7, 0, 0, 0, 6, 6, 6, 8, 8, 8]
    assert batch.sequences.tolist() == [21, 21, 23, 2, 2, 1, 20, 20, 19, 25, 25, 26]
    assert batch.starts.tolist() == [612, 618, 674, 63, 48, 21, 593, 590, 558, 731, 730, 758]


@pytest.mark.parametrize(
    ("rules", "clip_frames", "pinned"),
    [
        (ClipRules(), 16, "17a34bf5df1a3407d33b9b16db828ef5a1bf861e3a35b59c81c9239afc40c95e"),
        (ClipRules(frame_order="subset"), 16, "e9b84d398bd02a9bfcb62220eb353599ff97ead2a0857afb4ea559accf69b6af"),
        (
            ClipRules(frame_order="shuffled", balance="walks"),
            16,
            "ad5b14081b797c11f9b34b16c3817e3c621912931b683054026684df61815463",
        ),
        (
            ClipRules(repeat_short=True, balance="views"),
            30,
            "8a1d9d24b1a9ae3beea2147febb8b8e23968b0ae68c057da563a4efb891405d5",
        ),
    ],
)
def test_the_plans_of_runs_that_were_begun_stay_what_they_were(rules: ClipRules, clip_frames: int, pinned: str) -> None:
    sequences = make_sequences(500, 4)
    names = sorted(set(sequences.subject.tolist()))
    settings = {"subjects_per_batch": 8, "clips_per_subject": 4, "seed": 11}
    plan = BatchPlan(sequences, names, **settings, clip_frames=clip_frames, rules=rules)
    digest = hashlib.sha256()
    for step in range(200):
        for array in arrays_of(plan.batch(step)).values():
            digest.update(array.astype("<i8").tobytes())
    assert digest.hexdigest() == pinned


def test_a_permutation_is_that_of_a_stable_sort_of_random_words_also_where_they_are_equal() -> None:
    words = np.random.Philox(key=5).random_raw(1000)
    for equal in (words, words % 7, words << np.uint64(40), words >> np.uint64(50), words[:0]):
        assert np.array_equal(argsort_stable(equal), np.argsort(equal, kind="stable"))


def test_sequences_shorter_than_a_clip_are_not_used_and_subjects_without_any_are_dropped() -> None:
    sequences = make_sequences(4)
    length = sequences.length.copy()
    length[3:6] = 15  # all of 002
    length[0] = 15  # one of 001
    short = Sequences(
        **{n: getattr(sequences, n) for n in ("subject", "walk", "view", "start", "crc32c")}, length=length
    )
    names = ["001", "002", "003", "999"]
    plan = BatchPlan(short, names, subjects_per_batch=2, clips_per_subject=8, clip_frames=16, seed=0)
    assert plan.subjects == ["001", "003"]
    assert plan.dropped_subjects == ["002", "999"]
    drawn = np.concatenate([plan.batch(step).sequences for step in range(20)])
    assert set(drawn.tolist()) == {1, 2, 6, 7, 8}


def test_labels_follow_the_order_in_which_subjects_are_given() -> None:
    plan = make_plan(subjects=["005", "002", "009", "001"])
    assert plan.subjects == ["005", "002", "009", "001"]
    batch, sequences = plan.batch(0), make_sequences(10)
    assert [plan.subjects[label] for label in batch.labels] == sequences.subject[batch.sequences].tolist()


def test_more_subjects_per_batch_than_subjects_is_refused_naming_both() -> None:
    with pytest.raises(ParameterError, match="subjects_per_batch is 11, but must be at most the 10 subjects that"):
        make_plan(subjects_per_batch=11)


@pytest.mark.parametrize(
    ("name", "value"), [("subjects_per_batch", 0), ("clips_per_subject", 0), ("clip_frames", 0), ("seed", -1)]
)
def test_a_parameter_out_of_range_is_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ParameterError, match=f"{name} is {value}"):
        make_plan(**{name: value})


def test_subjects_that_cannot_be_divided_among_the_processes_are_refused() -> None:
    with pytest.raises(ParameterError, match="subjects_per_batch is 4, but must be a multiple of the 3 processes"):
        make_plan().batch(0, 0, 3)
    with pytest.raises(ParameterError, match="rank is 2, but must be from 0 to 1"):
        make_plan().batch(0, 2, 2)
    with pytest.raises(ParameterError, match="step is -1"):
        make_plan().batch(-1)


def test_ragged_batches_keep_the_order_and_the_bound() -> None:
    assert ragged_batches([5, 5, 5, 30, 2, 8, 1], 10) == [
        slice(0, 2),
        slice(2, 3),
        slice(3, 4),
        slice(4, 6),
        slice(6, 7),
    ]
    assert ragged_batches([], 10) == []
    with pytest.raises(ParameterError, match="batch_frames is 0"):
        ragged_batches([1], 0)
