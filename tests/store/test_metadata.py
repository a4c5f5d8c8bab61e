"""A zarr.json is what the layout would write, or it is refused with its name, whatever stands in it."""

import copy
import json
from importlib import import_module

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.errors import AttenGaitError
from attengait.store import open_store
from attengait.store.layout import CODECS, FrameLayout
from attengait.store.metadata import column_document, frames_document, parse_column, parse_document, parse_frames
from attengait.store.sequences import DTYPES, EXTRA_DTYPES, write_column
from attengait.store.writer import write_store

fakes = import_module("store_fakes")

PLACE = "s.zarr/frames/zarr.json"
SIZES = {"num_shards": 3, "shard_frames": 36, "chunk_frames": 4, "frame_shape": (6, 5, 3)}


@pytest.mark.parametrize("has_digest", [False, True])
@pytest.mark.parametrize("codec", CODECS)
def test_the_document_of_frames_is_what_zarr_python_writes(tmp_path, codec, has_digest):
    layout = FrameLayout(**SIZES, codec=codec)
    layout.create(zarr.create_group(tmp_path, zarr_format=3), has_digest=has_digest)
    data = (tmp_path / "frames" / "zarr.json").read_bytes()
    assert json.loads(data) == frames_document(layout, has_digest=has_digest)
    assert parse_frames(PLACE, data) == (layout, has_digest)


@pytest.mark.parametrize("length", [1, 9])
@pytest.mark.parametrize("dtype", {str(dtype): dtype for dtype in [*DTYPES.values(), *EXTRA_DTYPES.values()]}.values())
def test_the_document_of_a_column_is_what_zarr_python_writes(tmp_path, dtype, length):
    write_column(zarr.create_group(tmp_path, zarr_format=3), "c", np.array([1] * length).astype(dtype))
    data = (tmp_path / "c" / "zarr.json").read_bytes()
    assert json.loads(data) == column_document(dtype, length)
    assert parse_column(PLACE, data, [dtype]) == (dtype, length)


def at(document, *path):
    for key in path:
        document = document[key]
    return document


SHARDING = ("codecs", 0, "configuration")
CHANGES = [
    (("chunk_key_encoding", "configuration"), "separator", ".", "chunk_key_encoding.configuration.separator is '.'"),
    ((), "fill_value", 7, "fill_value is 7, but must be 0"),
    ((), "fill_value", False, "fill_value is False, but must be 0"),
    (SHARDING, "index_location", "start", r"codecs\[0\].configuration.index_location is 'start', but must be 'end'"),
    ((*SHARDING, "index_codecs", 0, "configuration"), "endian", "big", r"index_codecs\[0\].configuration.endian is"),
    ((*SHARDING, "codecs", 0), "name", "os.system", "the codecs of the chunks are .*which is none of"),
    ((), "storage_transformers", [{"name": "x"}], "storage_transformers is"),
    ((), "must_understand", True, "must_understand is True, but must be not there"),
    ((), "attributes", {"digest": "sha255"}, "attributes.digest is 'sha255', but must be 'sha256'"),
    ((), "shape", [], r"shape is \[\], but must be 4 whole numbers from 1 on"),
    (("shape",), 0, -36, "shape is"),
    (("shape",), 0, 108.0, "shape is"),
    (("shape",), 0, True, "shape is"),
    (("shape",), 0, 107, r"shape\[0\] is 107, but must be 72"),
    (("shape",), 0, 36 * 10**8, "the number of shards is 100000000, but must be at most 1048576"),
    (("shape",), 0, 2**63, "shape is"),
    (("chunk_grid", "configuration", "chunk_shape"), 0, 0, "chunk_grid.configuration.chunk_shape is"),
    ((*SHARDING, "chunk_shape"), 0, 0, r"codecs\[0\].configuration.chunk_shape is"),
    ((*SHARDING, "chunk_shape"), 0, 5, "shards of 36 frames have no whole chunks of 5"),
    ((*SHARDING, "chunk_shape"), 2, 4, r"chunk_shape\[2\] is 4, but must be 5"),
]


@pytest.mark.parametrize(("path", "key", "value", "sentence"), CHANGES)
def test_frames_that_are_not_as_they_are_written_are_refused_by_name(path, key, value, sentence):
    document = copy.deepcopy(frames_document(FrameLayout(**SIZES, codec="none"), has_digest=True))
    place = at(document, *path)
    place[key] = value
    with pytest.raises(AttenGaitError, match=rf"^{PLACE}\b.*{sentence}"):
        parse_frames(PLACE, json.dumps(document).encode())


