"""What clips are drawn from and how: filters, lengths, repetition, frame orders, balance, and what is refused."""

from collections import Counter
from math import comb
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attengait.errors import ParameterError
from attengait.sampling.plan import BatchPlan, PlannedBatch
from attengait.sampling.rules import ClipRules, random_positions
from attengait.store import Sequences

WALKS = ["nm-01", "nm-02", "nm-03", "nm-04", "bg-01", "cl-01"]
VIEWS = ["000", "090", "180"]


def make_sequences(num_subjects: int = 4, lengths: tuple[int, ...] = (20, 24, 40)) -> Sequences:
    """Each subject in each walk and view; the lengths take turns over the views, with a gap between sequences."""
    names = [(f"{s + 1:03d}", walk, view) for s in range(num_subjects) for walk in WALKS for view in VIEWS]
    columns = [np.array(column, np.dtypes.StringDType()) for column in zip(*names, strict=True)]
    length = np.resize(np.array(lengths, np.int64), len(names))
    return Sequences(
        subject=columns[0],
        walk=columns[1],
        view=columns[2],
        start=np.cumsum(length + 3) - length,
        length=length,
        crc32c=np.zeros(len(names), np.uint32),
    )


def make_plan(sequences: Sequences, *, clip_frames: int = 16, clips: int = 50, **rules: Any) -> BatchPlan:
    names = sorted(set(sequences.subject.tolist()))
    return BatchPlan(
        sequences,
        names,
        subjects_per_batch=4,
        clips_per_subject=clips,
        clip_frames=clip_frames,
        seed=3,
        rules=ClipRules(**rules),
    )


def batches(plan: BatchPlan, steps: int = 20) -> list[PlannedBatch]:
    return [plan.batch(step) for step in range(steps)]


def drawn(plan: BatchPlan, steps: int = 20) -> NDArray[np.int64]:
    return np.concatenate([batch.sequences for batch in batches(plan, steps)])


def frames_of(batch: PlannedBatch) -> NDArray[np.int64]:
    assert batch.frames is not None
    assert batch.frames.dtype == np.int64
    assert batch.frames.flags.c_contiguous
    assert np.array_equal(batch.starts, batch.frames[:, 0])
    return batch.frames


@pytest.mark.parametrize(
    ("rules", "walks", "views"),
    [
        ({"train_views": ("90",)}, set(WALKS), {"090"}),
        ({"train_views": ("000-090",)}, set(WALKS), {"000", "090"}),
        ({"train_walks": ("nm",)}, set(WALKS[:4]), set(VIEWS)),
        ({"train_walks": ("bg-01", "nm-02")}, {"bg-01", "nm-02"}, set(VIEWS)),
        ({"train_walks": ("cl",), "train_views": ("180",)}, {"cl-01"}, {"180"}),
    ],
)
def test_filters_leave_just_the_views_and_walks_asked_for(
    rules: dict[str, Any], walks: set[str], views: set[str]
) -> None:
    sequences = make_sequences()
    found = drawn(make_plan(sequences, **rules))
    assert set(sequences.walk[found].tolist()) == walks
    assert set(sequences.view[found].tolist()) == views


def test_the_least_length_counts_beside_the_clips() -> None:
    sequences = make_sequences()
    for min_frames, lengths in ((0, {20, 24, 40}), (21, {24, 40}), (25, {40})):
        assert set(sequences.length[drawn(make_plan(sequences, min_frames=min_frames))].tolist()) == lengths
    assert set(sequences.length[drawn(make_plan(sequences, clip_frames=24, min_frames=5))].tolist()) == {24, 40}
    repeated = make_plan(sequences, clip_frames=30, min_frames=24, repeat_short=True)
    assert set(sequences.length[drawn(repeated)].tolist()) == {24, 40}


