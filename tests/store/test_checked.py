"""Each sequence's frames are checked when one of them is first read, and not read for it again."""

import re
import shlex
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.joined import join_stores
from attengait.store.layout import CODECS, shard_path
from attengait.store.location import Location
from attengait.store.readers import checked
from attengait.store.readers.checked import CheckedReader
from attengait.store.readers.resident import ResidentReader
from attengait.store.sequences import DTYPES, Sequences

small_stores = import_module("small_stores")

PLACE = Location("some.zarr")


class Counting(ResidentReader):
    """A reader of frames in memory that notes what is asked for."""

    def __init__(self, frames):
        super().__init__(frames)
        self.asked = []

    def read_clips(self, starts, lengths):
        self.asked += zip(np.asarray(starts).tolist(), np.asarray(lengths).tolist(), strict=True)
        return super().read_clips(starts, lengths)


@pytest.fixture
def store(tmp_path):
    """A raw store: sequences of 20 frames, two in each shard of 48."""
    return small_stores.make_store(tmp_path / "s.zarr", attributes={"modality": "flow", "encoding": "colour"})


def damage(store, index):
    """Change one byte of the last frame of a sequence; returns its name."""
    path = shard_path(store.path, int(store.sequences.start[index]) // store.shard_frames)
    last = int(store.sequences.start[index] + store.sequences.length[index] - 1) % store.shard_frames
    data = bytearray(path.read_bytes())
    data[last * store.layout.frame_bytes] ^= 1
    path.write_bytes(data)
    return store.sequences.name(index)


def test_a_clip_of_a_damaged_sequence_is_refused_again_and_again_and_the_others_are_read(store):
    name = damage(store, 3)
    verify = re.escape(f"attengait verify {shlex.quote(str(store.path))}")
    start = int(store.sequences.start[3])
    with store.reader() as reader:
        assert len(reader.read_clips(store.sequences.start[:3], [5, 5, 5])) == 3
        for _ in range(2):
            with pytest.raises(
                AttenGaitError,
                match=rf"s\.zarr: the frames of {name} fail their checksum: {verify} lists all damage$",
            ):
                reader.read_clips([0, start + 2], [5, 5])
        take = reader.request_clips([start], [1])
        with pytest.raises(AttenGaitError, match=f"the frames of {name} fail"):
            take()
        assert reader.read_clips([0], [5])[0].shape == (5, 6, 5, 3)
    with pytest.raises(AttenGaitError, match=f"the frames of {name} fail"):
        _ = store[3, :5]
    with store.reader(check_frames=False) as reader:
        assert reader.read_clips([start], [5])[0].shape == (5, 6, 5, 3)


def test_a_joined_store_names_the_store_that_is_damaged(store, tmp_path):
    other = small_stores.make_store(tmp_path / "t.zarr", seed=1, attributes={"modality": "flow", "encoding": "colour"})
    damage(other, 9)
    joined = join_stores([store, other])
    starts, lengths = joined.sequences.start, joined.sequences.length - 1
    with joined.reader() as reader, pytest.raises(AttenGaitError, match=r"t\.zarr: the frames of 005/nm-02/090 fail"):
        reader.read_clips(starts, lengths)
    with joined.reader(check_frames=False) as reader:
        assert len(reader.read_clips(starts, lengths)) == 20


@pytest.mark.parametrize("codec", CODECS)
def test_shards_that_changed_places_are_found(tmp_path, codec):
    store = small_stores.make_store(tmp_path / "s.zarr", codec)
    one, other = shard_path(store.path, 0), shard_path(store.path, 2)
    data = one.read_bytes(), other.read_bytes()
    one.write_bytes(data[1])
    other.write_bytes(data[0])
    with store.reader() as reader, pytest.raises(AttenGaitError, match="the frames of 001/nm-01/090 fail"):
        reader.read_clips([2], [5])


def checked_reader(lengths=(20, 20, 300, 5)):
    """Sequences one after the other in a shard of 400 frames, with gaps of 3 frames."""
    ends = np.cumsum(np.array(lengths) + 3)
    starts = ends - lengths
    frames = np.random.default_rng(0).integers(0, 256, (400, 2, 2, 3), np.uint8)
    parts = [frames[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    columns = {
        "subject": [f"{i:03d}" for i in range(len(lengths))],
        "walk": ["nm-01"] * len(lengths),
        "view": ["090"] * len(lengths),
        "start": starts,
        "length": lengths,
        "crc32c": [checked.google_crc32c.value(part.tobytes()) for part in parts],
    }
    sequences = Sequences(**{name: np.array(column, DTYPES[name]) for name, column in columns.items()})
    layout = small_stores.FrameLayout(
        num_shards=1, shard_frames=400, chunk_frames=4, frame_shape=(2, 2, 3), codec="none"
    )
    inner = Counting(frames)
    return CheckedReader(inner, sequences, PLACE, layout), inner, frames, sequences, layout


def test_a_sequence_is_read_in_place_of_its_first_clip_and_then_only_clips_are():
    reader, inner, frames, _, _ = checked_reader()
    clips = reader.read_clips([5, 8, 28], [4, 4, 10])
    assert inner.asked == [(3, 20), (26, 20)]
    for start, length, clip in zip([5, 8, 28], [4, 4, 10], clips, strict=True):
        np.testing.assert_array_equal(clip, frames[start : start + length])
    inner.asked.clear()
    reader.read_clips([5, 8, 28], [4, 4, 10])
    assert inner.asked == [(5, 4), (8, 4), (28, 10)]


def test_a_long_sequence_is_read_in_pieces_unless_it_was_asked_for_as_a_whole():
    reader, inner, _, _, _ = checked_reader()
    (clip,) = reader.read_clips([60], [4])
    assert inner.asked == [(60, 4), (49, 256), (305, 44)]
    assert len(clip) == 4
    reader, inner, _, _, _ = checked_reader()
    reader.read_clips([49], [300])
    assert inner.asked == [(49, 300)]


def test_once_all_is_checked_nothing_is_looked_up():
    reader, inner, _, sequences, _ = checked_reader()
    reader.read_clips(sequences.start, sequences.length)
    inner.asked.clear()
    reader.read_clips([0], [400])
    reader.request_clips([0], [1])()
    assert inner.asked == [(0, 400), (0, 1)]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    bounds=st.lists(
        st.lists(st.tuples(st.integers(0, 399), st.integers(1, 60)), min_size=1, max_size=4), min_size=1, max_size=3
    ),
    damaged=st.none() | st.integers(0, 399),
)
def test_clips_are_those_of_the_reader_and_never_of_a_damaged_sequence(bounds, damaged):
    reader, _, frames, sequences, _ = checked_reader()
    if damaged is not None:
        frames[damaged, 0, 0, 0] ^= 1
    for request in bounds:
        starts = [start for start, _ in request]
        stops = [min(400, start + length) for start, length in request]
        touched = [
            i
            for i, (start, length) in enumerate(zip(sequences.start, sequences.length, strict=True))
            if any(a < start + length and start < b for a, b in zip(starts, stops, strict=True))
            and damaged is not None
            and start <= damaged < start + length
        ]
        lengths = np.subtract(stops, starts)
        if touched:
            with pytest.raises(AttenGaitError, match=f"the frames of {sequences.name(touched[0])} fail"):
                reader.read_clips(starts, lengths)
        else:
            for start, stop, clip in zip(starts, stops, reader.read_clips(starts, lengths), strict=True):
                np.testing.assert_array_equal(clip, frames[start:stop])


@pytest.mark.parametrize(
    ("column", "value"),
    [("start", -1), ("start", 400), ("start", 2**63 - 1), ("start", 396), ("length", 0), ("length", 2**63 - 1)],
)
def test_a_sequence_that_is_not_within_a_shard_is_refused_before_anything_is_read(column, value):
    _, inner, _, sequences, layout = checked_reader()
    getattr(sequences, column)[3] = value
    with pytest.raises(
        AttenGaitError, match=r"some\.zarr: 003/nm-01/090 does not lie within one shard: attengait veri"
    ):
        CheckedReader(inner, sequences, PLACE, layout)


def test_a_wrong_clip_is_refused_as_the_reader_does():
    reader, _, _, _, _ = checked_reader()
    for start, length in ((5, 0), (398, 5), (-2, 5)):
        with pytest.raises(ParameterError, match=f"a clip has frames {start} to {start + length - 1}"):
            reader.read_clips([start], [length])
