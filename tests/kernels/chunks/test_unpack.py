"""Compiled code unpacks chunks as numcodecs does, or refuses them; it never reads or writes where it must not."""

import ctypes
import os
from importlib import import_module
from pathlib import Path

import google_crc32c
import numcodecs.blosc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.kernels.chunks import unpack as unpacking
from attengait.kernels.chunks.unpack import crc32c, read_clips, unpack
from attengait.kernels.runtime.compile import find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler (c++, g++ or clang++)")

CONTENTS = import_module("packed_chunks").CONTENTS
GUARD = 64


def pack(data: bytes, *, level: int = 5, block_bytes: int = 0) -> bytes:
    return bytes(numcodecs.blosc.compress(data, b"lz4", level, 0, block_bytes))


def unpacked(packed: bytes, num_bytes: int) -> bytes | None:
    """What is unpacked between two guards, which must stay as they are; None if it is refused."""
    memory = np.full(num_bytes + 2 * GUARD, 0xA5, np.uint8)
    is_unpacked = unpack(packed, memory[GUARD : GUARD + num_bytes])
    assert (memory[:GUARD] == 0xA5).all()
    assert (memory[GUARD + num_bytes :] == 0xA5).all()
    return memory[GUARD : GUARD + num_bytes].tobytes() if is_unpacked else None


@pytest.mark.parametrize("num_bytes", [*range(70), 255, 256, 257, 1000, 4096, 100_003])
def test_the_checksum_is_that_of_google_crc32c(num_bytes: int) -> None:
    data = np.random.default_rng(num_bytes).integers(0, 256, num_bytes, np.uint8).tobytes()
    assert crc32c(data) == google_crc32c.value(data)


@pytest.mark.parametrize("block_bytes", [0, 512, 5000])
@pytest.mark.parametrize("level", [0, 1, 5, 9])
@pytest.mark.parametrize("name", CONTENTS)
def test_chunks_are_unpacked_bit_for_bit(name: str, level: int, block_bytes: int) -> None:
    data = CONTENTS[name]
    assert unpacked(pack(data, level=level, block_bytes=block_bytes), len(data)) == data


@pytest.mark.parametrize("num_bytes", range(1, 200))
def test_chunks_of_any_small_size_are_unpacked(num_bytes: int) -> None:
    data = (b"abcab" * 100)[:num_bytes]
    assert unpacked(pack(data), num_bytes) == data


def test_a_chunk_that_does_not_hold_as_many_bytes_is_refused() -> None:
    data = CONTENTS["flow"]
    for num_bytes in (0, 1, len(data) - 1, len(data) + 1, 2 * len(data)):
        assert unpacked(pack(data), num_bytes) is None


@pytest.mark.parametrize("codec", [b"blosclz", b"zlib", b"zstd", b"lz4"])
def test_what_stores_are_not_written_with_is_refused(codec: bytes) -> None:
    values = np.frombuffer(CONTENTS["flow"][:9000], "<u2")
    packed = numcodecs.blosc.compress(values, codec, 5, numcodecs.blosc.SHUFFLE)
    assert unpacked(packed, values.nbytes) is None


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(name=st.sampled_from(sorted(CONTENTS)), block_bytes=st.sampled_from([0, 512]), data=st.data())
def test_a_damaged_chunk_is_refused_or_unpacked_as_numcodecs_unpacks_it(
    name: str, block_bytes: int, data: st.DataObject
) -> None:
    content = CONTENTS[name][:3000]
    packed = bytearray(pack(content, block_bytes=block_bytes))
    # Sizes, flags and the first sequences are at the beginning.
    for at in data.draw(st.lists(st.integers(0, 60) | st.integers(0, len(packed) - 1), min_size=1, max_size=4)):
        packed[min(at, len(packed) - 1)] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del packed[data.draw(st.integers(0, len(packed) - 1)) :]
        packed[12:16] = len(packed).to_bytes(4, "little")
    found = unpacked(bytes(packed), len(content))
    if found is not None:
        assert found == bytes(numcodecs.blosc.decompress(bytes(packed)))


def sealed(packed: bytes) -> bytes:
    return packed + google_crc32c.value(packed).to_bytes(4, "little")


@pytest.fixture
def frames() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 9, (12, 5, 4, 3), np.uint8)


def write_shard(path: Path, frames: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Chunks of 4 frames, the second of which is left out; returns the index."""
    chunks = [sealed(pack(frames[i : i + 4].tobytes())) for i in (0, 4, 8)]
    path.write_bytes(b"".join(chunks))
    offsets = np.cumsum([0, *map(len, chunks)])[:-1]
    index = np.stack([offsets, [len(chunk) for chunk in chunks]], axis=1).astype(np.uint64)
    index[1] = 2**64 - 1
    return index


def read(path: Path, index: NDArray[np.uint64], firsts: list[int], *, max_packed_bytes: int = 10_000) -> list[object]:
    """Clips of 5 frames; None for one that could not be read."""
    clips = np.full((len(firsts), 5, 5, 4, 3), 99, np.uint8)
    file = os.open(path, os.O_RDONLY)
    try:
        places = [(file, index, first, clip) for first, clip in zip(firsts, clips, strict=True)]
        is_read = read_clips(places, chunk_frames=4, frame_bytes=60, max_packed_bytes=max_packed_bytes)
    finally:
        os.close(file)
    return [clip.tolist() if done else None for clip, done in zip(clips, is_read, strict=True)]


def test_clips_are_read_from_a_shard_whatever_their_beginning(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    index = write_shard(tmp_path / "shard", frames)
    frames[4:8] = 0
    expected = [frames[first : first + 5].tolist() for first in range(8)]
    assert read(tmp_path / "shard", index, list(range(8))) == expected


def test_only_clips_of_damaged_chunks_are_not_read(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    path = tmp_path / "shard"
    index = write_shard(path, frames)
    whole = path.read_bytes()
    frames[4:8] = 0
    bad, good = [None], [frames[7:12].tolist()]
    for at in (0, 20, int(index[0, 1]) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert read(path, index, [0, 7]) == bad + good
    path.write_bytes(whole[:-1])
    assert read(path, index, [0, 7]) == [frames[:5].tolist(), None]
    path.write_bytes(whole)
    for row in ([0, 3], [0, 0], [0, 10_001], [2**63, 50], [2**64 - 2, 2**64 - 2]):
        wrong = index.copy()
        wrong[0] = row
        assert read(path, wrong, [0, 7]) == bad + good
    assert read(path, index, [0], max_packed_bytes=20) == bad


def test_without_a_compiler_there_is_no_such_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler() -> ctypes.CDLL:
        raise AttenGaitError("unpack.cpp needs a C++ compiler")

    monkeypatch.setattr(unpacking, "_load", no_compiler)
    unpacking._library.cache_clear()
    try:
        assert not unpacking.can_read()
    finally:
        unpacking._library.cache_clear()


def test_no_byte_beyond_a_chunk_or_its_frames_is_touched_whatever_the_chunk_says() -> None:
    done = import_module("sanitised").run_sanitised("run_unpack_sanitised.py")
    assert done.stdout.split() == ["sound", "damaged", "overflow"], done.stderr
    assert "heap-buffer-overflow" in done.stderr
    assert done.returncode != 0
