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
from attengait.system.lookup import check_name

FORMAT = "attengait-store"
VERSION = 1
MAX_CHUNK_FRAMES = 512
DEFAULT_CHUNK_FRAMES = 8
"""Clips begin anywhere: the shorter the chunks, the fewer frames are unpacked that no clip needs."""

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
    def raw_bytes(self) -> int:
        """Size of all uncompressed shard files."""
        return self.num_shards * (self.shard_frames * self.frame_bytes + index_bytes(self.chunks_per_shard))

    def create(self, group: zarr.Group) -> zarr.Array[Any]:
        """Create the array `frames` in a group that lacks it."""
        return group.create_array(
            "frames",
            shape=(self.num_frames, *self.frame_shape),
            dtype="uint8",
            chunks=(self.chunk_frames, *self.frame_shape),
            shards=(self.shard_frames, *self.frame_shape),
            compressors=CODECS[self.codec],
            fill_value=0,
        )


def check_codec(codec: str) -> None:
    """Raise ParameterError for a codec that is not offered."""
    check_name(CODECS, codec, "codec")


def check_chunk_frames(chunk_frames: int) -> None:
    """Raise ParameterError for a length of chunks that is out of range."""
    if not 1 <= chunk_frames <= MAX_CHUNK_FRAMES:
        raise ParameterError(f"chunk_frames is {chunk_frames}, but must be from 1 to {MAX_CHUNK_FRAMES}")


def frame_layout(frames: zarr.Array[Any]) -> FrameLayout:
    """The layout of an existing `frames` array; raises AttenGaitError when it is not as described above."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shards is None:
        raise AttenGaitError(
            f"frames is {frames.dtype} with {frames.ndim} dimensions{'' if frames.shards else ', without shards'}, "
            "but must be uint8 with 4 dimensions, in shards"
        )
    length, height, width, channels = frames.shape
    shard, chunk = frames.shards, frames.chunks
    codecs = [codec for codec, compressors in CODECS.items() if _kinds(frames.compressors) == _kinds(compressors)]
    if not codecs:
        found = ", ".join(_kinds(frames.compressors))
        raise AttenGaitError(f"frames is compressed by {found}, which is none of {', '.join(CODECS)}")
    if not shard[1:] == chunk[1:] == (height, width, channels) or length % shard[0]:
        raise AttenGaitError(
            f"frames {frames.shape} in shards {shard} and chunks {chunk} is not laid out in whole frames"
        )
    return FrameLayout(
        num_shards=length // shard[0],
        shard_frames=shard[0],
        chunk_frames=chunk[0],
        frame_shape=(height, width, channels),
        codec=codecs[0],
    )


def _kinds(compressors: tuple[Any, ...]) -> list[str]:
    """Names of codecs, with Blosc's inner compressor, whatever their levels."""
    return [f"{type(codec).__name__}/{_cname(codec)}" for codec in compressors]


def _cname(codec: Any) -> str:
    return codec.cname.value if isinstance(codec, BloscCodec) else ""


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


def read_shard_index(path: Path, chunks_per_shard: int) -> NDArray[np.uint64]:
    """Offset and size of each chunk in a shard file, uint64 [chunks_per_shard, 2]; `ABSENT` twice where there is none.

    Raises AttenGaitError when the file is missing or too short, when the index fails its checksum, or when it points
    outside the file.
    """
    try:
        with path.open("rb") as file:
            file_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, file_bytes - index_bytes(chunks_per_shard)))
            tail = file.read()
    except OSError as error:
        raise AttenGaitError(f"{path}: {error.strerror}") from error
    try:
        return parse_shard_index(tail, file_bytes, chunks_per_shard)
    except AttenGaitError as error:
        raise AttenGaitError(f"{path}: {error}") from error


def parse_shard_index(tail: bytes, file_bytes: int, chunks_per_shard: int) -> NDArray[np.uint64]:
    """The index in the last bytes of a shard file of `file_bytes`; see `read_shard_index`."""
    size = index_bytes(chunks_per_shard)
    tail = tail[-size:]
    if len(tail) < size:
        raise AttenGaitError(f"truncated to {file_bytes} bytes, which is less than its index")
    if google_crc32c.value(tail[:-4]) != int.from_bytes(tail[-4:], "little"):
        raise AttenGaitError("truncated or damaged, its index fails its checksum")
    index = np.frombuffer(tail[:-4], dtype="<u8").reshape(chunks_per_shard, 2)
    present = index[(index != ABSENT).all(axis=1)].astype(object)
    if any(offset + length > file_bytes - size for offset, length in present):
        raise AttenGaitError(f"its index points outside the file of {file_bytes} bytes")
    return index
