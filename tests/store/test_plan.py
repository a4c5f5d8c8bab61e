"""The plan: pure, complete, and economical."""

import dataclasses
import itertools

import numpy as np
import pytest

from attengait.errors import ParameterError
from attengait.store.plan import (
    WITH_TIMES,
    PlannedSequence,
    StorePlan,
    choose_shard_frames,
    first_changed,
    first_difference,
    pack,
)


def random_lengths(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 400))
    return rng.integers(0, int(rng.integers(1, 300)), count).tolist(), int(rng.choice([1, 8, 16, 24, 32]))


def slow_pack(lengths, shard_frames):
    shards, room = [[]], shard_frames
    for i, length in enumerate(lengths):
        if length > room:
            shards.append([])
            room = shard_frames
        shards[-1].append(i)
        room -= length
    return shards


@pytest.mark.parametrize("seed", range(30))
def test_packing_is_what_filling_shards_one_by_one_gives(seed):
    lengths, chunk_frames = random_lengths(seed)
    shard_frames = choose_shard_frames(lengths, chunk_frames)
    assert [list(members) for members in pack(lengths, shard_frames)] == slow_pack(lengths, shard_frames)


@pytest.mark.parametrize("seed", range(30))
def test_the_shard_length_is_the_least_wasteful_of_those_allowed(seed):
    lengths, chunk_frames = random_lengths(seed)
    chosen = choose_shard_frames(lengths, chunk_frames)
    assert chosen % chunk_frames == 0
    bound = max(1, max(lengths), -(-sum(lengths) // 32))
    allowed = [n * chunk_frames for n in itertools.takewhile(lambda n: n * chunk_frames <= 4096, itertools.count(1))]
    least = next(n for n in allowed if n >= bound)
    allowed = [n for n in allowed if least <= n <= 2 * least]
    totals = {n: n * len(slow_pack(lengths, n)) for n in allowed}
    assert totals[chosen] == min(totals.values())
    assert chosen == min(n for n in allowed if totals[n] == totals[chosen])


def test_a_large_set_has_shards_of_at_most_4096_frames():
    lengths = [100] * 20_000
    assert 2048 <= choose_shard_frames(lengths, 16) <= 4096
    assert choose_shard_frames(lengths, 24) <= 4080


def test_a_sequence_longer_than_4096_frames_gets_a_shard_that_holds_it():
    assert choose_shard_frames([10, 5000, 10], 16) == 5008
    assert [list(members) for members in pack([10, 5000, 10], 5008)] == [[0], [1], [2]]


def test_nothing_planned_is_no_shards():
    assert pack([], 16) == []
    assert choose_shard_frames([], 16) == 16


def test_a_plan_of_only_empty_sequences_still_visits_them():
    assert pack([0, 0, 0], choose_shard_frames([0, 0, 0], 16)) == [range(3)]


def a_plan(**changes):
    sequences = tuple(
        PlannedSequence(
            subject=f"{i:03d}", walk="nm-01", view="090", max_frames=10 * i, content_digest=f"d{i}", scan_digest=f"s{i}"
        )
        for i in range(5)
    )
    plan = StorePlan(
        sequences=sequences,
        parameters={"dataset": "fake", "recipe": {"gap": "skip", "levels": 3}},
        versions={"numpy": "2"},
        frame_shape=(64, 64, 3),
        codec="none",
        chunk_frames=16,
    )
    return dataclasses.replace(plan, **changes)


def test_a_stored_plan_comes_back_the_same():
    plan = a_plan()
    again = StorePlan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    assert again.layout == plan.layout


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"format": "attengait-store", "version": 2}'])
def test_a_damaged_plan_is_not_taken_for_one(data):
    with pytest.raises((KeyError, TypeError, ValueError)):
        StorePlan.from_json(data)


def test_the_size_of_the_shard_files_is_known_beforehand():
    layout = a_plan().layout
    assert layout.num_frames == layout.num_shards * layout.shard_frames
    assert layout.raw_bytes == layout.num_frames * 64 * 64 * 3 + layout.num_shards * (16 * layout.chunks_per_shard + 4)


@pytest.mark.parametrize(("name", "value"), [("codec", "gzip"), ("chunk_frames", 0), ("chunk_frames", 513)])
def test_parameters_out_of_range_are_refused_by_name_and_value(name, value):
    with pytest.raises(ParameterError, match=f"{name} is .*{value}"):
        a_plan(**{name: value})


def test_the_first_difference_is_named_with_both_values():
    ours = {"recipe": {"gap": "skip", "levels": 3}, "codec": "none"}
    assert first_difference(ours, ours) is None
    assert first_difference({**ours, "recipe": {"gap": "bridge", "levels": 3}}, ours) == (
        "recipe.gap",
        "bridge",
        "skip",
    )
    assert first_difference({"recipe": {"gap": "skip"}, "codec": "none"}, ours) == ("recipe.levels", None, 3)
    assert first_difference({**ours, "extra": 1}, ours) == ("extra", 1, None)
    assert first_difference({**ours, "recipe": "old"}, ours) == ("recipe", "old", ours["recipe"])


def test_a_changed_input_is_said_by_the_first_sequence_that_changed():
    sequences = a_plan().sequences
    assert first_changed(sequences, sequences) is None
    other = dataclasses.replace(sequences[2], content_digest="other")
    assert first_changed(sequences, (*sequences[:2], other, *sequences[3:])) == "002/nm-01/090 changed"
    assert first_changed(sequences, (*sequences[:2], *sequences[3:])) == "002/nm-01/090 is gone"
    assert first_changed((*sequences[:2], *sequences[3:]), sequences) == "002/nm-01/090 is new"
    assert first_changed(sequences, sequences[:-1]) == "004/nm-01/090 is gone"
    assert first_changed(sequences, sequences[::-1]) == "the order of the sequences changed"


def test_the_source_digest_depends_on_every_sequence_but_not_on_times_which_have_their_own():
    plan = a_plan()
    digests = {plan.source["sha256"]}
    for i, sequence in enumerate(plan.sequences):
        for change in ({"content_digest": "x"}, {"max_frames": 7}, {"view": "018"}):
            changed = list(plan.sequences)
            changed[i] = dataclasses.replace(sequence, **change)
            digests.add(a_plan(sequences=tuple(changed)).source["sha256"])
    copied = tuple(dataclasses.replace(sequence, scan_digest="later") for sequence in plan.sequences)
    changed = {key for key, value in a_plan(sequences=copied).source.items() if value != plan.source[key]}
    assert changed == {WITH_TIMES}
    assert len(digests) == 1 + 3 * len(plan.sequences)
