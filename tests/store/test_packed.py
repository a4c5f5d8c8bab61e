"""Chunks are unpacked whole or refused, whatever they say of themselves."""

import contextlib
import json

import google_crc32c
import numcodecs.blosc
import numcodecs.vlen
import numcodecs.zstd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attengait.errors import AttenGaitError
from attengait.store.location import Location
from attengait.store.metadata import column_document
from attengait.store.packed import decode_chunk, zstd_content_bytes
from attengait.store.sequences import DTYPES, read_column

FRAMES = np.arange(120, dtype=np.uint8).reshape(4, 6, 5)
PACK = {
    "none": lambda data: data,
    "lz4": lambda data: sealed(numcodecs.blosc.compress(data, b"lz4", 5, 0)),
    "zstd": lambda data: sealed(numcodecs.zstd.compress(data, 3)),
}


def sealed(packed):
    return packed + google_crc32c.value(packed).to_bytes(4, "little")


@pytest.mark.parametrize("size", [0, 1, 255, 256, 300, 65_791, 65_792, 10**6])
def test_the_size_that_zstd_says_is_read(size):
    assert zstd_content_bytes(numcodecs.zstd.compress(bytes(size), 3)) == size


@pytest.mark.parametrize("codec", PACK)
def test_a_chunk_of_exactly_these_frames_is_decoded(codec):
    found = np.zeros_like(FRAMES)
    decode_chunk(codec, PACK[codec](FRAMES.tobytes()), found)
    np.testing.assert_array_equal(found, FRAMES)


@pytest.mark.parametrize("num_bytes", [0, 119, 121, 10**6])
@pytest.mark.parametrize("codec", PACK)
def test_a_chunk_of_another_size_is_refused(codec, num_bytes):
    with pytest.raises(ValueError, match=rf"it holds {num_bytes} bytes instead of 120"):
        decode_chunk(codec, PACK[codec](bytes(num_bytes)), np.zeros_like(FRAMES))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(codec=st.sampled_from(["lz4", "zstd"]), data=st.data())
def test_any_bytes_with_a_right_checksum_are_decoded_or_refused(codec, data):
    packed = bytearray(PACK[codec](FRAMES.tobytes())[:-4])
    for at in data.draw(st.lists(st.integers(0, len(packed) - 1), max_size=3)):
        packed[at] = data.draw(st.integers(0, 255))
    packed = packed[: data.draw(st.integers(0, len(packed)))]
    # No other exception, and no crash.
    with contextlib.suppress(RuntimeError, ValueError):
        decode_chunk(codec, sealed(bytes(packed)), np.zeros_like(FRAMES))


def column_of(dtype, length, values):
    files = {"c/zarr.json": json.dumps(column_document(dtype, length)).encode(), "c/c/0": values}
    return read_column(Location.parse("s.zarr"), files, "c", (dtype,))


def texts(count, *values):
    return count.to_bytes(4, "little") + b"".join(len(value).to_bytes(4, "little") + value for value in values)


def test_a_column_is_what_was_packed():
    values = np.array([5, -1, 2**40])
    packed = sealed(numcodecs.zstd.compress(values.astype("<i8").tobytes(), 3))
    assert column_of(DTYPES["start"], 3, packed).tolist() == values.tolist()
    packed = sealed(numcodecs.zstd.compress(texts(2, b"nm-01", "ü".encode()), 3))
    assert column_of(DTYPES["walk"], 2, packed).tolist() == ["nm-01", "ü"]


@pytest.mark.parametrize(
    ("column", "length", "plain", "sentence"),
    [
        ("start", 3, bytes(16), "its values are 16 bytes, which is not what 3 entries take"),
        ("start", 10**6, bytes(24), "its values are 24 bytes, which is not what 1000000 entries take"),
        ("start", 3, bytes(2**29), "its values are 536870912 bytes, which is not what 3 entries take"),
        ("walk", 2, bytes(2**29), "its values are 536870912 bytes, which is not what 2 entries take"),
        ("walk", 2, texts(2**31, b"a", b"b"), "it has 2147483648 entries instead of 2"),
        ("walk", 2, texts(2, b"a", b"b")[:-1] + b"\xff", "cannot be read: 'utf-8' codec can't decode"),
        ("walk", 2, texts(2, b"abc") + b"\xff\xff\xff\x7f", "cannot be read: corrupt buffer"),
    ],
)
def test_a_column_that_lies_about_its_size_is_refused(column, length, plain, sentence):
    packed = sealed(numcodecs.zstd.compress(plain, 3))
    with pytest.raises(AttenGaitError, match=rf"s\.zarr: the column c cannot be read: .*{sentence}|{sentence}"):
        column_of(DTYPES[column], length, packed)
