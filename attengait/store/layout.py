"""How a store lies on disk: names, array metadata, and the index that ends every shard.

A store is one Zarr v3 group:

    STORE.zarr/zarr.json                 attributes; written last, so it is there only when the store is finished
    STORE.zarr/frames/zarr.json          uint8 [F, H, W, C]
    STORE.zarr/frames/c/SHARD/0/0/0      `shard_frames` frames; F = shards x shard_frames
    STORE.zarr/sequences/COLUMN/         one array per column (attengait.store.sequences)

Within a shard the chunks of `chunk_frames` frames come first, then the index: for each chunk its offset and size in
bytes (little-endian uint64, 2^64 - 1 twice for a chunk that is absent), then the CRC-32C of the index itself (4 bytes).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from attengait.errors import AttenGaitError, ParameterError
from attengait.store.location import Location, Where
from attengait.system.files import open_regular
from attengait.system.lookup import check_name

FORMAT = "attengait-store"
VERSION = 1
MAX_CHUNK_FRAMES = 512
DEFAULT_CHUNK_FRAMES = 8
"""Clips begin anywhere: the shorter the chunks, the fewer frames are unpacked that no clip needs."""

MAX_SHARDS = 2**20
MAX_FRAME_SIDE = 2**14
"""Pixels."""
MAX_CHANNELS = 2**10
MAX_SHARD_BYTES = 2**36
"""Unpacked. A shard holds its longest sequence in full."""
MAX_CHUNKS = 2**22
"""In a shard: an index of 64 MB."""
MAX_CHUNK_BYTES = 2**31 - 2**10
"""Unpacked. Blosc takes no more."""

DIGEST_MARK: dict[str, Any] = {"digest": "sha256"}
"""Attributes of `frames` in a store with a digest (attengait.store.digest), so that no single fault makes it look like
an older store that has none."""

ABSENT = np.uint64(2**64 - 1)
"""Offset and size of a chunk that a shard leaves out."""

CODECS: dict[str, tuple[Any, ...]] = {
    "none": (),
    # Blosc's lz4, as tensorstore refuses the other one. Shuffled bits would make flow images smaller, but slower to
    # read (`benchmark layout`, lz4-bits); who wants them small takes zstd.
    "lz4": (BloscCodec(typesize=1, cname="lz4", clevel=5, shuffle="noshuffle", blocksize=0), Crc32cCodec()),
    "zstd": (ZstdCodec(level=3), Crc32cCodec()),
}
"""What follows the plain bytes of a chunk. Raw chunks carry no checksum, so that they lie back to back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLayout:
    """Shape and coding of `frames`."""

    num_shards: int
    shard_frames: int
    """Frames per shard, a multiple of `chunk_frames`."""
    chunk_frames: int
    frame_shape: tuple[int, int, int]
    """Height, width, channels."""
    codec: str
    """A key of `CODECS`."""

    def __post_init__(self) -> None:
        check_codec(self.codec)

    @property
    def num_frames(self) -> int:
        """F, tails included."""
        return self.num_shards * self.shard_frames

    @property
    def chunks_per_shard(self) -> int:
        """Entries of a shard's index."""
        return self.shard_frames // self.chunk_frames

    @property
    def frame_bytes(self) -> int:
        """Bytes of one decoded frame."""
        height, width, channels = self.frame_shape
        return height * width * channels

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one unpacked chunk."""
        return self.chunk_frames * self.frame_bytes

    @property
    def max_packed_chunk_bytes(self) -> int:
        """Upper bound of a chunk's bytes in a shard file."""
        return self.chunk_bytes + (self.chunk_bytes // 64 + 2**10 if self.codec != "none" else 0)

    @property
    def max_shard_file_bytes(self) -> int:
        """Upper bound of the size of a shard file, with its index."""
        return self.chunks_per_shard * self.max_packed_chunk_bytes + index_bytes(self.chunks_per_shard)

    @property
    def raw_bytes(self) -> int:
        """Size of all uncompressed shard files."""
        return self.num_shards * (self.shard_frames * self.frame_bytes + index_bytes(self.chunks_per_shard))

    def create(self, group: zarr.Group, *, has_digest: bool = False) -> zarr.Array[Any]:
        """Create the array `frames` in a group that lacks it, of a store that will have a digest or not."""
        return group.create_array(
            "frames",
            shape=(self.num_frames, *self.frame_shape),
            dtype="uint8",
            chunks=(self.chunk_frames, *self.frame_shape),
            shards=(self.shard_frames, *self.frame_shape),
            compressors=CODECS[self.codec],
            fill_value=0,
            attributes=DIGEST_MARK if has_digest else {},
        )


def check_codec(codec: str) -> None:
    """Raise ParameterError for a codec that is not offered."""
    check_name(CODECS, codec, "codec")


def check_chunk_frames(chunk_frames: int) -> None:
    """Raise ParameterError for a length of chunks that is out of range."""
    if not 1 <= chunk_frames <= MAX_CHUNK_FRAMES:
        raise ParameterError(f"chunk_frames is {chunk_frames}, but must be from 1 to {MAX_CHUNK_FRAMES}")


def check_sizes(layout: FrameLayout) -> None:
    """Raise AttenGaitError for a layout beyond what is read, whatever its metadata say."""
    height, width, channels = layout.frame_shape
    for what, size, most in (
        ("the number of shards", layout.num_shards, MAX_SHARDS),
        ("the height of a frame", height, MAX_FRAME_SIDE),
        ("the width of a frame", width, MAX_FRAME_SIDE),
        ("the number of channels", channels, MAX_CHANNELS),
        ("the size of a shard in bytes", layout.shard_frames * layout.frame_bytes, MAX_SHARD_BYTES),
        ("the number of chunks of a shard", layout.chunks_per_shard, MAX_CHUNKS),
        ("the size of a chunk in bytes", layout.chunk_bytes, MAX_CHUNK_BYTES),
    ):
        if size > most:
            raise AttenGaitError(f"{what} is {size}, but must be at most {most}")


def shard_key(shard: int) -> str:
    """The file that holds a shard's frames, within the store."""
    return f"frames/c/{shard}/0/0/0"


def shard_path(store: Path, shard: int) -> Path:
    """The file that holds a shard's frames."""
    return store / shard_key(shard)


def work_path(store: Where) -> Path:
    """The folder of an unfinished store, with its plan, records and temporary files.

    It lies beside a store on this machine, and in the current folder for one behind a URL.
    """
    location = Location.parse(store)
    return (location.path.parent if location.path is not None else Path()) / f"{location.name}.work"


def report_location(store: Where) -> Location:
    """The JSON lines beside a store that say what was skipped, and why."""
    location = Location.parse(store)
    return location.parent / f"{location.name}.skipped.jsonl"


def index_bytes(chunks_per_shard: int) -> int:
    """Size of a shard's index with its checksum."""
    return 16 * chunks_per_shard + 4


def read_shard_index(path: Path, layout: FrameLayout) -> NDArray[np.uint64]:
    """Offset and size of each chunk in a shard file, uint64 [chunks_per_shard, 2]; `ABSENT` twice where there is none.

    Raises AttenGaitError when the file is missing, no regular file or too short, when the index fails its checksum, or
    when it points outside the file or has a chunk of more bytes than a chunk can have.
    """
    try:
        with open_regular(path) as file:
            file_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, file_bytes - index_bytes(layout.chunks_per_shard)))
            tail = file.read()
    except OSError as error:
        raise AttenGaitError(f"{path}: {error.strerror}") from error
    try:
        return parse_shard_index(tail, file_bytes, layout)
    except AttenGaitError as error:
        raise AttenGaitError(f"{path}: {error}") from error


def parse_shard_index(tail: bytes, file_bytes: int, layout: FrameLayout) -> NDArray[np.uint64]:
    """The index in the last bytes of a shard file of `file_bytes`; see `read_shard_index`."""
    size = index_bytes(layout.chunks_per_shard)
    tail = tail[-size:]
    if len(tail) < size:
        raise AttenGaitError(f"truncated to {file_bytes} bytes, which is less than its index")
    if google_crc32c.value(tail[:-4]) != int.from_bytes(tail[-4:], "little"):
        raise AttenGaitError("truncated or damaged, its index fails its checksum")
    index = np.frombuffer(tail[:-4], dtype="<u8").reshape(layout.chunks_per_shard, 2)
    present = index[(index != ABSENT).all(axis=1)].astype(object)
    if any(offset + length > file_bytes - size for offset, length in present):
        raise AttenGaitError(f"its index points outside the file of {file_bytes} bytes")
    if any(length > layout.max_packed_chunk_bytes for _, length in present):
        raise AttenGaitError(f"its index has a chunk of more than {layout.max_packed_chunk_bytes} bytes")
    return index