def test_frames_of_any_size_are_refused_before_memory_is_taken():
    for axis, size, sentence in (
        (1, 10**6, "the height of a frame is 1000000, but must be at most 16384"),
        (2, 10**6, "the width of a frame is 1000000, but must be at most 16384"),
        (3, 10**6, "the number of channels is 1000000, but must be at most 1024"),
    ):
        shape = [6, 5, 3]
        shape[axis - 1] = size
        document = frames_document(FrameLayout(**SIZES | {"frame_shape": tuple(shape)}, codec="none"), has_digest=False)
        with pytest.raises(AttenGaitError, match=sentence):
            parse_frames(PLACE, json.dumps(document).encode())
    for sizes, sentence in (
        (
            {"shard_frames": 2**36, "chunk_frames": 4},
            "the size of a shard in bytes is .*, but must be at most 68719476736",
        ),
        (
            {"shard_frames": 2**23, "chunk_frames": 1, "frame_shape": (1, 1, 1)},
            "the number of chunks of a shard is 8388608",
        ),
        ({"shard_frames": 2**26, "chunk_frames": 2**26}, "the size of a chunk in bytes is"),
    ):
        document = frames_document(FrameLayout(**SIZES | sizes, codec="none"), has_digest=False)
        with pytest.raises(AttenGaitError, match=sentence):
            parse_frames(PLACE, json.dumps(document).encode())


def test_zarr_may_leave_out_what_is_empty_and_compress_harder():
    layout = FrameLayout(**SIZES, codec="lz4")
    document = copy.deepcopy(frames_document(layout, has_digest=False))
    del document["storage_transformers"], document["attributes"]
    document["dimension_names"] = None
    document["codecs"][0]["configuration"]["codecs"][1]["configuration"] |= {"clevel": 9, "shuffle": "bitshuffle"}
    assert parse_frames(PLACE, json.dumps(document).encode()) == (layout, False)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b"[" * 200_000, b'{"a":' * 40 + b"1" + b"}" * 40, b"9" * 5000]
)
def test_what_is_no_json_object_is_named(data):
    with pytest.raises(AttenGaitError, match=rf"^{PLACE} is damaged: "):
        parse_document(PLACE, data)


@pytest.mark.parametrize("length", [10**9, 10**12, -1, 1.0, True, None])
def test_a_column_of_a_length_that_cannot_be_is_refused(length):
    document = column_document(DTYPES["start"], 9) | {"shape": [length]}
    document["chunk_grid"]["configuration"]["chunk_shape"] = [length]
    with pytest.raises(AttenGaitError, match=rf"^{PLACE}: "):
        parse_column(PLACE, json.dumps(document).encode(), [DTYPES["start"]])


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**64) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def paths_in(document, path=()):
    """Every place in a document."""
    keys = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    return [(*path, key) for key in keys] + [deep for key in keys for deep in paths_in(document[key], (*path, key))]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(data=st.data(), codec=st.sampled_from(list(CODECS)), is_frames=st.booleans())
def test_any_value_anywhere_is_refused_or_changes_nothing(data, codec, is_frames):
    layout = FrameLayout(**SIZES, codec=codec)
    sound = frames_document(layout, has_digest=True) if is_frames else column_document(DTYPES["walk"], 9)
    document = copy.deepcopy(sound)
    *path, key = data.draw(st.sampled_from(paths_in(document)))
    place = at(document, *path)
    if data.draw(st.booleans()):
        place[key] = data.draw(values)
    else:
        del place[key]
    text = json.dumps(document).encode()
    found, said = None, ""
    try:
        found = parse_frames(PLACE, text) if is_frames else parse_column(PLACE, text, [DTYPES["walk"]])
    except AttenGaitError as error:
        said = str(error)
    # Sizes may be others, as far as they fit together: that they are the store's own is the digest's to say.
    is_sound = found in ((layout, True), (layout, False), (DTYPES["walk"], 9)) or (found and key in ("shape", 0))
    assert is_sound or (said.startswith(PLACE) and len(said) < 400)


def test_a_store_whose_document_was_cut_at_a_size_is_refused(tmp_path):
    write_store(fakes.job_of(tmp_path / "s.zarr"))
    for name, most in (("zarr.json", 2**20), ("sequences/walk/zarr.json", 2**20), ("sequences/walk/c/0", 2**28)):
        file = tmp_path / "s.zarr" / name
        before = file.read_bytes()
        with file.open("ab") as end:
            end.truncate(2**40)  # a hole, which takes no room
        with pytest.raises(AttenGaitError, match=rf"{name} has {2**40} bytes, but must have at most {most}"):
            open_store(tmp_path / "s.zarr")
        file.write_bytes(before)