def test_short_sequences_are_stretched_as_numpy_repeat_does_and_long_ones_are_not() -> None:
    sequences = make_sequences(lengths=(7, 16, 29, 30, 31, 60))
    plan = make_plan(sequences, clip_frames=30, repeat_short=True)
    starts: dict[int, set[int]] = {}
    for batch in batches(plan):
        for clip, i in zip(frames_of(batch), batch.sequences.tolist(), strict=True):
            length, start = int(sequences.length[i]), int(sequences.start[i])
            stretched = np.repeat(np.arange(start, start + length), max(1, -(-30 // length)))
            windows = np.lib.stride_tricks.sliding_window_view(stretched, 30)
            (where,) = np.flatnonzero((windows == clip).all(axis=1))[:1]
            starts.setdefault(length, set()).add(int(where))
    assert {length: len(found) for length, found in starts.items()} == {7: 6, 16: 3, 29: 29, 30: 1, 31: 2, 60: 31}


def test_repeating_where_nothing_is_short_changes_nothing() -> None:
    sequences = make_sequences()
    plain, repeated = make_plan(sequences), make_plan(sequences, repeat_short=True)
    for one, other in zip(batches(plain), batches(repeated), strict=True):
        assert one.frames is None
        assert other.frames is None
        assert np.array_equal(one.starts, other.starts)


@pytest.mark.parametrize("order", ["subset", "shuffled"])
@pytest.mark.parametrize("clip_frames", [16, 20, 30])
def test_random_frames_are_different_ones_of_their_own_sequence(order: str, clip_frames: int) -> None:
    sequences = make_sequences()
    plan = make_plan(sequences, clip_frames=clip_frames, frame_order=order, repeat_short=clip_frames == 30)
    ascending = 0
    for batch in batches(plan, 5):
        frames = frames_of(batch)
        start, length = sequences.start[batch.sequences], sequences.length[batch.sequences]
        assert frames.shape == (200, clip_frames)
        assert (frames >= start[:, None]).all()
        assert (frames < (start + length)[:, None]).all()
        times = -(-clip_frames // length)
        assert all(max(Counter(row).values()) <= most for row, most in zip(frames.tolist(), times, strict=True))
        ascending += int((np.diff(frames, axis=1) >= 0).all(axis=1).sum())
    assert ascending == (1000 if order == "subset" else 0)


def test_every_subset_is_drawn_equally_often_and_nothing_else() -> None:
    count, num_frames, num_clips = 6, 3, 40_000
    words = np.random.Philox(key=1).random_raw(num_frames * num_clips).reshape(num_frames, num_clips)
    positions = random_positions(words, np.full(num_clips, count), num_frames)
    found = Counter(map(tuple, positions.tolist()))
    assert len(found) == comb(count, num_frames)
    expected = num_clips / len(found)
    # 19 degrees of freedom: chi square exceeds 43.8 once in a thousand seeds, and this seed is fixed.
    assert sum((n - expected) ** 2 / expected for n in found.values()) < 43.8


def test_every_order_of_every_subset_is_drawn_equally_often() -> None:
    count, num_frames, num_clips = 4, 3, 24_000
    words = np.random.Philox(key=2).random_raw(2 * num_frames * num_clips).reshape(2 * num_frames, num_clips)
    found = Counter(map(tuple, random_positions(words, np.full(num_clips, count), num_frames).tolist()))
    assert len(found) == 24
    # 23 degrees of freedom: 49.7 once in a thousand.
    assert sum((n - 1000) ** 2 / 1000 for n in found.values()) < 49.7


def test_clips_of_one_batch_may_come_from_sequences_of_any_lengths() -> None:
    counts = np.array([3, 4, 1000, 3, 7])
    words = np.random.Philox(key=3).random_raw(15).reshape(3, 5)
    positions = random_positions(words, counts, 3)
    assert positions[[0, 3]].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert (positions < counts[:, None]).all()
    for i in range(5):
        assert np.array_equal(positions[i], random_positions(words[:, i : i + 1], counts[i : i + 1], 3)[0])


@pytest.mark.parametrize(
    ("rules", "shares"),
    [
        ({}, {"nm": 4 / 6, "bg": 1 / 6, "cl": 1 / 6}),
        ({"balance": "walks"}, {"nm": 1 / 3, "bg": 1 / 3, "cl": 1 / 3}),
        ({"balance": "walks", "train_walks": ("nm-01", "nm-02", "bg")}, {"nm": 1 / 2, "bg": 1 / 2}),
    ],
)
def test_balance_over_walks_draws_each_kind_alike(rules: dict[str, Any], shares: dict[str, float]) -> None:
    sequences = make_sequences()
    found = drawn(make_plan(sequences, **rules), 50)
    kinds = Counter(walk.split("-")[0] for walk in sequences.walk[found].tolist())
    assert set(kinds) == set(shares)
    for kind, share in shares.items():
        # Four standard deviations of the share over 10,000 clips.
        assert abs(kinds[kind] / len(found) - share) < 4 * np.sqrt(share * (1 - share) / len(found))


def test_balance_over_views_draws_each_view_that_a_subject_has_alike_and_all_its_sequences() -> None:
    whole = make_sequences()
    # Subject 001 keeps all views, but only one sequence at 000; 002 has nothing but 090.
    first_of_000 = np.flatnonzero((whole.subject == "001") & (whole.view == "000"))[:1]
    keep = ~(((whole.subject == "001") & (whole.view == "000")) | ((whole.subject == "002") & (whole.view != "090")))
    keep[first_of_000] = True
    sequences = whole.select(keep)
    plan = make_plan(sequences, balance="views")
    found = drawn(plan, 50)
    assert set(found.tolist()) == set(range(len(sequences)))
    of_first = found[sequences.subject[found] == "001"]
    views = Counter(sequences.view[of_first].tolist())
    for view in VIEWS:
        assert abs(views[view] / len(of_first) - 1 / 3) < 4 * np.sqrt(2 / 9 / len(of_first))
    assert set(sequences.view[found[sequences.subject[found] == "002"]].tolist()) == {"090"}


def test_subjects_that_the_rules_leave_without_a_sequence_are_dropped() -> None:
    whole = make_sequences(6)
    keep = (whole.subject != "002") | (whole.walk != "cl-01")
    sequences = whole.select(keep)
    plan = make_plan(sequences, train_walks=("cl",))
    assert plan.dropped_subjects == ["002"]
    assert plan.subjects == ["001", "003", "004", "005", "006"]
    assert plan.requirement == "of at least 16 frames and of walks cl"


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"train_views": ("045",)}, r"^train_views is '045', but must be one of 000, 090, 180$"),
        ({"train_walks": ("ws",)}, r"^train_walks is 'ws', but must be one of bg, cl, nm, bg-01, "),
        (
            {"min_frames": 41},
            r"at most the 0 subjects that have a sequence of at least 41 frames \(there are sequences of 20 to 40",
        ),
        (
            {"train_views": ("000",), "train_walks": ("nm",), "min_frames": 21},
            r"of at least 21 frames and of views 000 and of walks nm "
            r"\(there are sequences of 20 to 40 frames, views 000, 090, 180, walks bg, cl, nm\)$",
        ),
        ({"min_frames": -1}, "min_frames is -1, but must be at least 0"),
        ({"frame_order": "sorted"}, "frame_order is 'sorted', but must be one of consecutive, subset, shuffled"),
        ({"balance": "walk"}, "balance is 'walk', but must be one of none, walks, views"),
    ],
)
def test_what_leaves_nothing_or_is_unknown_is_refused_with_what_there_is(rules: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence) as caught:
        make_plan(make_sequences(), **rules)
    assert "\n" not in str(caught.value)


def test_sequences_that_are_too_short_for_a_clip_say_how_long_they_are_and_what_helps() -> None:
    settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 50, "seed": 0}
    said = "at most the 0 subjects that have a sequence of at least 50 frames (there are sequences of 20 to 40 frames; "
    with pytest.raises(ParameterError) as caught:
        BatchPlan(make_sequences(), ["001", "002"], **settings)
    assert str(caught.value).endswith(said + "choose clip_frames=40, or repeat_short=true)")
    BatchPlan(make_sequences(), ["001", "002"], **settings, rules=ClipRules(repeat_short=True))


def test_a_filter_that_only_people_outside_the_training_set_pass_is_said_to_leave_nobody() -> None:
    whole = make_sequences()
    keep = (whole.subject == "004") | (whole.walk != "cl-01")
    sequences = whole.select(keep)
    settings = {"subjects_per_batch": 2, "clips_per_subject": 2, "clip_frames": 16, "seed": 0}
    with pytest.raises(ParameterError, match=r"at most the 0 subjects .* of walks cl \(there are walks bg, nm\)$"):
        BatchPlan(sequences, ["001", "002"], **settings, rules=ClipRules(train_walks=("cl",)))
